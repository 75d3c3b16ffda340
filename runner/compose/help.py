"""What ``python -m runner --help`` prints."""

from __future__ import annotations

import shutil
import textwrap

from runner.compose import presets

HEAD = """\
Run a training algorithm on a workload and measure its time to target.

  python -m runner algorithm=lion workload=digits                    one run
  python -m runner -m algorithm=lion,adamw study=0,1,2               a grid
  python -m runner -m algorithm=lion ruleset=external_tuning         3 studies of 5 trials
  python -m runner -m +experiment=linked dry_run=true                plan of a grid, nothing is run
  python -m runner algorithm=lion algorithm.optimizer.lr=3e-4        another hyperparameter
  python -m runner algorithm=adamw algorithm/loss=label_smoothing    another part
  python -m runner.score results/default                             the leaderboard; --publish freezes it
  python -m runner.compare results/default lion adamw                paired comparison of two algorithms
  python -m runner.methods lion                                      a method's card; without a name, a list
  python -m runner.check algorithm=lion                              check a method
  python -m runner.check workload=digits                             check a workload
"""

TAIL = """\
Add a part to any algorithm with algorithm/<kind>=<name>; remove one with algorithm/<kind>=null.
Keys: name results_dir data_dir study trial label stop_at_target max_seconds
      checkpoint_every keep_checkpoint device threads log diagnostics
Launching a grid: hydra/launcher=inline|local|slurm dry_run workers per_gpu then grid ruleset.studies
      ruleset.trials ruleset.sequence; on SLURM cells_per_task minutes_per_task wait hydra.launcher.*
`--cfg job` prints the composed config; `--hydra-help` lists Hydra's own flags.
"""


def text() -> str:
    """The whole help text, for the width of the terminal."""
    width = min(shutil.get_terminal_size((80, 24)).columns, 110)
    sections = [HEAD, _table("workload=", presets.workloads(), width)]
    sections += [_table("algorithm=", presets.algorithms(), width)]
    sections += [
        _table(f"{key}=", presets.listed(key.lstrip("+")), width) for key in ("ruleset", "+experiment")
    ]
    sections += [TAIL]
    return "\n".join(sections)


def _table(title: str, names: dict[str, str], width: int) -> str:
    indent = max(map(len, names), default=0) + 4
    lines = [
        f"  {name:<{indent - 4}}  {textwrap.shorten(line, width - indent, placeholder='…')}"
        for name, line in names.items()
    ]
    return "\n".join([title, *lines, ""])

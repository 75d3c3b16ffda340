"""What ``python -m runner --help`` prints."""

from __future__ import annotations

import shutil
import textwrap

from runner.compose import presets

HEAD = """\
Train a training algorithm on a workload under a fair clock, and say when it reached the target.

  python -m runner algorithm=lion workload=digits                    one run
  python -m runner -m algorithm=lion,adamw study=0,1,2               a grid
  python -m runner -m algorithm=lion ruleset=external_tuning         3 studies of 5 trials
  python -m runner -m +experiment=linked dry_run=true                a grid's plan, and no run
  python -m runner algorithm=lion algorithm.optimizer.lr=3e-4        another hyperparameter
  python -m runner algorithm=adamw algorithm/loss=label_smoothing    another part
  python -m runner.score results/default                             the leaderboard; --publish freezes it
  python -m runner.compare results/default lion adamw                two algorithms, paired
  python -m runner.methods lion                                      a method's card; no name: all of them
  python -m runner.check algorithm=lion                              is a method well-behaved?
  python -m runner.check workload=digits                             and a workload?
"""

TAIL = """\
Parts go into any algorithm: algorithm/<kind>=<name>; algorithm/<kind>=null takes one out.
Keys: name results_dir data_dir study trial label stop_at_target max_seconds
      checkpoint_every keep_checkpoint device threads log diagnostics
How a grid runs: hydra/launcher=inline|local|slurm dry_run workers per_gpu then grid ruleset.studies
      ruleset.trials ruleset.sequence; on SLURM cells_per_task minutes_per_task wait hydra.launcher.*
`--cfg job` prints the composed config, `--hydra-help` Hydra's own flags.
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

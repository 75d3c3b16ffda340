"""Set a workload's target from tuned baselines, and write down how it was set.

    python scripts/make_targets.py workload=digits
    python scripts/make_targets.py workload=mnist --seeds 5 --take all \\
        --tuned "adamw algorithm.optimizer.lr=1e-3" "nesterov algorithm.optimizer.lr=0.01"

AlgoPerf's rule: each baseline gets the same number of trials from its own search space; the trial with the
best validation value, of whichever baseline, is rerun with new seeds; the target is the median over these of
the best validation value, rounded to the easier side. All of it at a share of the budget (--share), so that
what is as good as the best baseline has time to spare.

With --tuned the hyperparameters are given rather than searched, and --take all makes the target the value
that every run of every one of them has reached: for workloads where a search is too dear.

The runs are an ordinary experiment (results/targets): what is done is skipped, what was interrupted goes on.
Their studies are numbered from 100, which no board runs.
"""

from __future__ import annotations

import argparse
import itertools
import math
import shlex
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from runner.base.cli import leave
from runner.base.errors import UserError
from runner.base.files import write_text
from runner.base.paths import CONF, expanded
from runner.cells.cell import Cell
from runner.cells.tables import load
from runner.compose.config import compose
from runner.compose.overrides import assignment
from runner.compose.values import flatten
from runner.launch.local import Local
from runner.launch.start import run_grid
from runner.provenance import git

BASELINES = ("adamw", "nadamw", "nesterov", "sgd")  # sgd: heavy ball
TUNING, FIRST_SEED = 100, 101  # studies
EASIER = {False: math.floor, True: math.ceil}  # by "minimize"
Overrides = list[str]


@dataclass(frozen=True)
class Run:
    """A finished run: who it was, and the best validation value on its way."""

    label: str
    overrides: Overrides
    best: float
    cell: Cell


class Study:
    """The runs behind one target."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        config = compose([*arguments.overrides], arguments.config_dirs)
        self.workload: dict[str, Any] = config["workload"]
        self.name: str = config["workload"]["name"]
        self.minimize: bool = self.workload["minimize"]
        self.config = config

    def run(self, grid: Sequence[Overrides]) -> list[Run]:
        """Train every one of ``grid`` to the end of its budget (what is done already is not run again).

        Raises:
            SystemExit: when a run fails or is interrupted, with the grid's exit code.
        """
        budget = round(self.arguments.share * self.workload["budget_samples"])
        common = [assignment("results_dir", str(self.arguments.results_dir)), "name=targets", "log=none"]
        common += [*self.arguments.overrides, "stop_at_target=false", "workload.target=null"]
        if self.arguments.share != 1.0:
            common.append(f"workload.budget_samples={budget}")
        lists = [[*common, *overrides] for overrides in grid]
        code = run_grid(lists, Local(), self.arguments.config_dirs)
        if code:
            sys.exit(code)
        cells = [Cell.from_overrides(overrides, self.arguments.config_dirs) for overrides in lists]
        curves = self.curves().groupby("id")[self.metric]
        best = curves.min() if self.minimize else curves.max()
        return [
            Run(cell.config["label"], overrides, float(best.get(cell.id, math.nan)), cell)
            for overrides, cell in zip(grid, cells, strict=True)
        ]

    @property
    def key(self) -> str:
        """The workload's name in the file, and which data it is for where that is not the same everywhere."""
        data = self.workload.get("data_id")
        return self.name if data is None else f"{self.name}@{data}"

    @property
    def metric(self) -> str:
        """The column that is scored."""
        return f"validation/{self.workload['metric']}"

    def curves(self) -> Any:
        """All evaluations so far; diverged runs end in NaN, which is nobody's best."""
        return load(self.arguments.results_dir / "targets")[1]

    def best(self, runs: Sequence[Run]) -> Run:
        """The run with the best value."""
        sound = [run for run in runs if not math.isnan(run.best)]
        if not sound:
            raise UserError(f"no run on {self.name} has a value: all diverged")
        return (min if self.minimize else max)(sound, key=lambda run: run.best)


def main() -> int:
    """Tune, rerun, write; returns 0, the grid's exit code, or 2 for bad input."""
    arguments = _parser().parse_args()
    try:
        study = Study(arguments)
        entry = from_tuned(study) if arguments.tuned else from_search(study)
        write_entry(arguments.targets, study.key, entry)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(yaml.safe_dump({study.key: entry}, sort_keys=False, allow_unicode=True, width=110))
    return 0


def from_search(study: Study) -> dict[str, Any]:
    """Tune every baseline, rerun the best trial of all with new seeds."""
    arguments = study.arguments
    trials = [
        [f"algorithm={name}", f"study={TUNING}", f"trial={trial}"]
        for name, trial in itertools.product(arguments.algorithms, range(1, arguments.trials + 1))
    ]
    tried = study.run(trials)
    best = study.best(tried)
    reruns = study.run(_seeds(fixed(best), arguments.seeds))
    found = {
        name: round(study.best(list(runs)).best, 5)
        for name, runs in itertools.groupby(tried, key=lambda run: run.label)
    }
    how = (
        f"best of {', '.join(found)} with {arguments.trials} trials each, rerun with {len(reruns)} new seeds"
    )
    return _entry(study, {best.label: reruns}, how) | {"best_trial_of_each": found}


def from_tuned(study: Study) -> dict[str, Any]:
    """Rerun algorithms whose hyperparameters are known."""
    arguments, runs = study.arguments, {}
    for line in arguments.tuned:
        name, *keys = shlex.split(line)
        grid = _seeds([f"algorithm={name}", *keys], arguments.seeds)
        done = study.run(grid)
        runs[done[0].label] = done
    return _entry(study, runs, f"{', '.join(runs)} with {arguments.seeds} seeds each")


def fixed(trial: Run) -> Overrides:
    """Overrides that give a trial's hyperparameters by value, so that other seeds can have them."""
    config = trial.cell.config
    values = flatten(config["algorithm"])
    algorithm, *_ = trial.overrides
    return [algorithm, *(f"algorithm.{key}={_text(values[key])}" for key in config["search_space"])]


def _seeds(overrides: Overrides, count: int) -> list[Overrides]:
    return [[*overrides, f"study={FIRST_SEED + i}"] for i in range(count)]


def _text(value: Any) -> str:
    return f"[{','.join(map(_text, value))}]" if isinstance(value, list) else repr(value)


def _entry(study: Study, runs: Mapping[str, Sequence[Run]], how: str) -> dict[str, Any]:
    """The entry for ``conf/targets``: the value, and how it came about."""
    arguments, workload = study.arguments, study.workload
    values = [run.best for several in runs.values() for run in several]
    if any(math.isnan(value) for value in values):
        raise UserError(f"a rerun on {study.name} diverged: no target can be set from it")
    if arguments.take == "all":
        value, what = (max if study.minimize else min)(values), "the best value that every run reached"
    else:
        value, what = statistics.median(values), "median of the best value of each run"
    scale = 10**arguments.digits
    target = EASIER[study.minimize](value * scale) / scale
    facts = git.facts()
    return {
        "target": target,
        "metric": workload["metric"],
        "how": f"{how}, at {arguments.share:.0%} of the budget: {what}, to {arguments.digits} decimals",
        "n": len(values),
        "algorithms": {label: several[0].overrides[1:-1] for label, several in runs.items()},
        "best_values": {label: sorted(round(r.best, 5) for r in several) for label, several in runs.items()},
        "samples_to_target": {label: _crossings(study, several, target) for label, several in runs.items()},
        "budget_samples": workload["budget_samples"],
        "commit": f"{str(facts.get('commit', 'unknown'))[:12]}{' and changes' if facts.get('dirty') else ''}",
        "machine": _machine(study.config),
        "date": time.strftime("%Y-%m-%d"),
        "command": "python scripts/make_targets.py " + shlex.join(_without_places(sys.argv[1:])),
    }


def _without_places(words: Sequence[str]) -> list[str]:
    """The command line less where things lie on this machine."""
    places = ("--targets", "--results-dir")
    return [w for i, w in enumerate(words) if not w.startswith(places) and words[i - 1] not in places]


def _crossings(study: Study, runs: Sequence[Run], target: float) -> list[float]:
    """Samples at which each run first is as good as the target; inf where it never is."""
    curves = study.curves()
    good = curves[study.metric] <= target if study.minimize else curves[study.metric] >= target
    first = curves[good].groupby("id")["samples"].min()
    return sorted(float(first.get(run.cell.id, math.inf)) for run in runs)


def write_entry(path: Path, name: str, entry: dict[str, Any]) -> None:
    """Put the entry into the targets file, keeping the others."""
    content = yaml.safe_load(path.read_text("utf-8"))
    content["values"] = dict(sorted({**(content["values"] or {}), name: entry}.items()))
    head = "".join(line + "\n" for line in path.read_text("utf-8").splitlines() if line.startswith("#"))
    write_text(path, head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110))


def _machine(config: Mapping[str, Any]) -> str:
    from runner.machine.machine import cpu_name

    return f"{cpu_name()}, {config['threads']} thread{'s' * (config['threads'] > 1)}, {config['device']}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("overrides", nargs="+", help="workload=… and what else all runs share")
    add("--algorithms", type=lambda text: text.split(","), default=list(BASELINES), help="by commas")
    add("--trials", type=int, default=20, help="of each algorithm (default 20)")
    add("--seeds", type=int, default=20, help="new seeds for the best (default 20)")
    add("--tuned", nargs="+", metavar="'NAME KEY=VALUE …'", help="known algorithms instead of a search")
    add(
        "--take",
        choices=("median", "all"),
        default="median",
        help="the median run's value, or what all reach",
    )
    add("--share", type=float, default=0.75, help="of the budget that a run gets (default 0.75)")
    add("--digits", type=int, default=4, help="decimals of the target (default 4)")
    add("--targets", type=expanded, default=CONF / "targets" / "v1.yaml", help="file to write to")
    add("--results-dir", type=expanded, default=Path("results"))
    add("--config-dir", "-cd", dest="config_dirs", action="append", type=expanded, default=[],
        help="a folder beside conf/, for a workload or a baseline of your own")  # fmt: skip
    return parser


if __name__ == "__main__":
    leave(main)

"""Set a workload's target from repeated runs of a tuned AdamW, and write down how it was set.

    python scripts/make_targets.py workload=digits algorithm.optimizer.lr=1e-2

The target is the value of the validation metric that the median study has reached at two fifths of the
budget (best so far), rounded to the side that is easier. The runs are an ordinary experiment
(``results/targets``): what is done is skipped, what was interrupted goes on.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from runner import git
from runner.config import compose
from runner.errors import UserError
from runner.files import write_text
from runner.grid import run_grid
from runner.paths import CONF
from runner.tables import load

FIRST_STUDY = 100  # studies of their own: no board ever runs these seeds
EASIER = {False: math.floor, True: math.ceil}  # by "minimize"


def main() -> int:
    """Run, compute, write; returns the grid's exit code, or 2 for bad input."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="+", help="workload=… and the tuned hyperparameters")
    parser.add_argument("--studies", type=int, default=5, help="how many seeds (default 5)")
    parser.add_argument("--at", type=float, default=0.4, help="share of the budget (default 0.4)")
    parser.add_argument("--digits", type=int, default=3, help="decimals of the target (default 3)")
    parser.add_argument("--targets", type=Path, default=CONF / "targets" / "v1.yaml", help="file to write to")
    parser.add_argument("--results-dir", default="results")
    arguments = parser.parse_args()
    whole = ["stop_at_target=false", "workload.target=null"]
    overrides = [f"results_dir={arguments.results_dir}", "name=targets", *arguments.overrides, *whole]
    grid = [[*overrides, f"study={FIRST_STUDY + i}"] for i in range(arguments.studies)]
    try:
        config = compose(grid[0])
        code = run_grid(grid)
        if code == 0:
            entry = target(config, curves(config, arguments), arguments)
            write_entry(arguments.targets, config["workload"]["name"], entry)
            print(yaml.safe_dump({config["workload"]["name"]: entry}, sort_keys=False, allow_unicode=True))
        return code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def curves(config: dict[str, Any], arguments: argparse.Namespace) -> pd.DataFrame:
    """The evaluations of just these cells."""
    _, evals = load(Path(arguments.results_dir) / "targets")
    mine = (evals["workload"] == config["workload_label"]) & (evals["label"] == config["label"])
    return evals.loc[mine & (evals["study"] < FIRST_STUDY + arguments.studies)]


def target(config: dict[str, Any], evals: pd.DataFrame, arguments: argparse.Namespace) -> dict[str, Any]:
    """The entry for ``conf/targets``: the value, and how it came about."""
    workload = config["workload"]
    metric, minimize = f"validation/{workload['metric']}", workload["minimize"]
    best = "min" if minimize else "max"
    early = evals[evals["drawn"] <= arguments.at * workload["budget_samples"]]
    reached = sorted(early.groupby("study")[metric].agg(best))
    final = sorted(evals.groupby("study")[metric].agg(best))
    scale = 10**arguments.digits
    value = EASIER[minimize](statistics.median(reached) * scale) / scale
    facts = git.facts()
    return {
        "target": value,
        "metric": workload["metric"],
        "how": f"median over {len(reached)} studies of the best value within {arguments.at:.0%} "
        f"of the budget, rounded to {arguments.digits} decimals",
        "algorithm": config["label"],
        "n": len(reached),
        "reached": [round(v, 5) for v in reached],
        "best_at_full_budget": [round(v, 5) for v in final],
        "budget_samples": workload["budget_samples"],
        "commit": f"{str(facts.get('commit', 'unknown'))[:12]}{' and changes' if facts.get('dirty') else ''}",
        "machine": _machine(config),
        "date": time.strftime("%Y-%m-%d"),
        "command": "python scripts/make_targets.py " + " ".join(arguments.overrides),
    }


def write_entry(path: Path, name: str, entry: dict[str, Any]) -> None:
    """Put the entry into the targets file, keeping the others."""
    content = yaml.safe_load(path.read_text())
    content["values"] = dict(sorted({**(content["values"] or {}), name: entry}.items()))
    head = "".join(line + "\n" for line in path.read_text().splitlines() if line.startswith("#"))
    write_text(path, head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110))


def _machine(config: dict[str, Any]) -> str:
    from runner.machine import cpu_name

    return f"{cpu_name()}, {config['threads']} thread{'s' * (config['threads'] > 1)}, {config['device']}"


if __name__ == "__main__":
    sys.exit(main())

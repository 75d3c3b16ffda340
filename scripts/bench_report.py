"""How long does a report of a large experiment take? ``python -m scripts.bench_report``.

2,000 cells by default, drawn from a seed: algorithms × 8 workloads × 5 studies × 5 trials, 50 evaluations
each, two hyperparameters. Timed is what turns tables into boards and ``report.html`` with its figures;
reading folders is not part of it. Each figure is a process of its own, pinned to some cores, imports
included.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from scripts.drawn_cells import EVALUATIONS, evaluations


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=2_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="a folder to write the report to")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)  # measure in this process
    options = parser.parse_args(argv)
    if options.one:
        return _measure(options.cells, options.keep)
    print(
        f"{options.cells:,} cells, {options.cells * EVALUATIONS:,} evaluations; load {os.getloadavg()[0]:.1f}"
    )
    print(
        "| seconds (median of processes) | range | CPU seconds | peak MB | page MB |\n|--:|--:|--:|--:|--:|"
    )
    runs = sorted(_run(options) for _ in range(options.repeats))
    wall, cpu = [run[0] for run in runs], [run[1] for run in runs]
    figures = f"{wall[len(wall) // 2]:.1f} | {wall[0]:.1f}–{wall[-1]:.1f} | {sorted(cpu)[len(cpu) // 2]:.1f}"
    print(f"| {figures} | {max(run[2] for run in runs):,.0f} | {runs[0][3]:.2f} |")
    return 0


def tables(cells: int, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cells and evaluations with all that a report shows."""
    table, evals = evaluations(cells, seed)
    rng = np.random.default_rng(seed)
    hit = np.isfinite(table["samples_to_target"].to_numpy())
    last = (table["samples"].to_numpy() / 1000 - 1).astype(int)
    index = np.tile(np.arange(EVALUATIONS), cells)
    kept = index <= np.repeat(last, EVALUATIONS)
    rise = 0.9 * (1 - np.exp(-4 * index / np.repeat(last + 1, EVALUATIONS)))
    noisy = np.minimum(rise + 0.01 * rng.standard_normal(len(index)), 0.89)
    reached = (index == np.repeat(last, EVALUATIONS)) & np.repeat(hit, EVALUATIONS)
    evals = evals.assign(
        eval_index=index, drawn=index * 1000, steps=index * 10, seconds=index * 0.5 * rng.uniform(0.9, 1.1),
    )  # fmt: skip
    evals["validation/accuracy"], evals["diag/grad_norm"] = np.where(reached, 0.9, noisy), 1 / (1 + index)
    facts = {
        "metric": "accuracy",
        "minimize": False,
        "target": 0.9,
        "ruleset": "external_tuning",
        "data": "embedded",
    }
    table = table.assign(
        id=np.arange(cells), trial=table["trial"] + 1, hit=hit, ended=np.where(hit, "target", "budget"),
        best_metric=np.where(hit, 0.9, 0.88), seconds=table["samples"] / 2000, steps=table["samples"] / 100,
        seconds_to_target=table["samples_to_target"] / 2000, steps_to_target=table["samples_to_target"] / 100,
        **facts,
    )  # fmt: skip
    table["hparam/optimizer.lr"] = 10 ** rng.uniform(-4, -1, cells)
    table["hparam/optimizer.weight_decay"] = 10 ** rng.uniform(-5, -1, cells)
    return table, evals.loc[kept]


def _measure(cells: int, keep: Path | None) -> int:
    table, evals = tables(cells)
    start, cpu = time.perf_counter(), time.process_time()
    from runner.boards.board import boards
    from runner.boards.inputs import Inputs
    from runner.boards.rules import Rules
    from runner.report import write

    with tempfile.TemporaryDirectory() as scratch:
        folder = keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        page = write(Inputs(folder, "imported", table, evals), boards(table, Rules(baseline="algorithm0")))
        size = page.stat().st_size / 1e6
    seconds, spent = time.perf_counter() - start, time.process_time() - cpu
    print(seconds, spent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, size)
    return 0


def _run(options: argparse.Namespace) -> tuple[float, ...]:
    """Seconds, CPU seconds, MB of one process, MB of its page."""
    command = [sys.executable, "-m", "scripts.bench_report", "--cells", str(options.cells), "--one"]
    command += ["--keep", str(options.keep)] if options.keep else []
    allowed = sorted(os.sched_getaffinity(0))
    done = subprocess.run(
        command,
        check=True,
        capture_output=True,
        encoding="utf-8",
        preexec_fn=lambda: os.sched_setaffinity(0, allowed[: options.cores]),
    )
    return tuple(map(float, done.stdout.split()))


if __name__ == "__main__":
    sys.exit(main())

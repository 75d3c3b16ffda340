"""How long does scoring a large experiment take? ``python -m scripts.bench_score``.

A million evaluations, 20,000 cells by default, drawn from a seed: algorithms × workloads × studies × trials.
Timed is what turns the table of cells into a board, comparability and the test of neighbours included;
reading folders is not part of it. Each figure is a process of its own, pinned to two cores, and its memory is
that of the whole process.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence

from scripts import bench_report
from scripts.drawn_cells import EVALUATIONS, evaluations


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--resamples", type=int, nargs="*", default=[0, 1000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--report", type=int, default=2_000, metavar="CELLS", help="of the report; 0: none")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)  # resamples: measure in this process
    options = parser.parse_args(argv)
    if options.one is not None:
        return _measure(options.cells, options.one)
    print(
        f"{options.cells:,} cells, {options.cells * EVALUATIONS:,} evaluations; load {os.getloadavg()[0]:.1f}"
    )
    print("| resamples | seconds (median of processes) | range | peak MB |\n|--:|--:|--:|--:|")
    for resamples in options.resamples:
        runs = [_run(options.cells, resamples, options.cores) for _ in range(options.repeats)]
        seconds, memory = sorted(run[0] for run in runs), max(run[1] for run in runs)
        middle = f"{seconds[len(runs) // 2]:.2f} | {seconds[0]:.2f}–{seconds[-1]:.2f}"
        print(f"| {resamples:,} | {middle} | {memory:,.0f} |")
    if options.report:
        print("\nThe report:")
        shared = ["--repeats", str(options.repeats), "--cores", str(options.cores)]
        return bench_report.main(["--cells", str(options.report), *shared])
    return 0


def _measure(cells: int, resamples: int) -> int:
    from runner.boards.board import boards
    from runner.boards.rules import Rules

    table, evals = evaluations(cells)
    start = time.perf_counter()
    boards(table, Rules(baseline="algorithm0", resamples=resamples), {"0": {"runner.train.loop": "0"}})
    seconds = time.perf_counter() - start
    assert len(evals) == cells * EVALUATIONS  # held meanwhile, as by whoever scores an experiment
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return 0


def _run(cells: int, resamples: int, cores: int) -> tuple[float, float]:
    """Seconds and MB of one process."""
    command = [sys.executable, "-m", "scripts.bench_score", "--cells", str(cells), "--one", str(resamples)]
    allowed = sorted(os.sched_getaffinity(0))
    done = subprocess.run(
        command,
        check=True,
        capture_output=True,
        encoding="utf-8",
        preexec_fn=lambda: os.sched_setaffinity(0, allowed[:cores]),
    )
    seconds, memory = done.stdout.split()
    return float(seconds), float(memory)


if __name__ == "__main__":
    sys.exit(main())

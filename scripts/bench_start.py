"""What does the first second cost? ``python -m scripts.bench_start``.

Commands take turns, each a process of its own, byte code kept: ``--cfg job`` and ``--help``; a program that
imports torch, Hydra and pandas and makes one step of ``torch.optim.SGD``, which no program with PyTorch
avoids; and a cold cell of half a second's training, launcher and worker together. The cell's first step is
when its records say: the time of its last word, less its whole clock, plus the clock at its first evaluation.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from runner.base.paths import ROOT

STEP = """
import torch, hydra, pandas
weight = torch.nn.Parameter(torch.ones(3))
optimizer = torch.optim.SGD([weight], lr=0.1)
weight.sum().backward()
optimizer.step()
"""
CELL = ("-m", "runner", "algorithm=sgd", "workload=breast_cancer", "log=none", "threads=1")
SIDES = ("--cfg job", "--help", "imports and a step of SGD", "cell, whole", "cell, to its first step")
# What is compared: over what, in which of (CPU seconds, seconds), and how.
GOALS = (
    ("help − cfg job, CPU s", "--help", "--cfg job", 0, float.__sub__, 0.6),
    ("first step ÷ imports and a step, wall", SIDES[4], SIDES[2], 1, float.__truediv__, 1.4),
    ("whole cell ÷ imports and a step, CPU", SIDES[3], SIDES[2], 0, float.__truediv__, 1.4),
)
Cost = tuple[float, float]  # CPU seconds of all its processes, and seconds by the clock


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args(argv)
    rounds = [measured() for _ in range(1 + options.rounds)][1:]  # the first compiles
    print("| | CPU s | wall, s |\n|---|--:|--:|")
    for side in SIDES:
        costs = zip(*(one[side] for one in rounds), strict=True)
        print(f"| {side} | {' | '.join(map(_median, costs))} |")
    print("\n| | median of rounds | goal |\n|---|--:|--:|")
    for name, side, other, which, compare, goal in GOALS:
        found = [compare(one[side][which], one[other][which]) for one in rounds]
        print(f"| {name} | {_median(found)} | {goal} |")
    cores = f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} cores"
    print(f"\nmedians (range) of {options.rounds} rounds; load {os.getloadavg()[0]:.1f}, {cores}")
    return 0


def measured() -> dict[str, Cost]:
    """Every command once."""
    found = {
        "--cfg job": cost("-m", "runner", "--cfg", "job"),
        "--help": cost("-m", "runner", "--help"),
        SIDES[2]: cost("-c", STEP),
    }
    with tempfile.TemporaryDirectory() as folder:
        begun = time.time()
        found[SIDES[3]] = whole = cost(*CELL, f"results_dir={folder}", "name=start")
        found[SIDES[4]] = (whole[0], first_step(Path(folder) / "start") - begun)
    return found


def cost(*command: str) -> Cost:
    """What ``python COMMAND`` costs.

    Raises:
        subprocess.CalledProcessError: when it fails.
    """
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], check=True, cwd=ROOT, env=environment, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, time.perf_counter() - start


def first_step(experiment: Path) -> float:
    """When an experiment's only cell made its first training step, in seconds of UTC."""
    (cell,) = (experiment / "cells").iterdir()
    status = json.loads((cell / "status.json").read_text(encoding="utf-8"))
    row = json.loads((cell / "evals.jsonl").read_text(encoding="utf-8").partition("\n")[0])
    before = sum(value for key, value in row.items() if key.startswith("clock/"))
    return status["updated"] - status["summary"]["wall_seconds"] + before


def _median(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    sys.exit(main())

"""How long does a large experiment take to look at, and to compose? ``python -m scripts.bench_status``.

One real cell is trained, then copied under other names: finished, failed, killed and pending ones.
``status`` is timed as a person meets it, the whole command; composing inside one process, for cells that
differ in their study, and in a learning rate.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from runner.base.paths import ROOT
from runner.cells.cell import Cell
from runner.compose.config import hydra_ready
from runner.provenance import git

SMALL = ("workload=digits", "workload.budget_samples=640", "workload.target=null", "log=none")
STATES = {"done": 0.97, "failed": 0.01, "running": 0.01, "pending": 0.01}  # running, held by nobody: killed


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        experiment = copies(Path(folder), options.cells)
        print("| what | n | median | range |\n|---|--:|--:|--:|")
        show = f"`python -m runner.status`, {options.cells:,} cells"
        row(show, [seconds(lambda: status(experiment)) for _ in range(options.repeats)], "s")
    for what, times in composing().items():
        row(what, times, "ms")
    commit = str(git.facts().get("commit", "?"))[:10]
    print(f"\ncommit {commit}, load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    return 0


def copies(results: Path, count: int) -> Path:
    """An experiment of ``count`` cells."""
    from runner.train.session import run_cell

    cell = Cell.from_overrides([*SMALL, f"results_dir={results}", "name=bench"])
    cell.submit()
    run_cell(cell.folder.path)
    files = {path.name: path.read_bytes() for path in cell.folder.path.iterdir()}
    shutil.rmtree(cell.folder.path)
    states = [state for state, share in STATES.items() for _ in range(round(share * count))]
    for number, state in enumerate(states):
        path = cell.folder.path.with_name(f"digits.adamw.s{number // 100}.t{number % 100}.{number:010x}")
        path.mkdir()
        for name, content in files.items():
            (path / name).write_bytes(content)
        if state != "done":
            (path / "status.json").write_text(json.dumps({"status": state, "error": "a reason"}), "utf-8")
    return results / "bench"


def status(experiment: Path) -> None:
    """The verb, as a command of its own."""
    command = [sys.executable, "-m", "runner.status", str(experiment)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def composing() -> dict[str, list[float]]:
    """Milliseconds a cell, by what cells differ in; the first of each, which reads files, is left out."""

    def each(differing: Sequence[str]) -> list[float]:
        overrides = [[*SMALL, "algorithm=adamw", difference] for difference in differing]
        return [1e3 * seconds(lambda o=o: Cell.from_overrides(o)) for o in overrides][1:]

    with hydra_ready():
        return {
            "composing a cell that differs in its study": each([f"study={s}" for s in range(200)]),
            "composing a cell that differs in its learning rate": each(
                [f"algorithm.optimizer.lr={1e-5 * k}" for k in range(1, 201)]
            ),
        }


def seconds(call: Callable[[], object]) -> float:
    """How long ``call`` takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def row(what: str, times: Sequence[float], unit: str) -> None:
    """A line of the table."""
    spread = f"{min(times):.3g} to {max(times):.3g}"
    print(f"| {what} | {len(times)} | {statistics.median(times):.3g} {unit} | {spread} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())

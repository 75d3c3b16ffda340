"""Grids as a user starts them: two cells on a GPU, Ctrl-C and on, out of memory, two kinds in one worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from runner.cells.tables import cell_paths, load
from runner.contract.records import CellFolder
from scripts.gpu_checks.unit import Broken, Facts, Place, Unit

LIMIT = 240.0  # seconds that a grid may take
SMALL = ("workload=digits", "workload.budget_samples=3200", "stop_at_target=false", "log=none")
LONG = ("workload=digits", "workload.budget_samples=96000", "workload.eval_every=1600",
        "stop_at_target=false", "log=none")  # fmt: skip
BOTH = "algorithm.optimizer._target_=scripts.gpu_checks.greedy.Greedy,torch.optim.SGD"


def units() -> Mapping[str, Unit]:
    """One for each course that a grid may take."""
    return {
        "two-a-gpu": two_a_gpu,
        "interrupted": interrupted,
        "out-of-memory": out_of_memory,
        "two-kinds": two_kinds,
    }


def two_a_gpu(place: Place) -> Facts:
    """Four cells, two at once on each GPU: all done, and all contended."""
    shared = ("per_gpu=2",) if place.device == "cuda" else ("workers=2",)
    cells = _done(place, "two", *SMALL, "algorithm=sgd,adamw", "study=0,1", *shared)
    if place.device == "cuda" and not all(cells["contended"]):
        raise Broken("cells that shared a GPU do not count as contended")
    return {"cells": len(cells), "contended": sum(map(bool, cells["contended"]))}


def interrupted(place: Place) -> Facts:
    """Ctrl-C after the first evaluations, and the same command again: every cell goes on where it was."""
    line = _line(place, "stopped", *LONG, "algorithm=sgd,adamw", "workload.deterministic=true")
    process = subprocess.Popen(line, env=_environment(place), stderr=subprocess.PIPE, encoding="utf-8")
    try:
        _wait_for_rows(place.folder / "stopped", process)
        process.send_signal(signal.SIGINT)
        code, said = process.wait(LIMIT), process.communicate()[1]
    finally:
        process.kill()
    if code != 130:
        raise Broken(f"Ctrl-C ended the grid with exit code {code}: {said.strip()[-300:]}")
    cells = _done(place, "stopped", *LONG, "algorithm=sgd,adamw", "workload.deterministic=true")
    if not any(count > 0 for count in cells["resumes"]):
        raise Broken("no cell went on from a checkpoint")
    return {"cells": len(cells), "resumed": sum(count > 0 for count in cells["resumes"])}


def out_of_memory(place: Place) -> Facts:
    """A cell that wants too much ends as ``oom``; the one behind it is done."""
    code, said = _run(place, "memory", *SMALL, "algorithm=sgd", BOTH, "workers=1")
    found = set(_cells(place, "memory")["status"])
    if code != 1 or found != {"done", "oom"}:
        raise Broken(f"exit code {code}, {', '.join(sorted(found))}: {said[-300:]}")
    return {"cells": sorted(found)}


def two_kinds(place: Place) -> Facts:
    """An ordinary cell, then a deterministic one in the same worker, which is cuBLAS's second call."""
    kinds = "workload.deterministic=false,true"
    cells = _done(place, "kinds", *SMALL, "algorithm=adamw", kinds, "workers=1")
    if (count := _workers(place, "kinds")) != 1:
        raise Broken(f"{count} workers trained them, not one")
    return {"cells": len(cells)}


def _done(place: Place, name: str, *overrides: str) -> pd.DataFrame:
    code, said = _run(place, name, *overrides)
    cells = _cells(place, name)
    if code != 0 or set(cells["status"]) != {"done"}:
        raise Broken(f"exit code {code}, {', '.join(cells['status'])}: {said[-300:]}")
    return cells


def _run(place: Place, name: str, *overrides: str) -> tuple[int, str]:
    line = _line(place, name, *overrides)
    done = subprocess.run(line, env=_environment(place), capture_output=True, encoding="utf-8", timeout=LIMIT)
    return done.returncode, done.stderr.strip()


def _line(place: Place, name: str, *overrides: str) -> list[str]:
    where = (f"results_dir={place.folder}", f"name={name}", f"device={place.device}")
    return [sys.executable, "-m", "runner", "-m", *where, *overrides]


def _environment(place: Place) -> dict[str, str]:
    """Ours, with settings of its own: that a class of these checks is allowed is not remembered."""
    return {**os.environ, "XDG_CONFIG_HOME": str(place.folder / "settings")}


def _cells(place: Place, name: str) -> pd.DataFrame:
    return load(place.folder / name)[0]


def _workers(place: Place, name: str) -> int:
    """Processes that have trained the cells of an experiment."""
    folders = map(CellFolder, cell_paths(place.folder / name))
    return len({folder.status().get("pid") for folder in folders})


def _wait_for_rows(experiment: Path, process: subprocess.Popen[Any]) -> None:
    until = time.monotonic() + LIMIT
    while time.monotonic() < until and process.poll() is None:
        if experiment.is_dir() and any(CellFolder(path).evals() for path in cell_paths(experiment)):
            return
        time.sleep(0.1)
    raise Broken("the grid made no evaluation to interrupt it at")

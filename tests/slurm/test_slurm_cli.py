"""``hydra/launcher=slurm`` from a user's point of view."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from runner.cells import slurm_queue
from runner.cells.cell import folder_state
from runner.cells.launches import launches
from runner.contract.records import CellFolder
from tests.conftest import ROOT
from tests.slurm.cluster import LONG, SHORT, untimed

SMALL = ["hydra.launcher.mem_gb=0.5", "hydra.launcher.time=10", "hydra.launcher.exclude=n4"]


def launch(
    root: Path, *more: str, launcher: str = "slurm", samples: int = SHORT
) -> subprocess.CompletedProcess[str]:
    line = [
        sys.executable,
        "-m",
        "runner",
        "-m",
        "study=0,1,2",
        "log=none",
        "name=exp",
        f"results_dir={root}",
    ]
    line += [f"workload.budget_samples={samples}", f"hydra/launcher={launcher}", *more]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=240)


def results(root: Path) -> dict[str, Any]:
    """Cell -> what must not depend on where it ran."""
    folders = [CellFolder(path) for path in sorted((root / "exp" / "cells").iterdir())]
    return {
        f.path.name: (folder_state(f), untimed(f.status()["summary"]), [untimed(row) for row in f.evals()])
        for f in folders
    }


def test_a_grid_gives_the_same_tables_by_every_launcher(tmp_path: Path) -> None:
    ran = launch(tmp_path / "slurm", *SMALL, "wait=true", "then=score", "hydra.launcher.poll=0.5")
    assert ran.returncode == 0, ran.stderr
    assert "3 cells: 3 done" in ran.stderr
    for launcher in ("local", "inline"):
        assert launch(tmp_path / launcher, launcher=launcher).returncode == 0
        assert results(tmp_path / launcher) == results(tmp_path / "slurm")
    assert len(results(tmp_path / "slurm")) == 3
    assert (tmp_path / "slurm" / "exp" / "cells.csv").exists()
    again = launch(tmp_path / "slurm", *SMALL)
    assert again.returncode == 0 and "3 done" in again.stderr
    assert len(launches(tmp_path / "slurm" / "exp")) == 1


def test_submitting_returns_and_queued_cells_are_not_queued_twice(tmp_path: Path) -> None:
    first = launch(tmp_path, *SMALL, "cells_per_task=1", samples=LONG)
    assert first.returncode == 0 and "3 cells in 3 tasks" in first.stderr, first.stderr
    experiment = tmp_path / "exp"
    try:
        assert len(slurm_queue.alive(launches(experiment))) == 3
        second = launch(tmp_path, *SMALL, samples=LONG)
        assert second.returncode == 0 and "3 of 3 cells are already queued" in second.stderr
        assert len(slurm_queue.ask(launches(experiment)).states) == 3
    finally:
        ids = [job["id"] for each in launches(experiment) for job in slurm_queue.jobs(each)]
        assert slurm_queue.cancel(ids) is None
    end = time.monotonic() + 60
    while slurm_queue.alive(launches(experiment)):
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("hydra.launcher.time=0", "hydra.launcher.time: got 0, expected a number above 0"),
        ("hydra.launcher.partition=nowhere", "sbatch refused the job: invalid partition specified: nowhere"),
        ("+hydra.launcher.sbatch.signal=TERM", "the runner sets this itself"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, given: str, message: str) -> None:
    ran = launch(tmp_path, *[o for o in SMALL if o.partition("=")[0] != given.partition("=")[0]], given)
    assert ran.returncode == 2 and ran.stderr.count("\n") == 1 and message in ran.stderr, ran.stderr

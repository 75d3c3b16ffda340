"""How commands end: Ctrl-C at any time, a closed pipe, a full disk, streams that were closed at the start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from runner.cells.cell import Cell
from tests.conftest import ROOT
from tests.doubles.interrupt import INTERRUPT

FULL = Path("/dev/full")
SHORT = ("workload=breast_cancer", "workload.budget_samples=2000", "workload.target=null", "log=none")
READERS = [["runner.methods"], ["runner.status", "EXPERIMENT"], ["runner", "--cfg", "job"],
           ["runner.compare", "results/leaderboards/embedded-v1", "adamw", "lion"]]  # fmt: skip


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment of one cell, which waits."""
    folder = tmp_path_factory.mktemp("results")
    Cell.from_overrides([*SHORT, f"results_dir={folder}"]).submit()
    return folder / "default"


def reader(line: Sequence[str], experiment: Path) -> list[str]:
    return [str(experiment) if word == "EXPERIMENT" else word for word in line]


def shell(line: Sequence[str], redirected: str) -> subprocess.CompletedProcess[str]:
    """``python -m <line>`` with what a shell would write behind it."""
    words = " ".join([sys.executable, "-m", *line, redirected])
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", words], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("line", READERS, ids=" ".join)
def test_nobody_reads_on(line: list[str], experiment: Path) -> None:
    done = shell(reader(line, experiment), "| true")
    assert (done.returncode, done.stderr) == (0, "")


def test_output_that_is_closed_at_the_start() -> None:
    done = shell(["runner.methods"], ">&-")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
@pytest.mark.parametrize("line", READERS[:3], ids=" ".join)
def test_output_to_a_full_disk_is_one_line(line: list[str], experiment: Path) -> None:
    done = shell(reader(line, experiment), f"> {FULL}")
    assert (done.returncode, done.stderr) == (2, "error: standard output: No space left on device\n")


@pytest.mark.parametrize("redirected", ["2>&-", "2>&1 | true", "2> /dev/full"])
def test_messages_that_nobody_gets_end_no_training(redirected: str, tmp_path: Path) -> None:
    if "full" in redirected and not FULL.exists():
        pytest.skip("no /dev/full here")
    # A worker is handed what this process was started with; the rest concerns the launcher alone.
    launcher = "local" if redirected == "2>&-" else "inline"
    done = shell(["runner", *SHORT, f"hydra/launcher={launcher}", f"results_dir={tmp_path}"], redirected)
    assert done.returncode == 0
    (status,) = (tmp_path / "default" / "cells").glob("*/status.json")
    assert json.loads(status.read_text(encoding="utf-8"))["status"] == "done"


@pytest.mark.parametrize("module", ["runner.base.errors", "pandas", "numpy"])
def test_ctrl_c_while_modules_are_imported(module: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(INTERRUPT.format(module=module), encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    line = [sys.executable, "-m", "runner.score", "results/leaderboards/embedded-v1"]
    done = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")

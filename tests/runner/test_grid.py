"""A grid through the command line: launchers, mistakes, doubles, what follows."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.cells.launches import launches
from tests.conftest import ROOT
from tests.runner.test_faults import table

Command = Callable[..., "subprocess.CompletedProcess[str]"]
SMALL = ("workload.target=null", "workload.budget_samples=1280", "log=none")
GRID = ("algorithm=adamw,lion", "workload=breast_cancer,digits")


@pytest.mark.slow
def test_inline_and_local_give_the_same_tables(command: Command, tmp_path: Path) -> None:
    for launcher in ("inline", "local"):
        done = command("-m", *GRID, *SMALL, f"hydra/launcher={launcher}", f"name={launcher}")
        assert done.returncode == 0 and "4 cells: 4 done" in done.stderr, done.stderr
        (launch,) = launches(tmp_path / launcher)
        assert launch.record["launcher"] == launcher and launch.record["ended"] >= launch.record["submitted"]
        assert "algorithm=adamw,lion" in launch.record["command"] and not launch.alive()
    for inline, local in zip(table(tmp_path / "inline"), table(tmp_path / "local"), strict=True):
        assert len(inline) >= 4
        assert inline.equals(local)


def test_the_same_cell_twice_in_a_grid_is_one_cell(command: Command, tmp_path: Path) -> None:
    done = command("-m", "algorithm=adamw", "algorithm.optimizer.lr=3e-3,0.003", "workload=digits", *SMALL)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "default" / "cells").iterdir())) == 1


def test_a_mistake_late_in_a_long_sweep_shows_at_once(command: Command, tmp_path: Path) -> None:
    values = ",".join([*(f"{k}e-4" for k in range(1, 40)), "high"])
    done = command("-m", "algorithm=adamw", f"algorithm.optimizer.lr={values}", "study=0,1,2", *SMALL)
    assert done.returncode == 2
    assert done.stderr == "error: algorithm.optimizer.lr: got 'high', expected a number\n"
    assert list(tmp_path.glob("default/cells/*")) == []


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("workers=0", "workers"),
        ("per_gpu=x", "per_gpu"),
        ("then=publish", "then"),
        ("hydra/launcher=loacl", "local, slurm or inline"),
        ("hydra.launcher.worker=2", "hydra.launcher.workers"),
    ],
)
def test_bad_options_are_one_line(command: Command, argument: str, message: str) -> None:
    done = command("-m", "algorithm=adamw,lion", *SMALL, argument)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and message in done.stderr and done.stderr.count("\n") == 1


def test_the_score_follows(command: Command, tmp_path: Path) -> None:
    done = command("-m", "algorithm=adamw,lion", "workload=digits", "workload.target=0.3",
                   "workload.budget_samples=1280", "log=none", "then=score")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "adamw" in done.stdout and "lion" in done.stdout
    assert (tmp_path / "default" / "leaderboard.csv").exists()


def test_local_runs_of_wandb_come_with_the_line_that_uploads_them(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    done = command("-m", "algorithm=adamw,lion", "workload=digits", *SMALL[:2])
    assert done.returncode == 0, done.stderr
    assert f"2 local W&B runs; upload: wandb sync {tmp_path}/default/wandb/offline-run-*" in done.stderr


@pytest.mark.slow
def test_a_terminal_of_80_columns_shows_the_grid_and_its_cells(tmp_path: Path) -> None:
    args = ["-m", "algorithm=adamw,lion", "workload=digits", "workload.target=null", "log=none",
            "workload.budget_samples=16000", f"results_dir={tmp_path}"]  # fmt: skip
    master, slave = pty.openpty()
    env = {**os.environ, "COLUMNS": "80", "TERM": "xterm"}
    process = subprocess.Popen([sys.executable, "-m", "runner", *args], cwd=ROOT, env=env, stderr=slave)
    os.close(slave)
    shown = b""
    try:
        while data := os.read(master, 4096):
            shown += data
    except OSError:  # the terminal is gone with its last writer
        pass
    assert process.wait(60) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert re.search(r"grid .* 0/2, [12] running", text) and "digits[budget_samples" in text
    frames = [line for line in re.split(r"[\r\n]+", text) if line.startswith(("grid", "digits["))]
    assert frames and max(map(len, frames)) <= 80

"""The command line as a user meets it: real processes, real signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.conftest import ROOT

Command = Callable[..., "subprocess.CompletedProcess[str]"]
SHORT = ("workload=digits", "workload.budget_samples=1280", "workload.target=0.5")


def test_a_run_then_the_same_command_again(command: Command, tmp_path: Path) -> None:
    first = command("algorithm=adamw", *SHORT)
    assert first.returncode == 0, first.stderr
    assert "digits[" in first.stderr and "hit accuracy ≥ 0.5" in first.stderr
    (folder,) = (tmp_path / "default" / "cells").iterdir()
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = command("algorithm=adamw", *SHORT)
    assert again.returncode == 0 and "(before)" in again.stderr
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_grid_runs_every_cell_and_one_failure_stays_one_failure(command: Command, tmp_path: Path) -> None:
    good, bad = "torch.optim.SGD", "tests.doubles.faults.HardExits"
    sweep = f"algorithm.optimizer._target_={bad},{good}"
    done = command("-m", "algorithm=sgd", "study=0,1", sweep, *SHORT)
    assert done.returncode == 1
    assert "4 cells: 2 done, 2 failed" in done.stderr
    assert done.stderr.count("its process ended with exit code 3") == 2
    assert "Traceback" not in done.stderr
    statuses = [
        json.loads(p.read_text())["status"] for p in (tmp_path / "default" / "cells").glob("*/status.json")
    ]
    assert sorted(statuses) == ["done", "done", "failed", "failed"]


def test_a_users_mistake_is_one_line_and_exit_code_2(command: Command, tmp_path: Path) -> None:
    for arguments in (["algorithm=adamv"], ["-m", "algorithm=adamw,adamv"], ["workload.batch_size=0"],
                      ["algorithm.optimizer.lrr=1"]):  # fmt: skip
        done = command(*arguments)
        assert done.returncode == 2, arguments
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
        assert not done.stdout
    assert not (tmp_path / "default" / "cells").exists()


def test_a_results_folder_that_cannot_be_written_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    line = [sys.executable, "-m", "runner", f"results_dir={tmp_path / 'file'}"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "cannot be written" in done.stderr


def test_an_incompatible_pair_says_why(command: Command) -> None:
    done = command("algorithm=normalized_lr_gd", *SHORT)
    assert done.returncode == 2
    assert "cannot train workload digits" in done.stderr and "Traceback" not in done.stderr


def test_help_lists_everything_with_a_line_each_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, runner.__main__ as m\n"
        "try: m.main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = 'torch', 'wandb', 'torchvision', 'sklearn', 'pandas', 'matplotlib', 'scipy'\n"
        "print('HEAVY', [h for h in heavy if h in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "HEAVY []" in done.stdout, done.stdout + done.stderr
    lines = {
        line.split()[0]: line for line in done.stdout.splitlines() if line.startswith("  ") and line.split()
    }
    for name in ("digits", "breast_cancer", "adamw", "lion", "sam", "mechanic"):
        assert len(lines[name].split()) > 3, name
    assert max(map(len, done.stdout.splitlines())) <= 110


def test_hydras_own_flags_work(command: Command) -> None:
    shown = command("--cfg", "job", "algorithm=lion")
    assert shown.returncode == 0 and "algorithms.optimizers.lion.Lion" in shown.stdout
    assert command("--info", "searchpath").returncode == 0
    assert command("--no-such-flag").returncode == 2


def test_ctrl_c_keeps_the_checkpoint_and_the_next_start_goes_on(tmp_path: Path) -> None:
    long = ["stop_at_target=false", "workload.batch_size=256", "workload.budget_samples=200000"]
    line = [sys.executable, "-m", "runner", f"results_dir={tmp_path}", "workload=digits", *long]
    process = subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not any(p.stat().st_size for p in tmp_path.glob("default/cells/*/evals.jsonl")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130 and "resumes from the checkpoint" in errors
    (folder,) = (tmp_path / "default" / "cells").iterdir()
    assert json.loads((folder / "status.json").read_text())["status"] == "preempted"
    assert (folder / "checkpoint.pt").exists()
    again = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0 and "starts from its checkpoint" in again.stderr
    assert json.loads((folder / "manifest.json").read_text())["resumes"] == 1

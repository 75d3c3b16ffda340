"""``python -m runner.status``: what people see, from a folder that it only reads."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.cells.launches import Launch
from runner.cells.lock import Lock
from runner.cells.survey import Seen
from runner.status import main, progress
from tests.conftest import ROOT
from tests.experiments import write_cell

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def experiment(tmp_path: Path) -> Iterator[Path]:
    """Two done, one diverged, one of each failure, one killed, one pending, one in training."""
    folder = tmp_path / "results" / "mixed"
    for trial, status in enumerate(("done", "done", "diverged", "pending", "running")):
        write_cell(folder, trial=trial, status=status)
    for status in ("failed", "oom", "timeout"):
        write_cell(folder, label=status, status=status, error="ValueError: what went wrong")
    Launch.create(folder, "local", {}).update(ended=time.time(), submitted=time.time() - 7200)
    with training(write_cell(folder, label="lion", status="running").path):
        yield folder


def training(cell: Path) -> Lock:
    """A lock as a worker holds it, half-way."""
    lock = Lock.acquire(cell)
    assert lock is not None
    reached = {"steps": 500, "drawn": 5000, "budget": 10000, "drawn_at_start": 1000}
    lock.progress = lambda: {**reached, "since": time.time() - 100}
    lock._beat()
    return lock


def contents(folder: Path) -> dict[Path, Any]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else sorted(path.iterdir()))
            for path in [folder, *folder.rglob("*")] if not path.name.startswith("lock.")}  # fmt: skip


def test_everything_is_there_in_80_columns_and_nothing_is_touched(command: Command, experiment: Path) -> None:
    before = contents(experiment)
    done = command(str(experiment), module="runner.status")
    assert done.returncode == 0 and not done.stderr
    assert contents(experiment) == before
    text = done.stdout
    assert "9 cells: 2 done, 1 diverged, 1 running, 1 pending, 1 killed, 1 failed, 1 oom, 1 timeout" in text
    assert "local on" in text and "2 h ago: ended" in text
    (row,) = [line for line in text.splitlines() if "digits · lion" in line]
    assert row.split()[-7:-1] == ["500", "50%", "4", "≤", "2", "min"] and len(row) <= 80
    for status in ("failed", "oom", "timeout"):
        assert f"digits · {status} · study 0 · trial 0: {status}: ValueError: what went wrong" in text
        assert str(experiment / "cells" / f"digits.{status}.s0.t0.{status}00digits") in text
    assert "unfinished, with no worker or job assigned: 1 pending, 1 killed" in text
    assert f"python -m runner.retry {experiment}" in text


def test_every_cell_and_why(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = {"source": "s", "sources": {"runner.train.loop": "before"}}
    write_cell(experiment, label="stale", **old)
    assert main([str(experiment), "--once", "--cells"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "digits · adamw · study 0 · trial 0: done: hit accuracy ≥ 0.97 at 1,000 samples, 1.0 s" in lines
    assert "digits · adamw · study 0 · trial 3: pending" in lines
    assert "digits · adamw · study 0 · trial 4: killed: its process on node1 no longer exists" in lines
    assert "digits · stale · study 0 · trial 0: stale: changed since: runner.train.loop" in lines
    assert sum(" · study 0" in line for line in lines) == 9 + 1  # one of them trains: its row is cut in two


def test_experiments_in_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b/c", "b/d/e"):
        write_cell(tmp_path / name)
    assert main([str(tmp_path)]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if " 1 done" in line]
    assert listed == ["a", "b/c", "b/d/e"]


def test_everything_for_a_program(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(experiment), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["counts"]["oom"] == 1 and len(told["cells"]) == 9
    (running,) = [cell for cell in told["cells"] if cell["state"] == "running"]
    assert running["progress"]["share"] == 0.5 and running["coming"]
    assert running["progress"]["steps_per_second"] == pytest.approx(4, rel=0.1)
    assert running["progress"]["seconds_left"] == pytest.approx(125, rel=0.1)
    assert [launch["state"] for launch in told["launches"]] == ["ended"]


def test_one_cell_alone(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cell,) = experiment.glob("cells/*.oom.*")
    assert main([str(cell), "--once"]) == 0
    assert "1 cell: 1 oom" in capsys.readouterr().out


def test_runs_that_wait_for_their_upload_are_told_once_all_has_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cell(tmp_path)
    (tmp_path / "wandb" / "offline-run-1-a").mkdir(parents=True)
    assert main([str(tmp_path)]) == 0
    assert f"1 local W&B run; upload: wandb sync {tmp_path}/wandb/offline-run-*" in capsys.readouterr().out


def test_many_failures_are_cut_short_and_listed_when_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for trial in range(25):
        write_cell(tmp_path, trial=trial, status="failed", error="too bad")
    assert main([str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert text.count("too bad") == 20 and "and 5 more (--cells lists all)" in text
    assert main([str(tmp_path), "--cells"]) == 0
    assert capsys.readouterr().out.count("too bad") == 25


def test_results_alone_lists_the_experiments(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cell(experiment.parent / "other")
    assert main([str(experiment.parent)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:4] == ["other", "1", "1", "done"] for line in lines)
    assert any(line.split()[:2] == ["mixed", "9"] for line in lines)


def test_bad_input_is_one_line(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(experiment.parent / "mixde")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "did you mean mixed?" in error


def test_neither_torch_nor_hydra_is_imported(experiment: Path) -> None:
    code = (
        "import sys; from runner.status import main\n"
        f"assert main([{str(experiment)!r}]) == 0\n"
        "print('HEAVY', [h for h in ('torch', 'hydra', 'pandas', 'wandb', 'submitit') if h in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "HEAVY []" in done.stdout, done.stdout + done.stderr


def test_a_cell_that_has_not_begun_to_train_has_no_rate(tmp_path: Path) -> None:
    assert progress(Seen("c", "running", b"", {"host": "n"}, tmp_path)) is None
    at_start = {"steps": 0, "drawn": 0, "budget": 10, "since": 5.0, "beat": 5.0, "drawn_at_start": 0}
    told = progress(Seen("c", "running", b"", at_start, tmp_path))
    assert told == {"steps": 0, "share": 0.0, "steps_per_second": None, "seconds_left": None}


# -- on a terminal -----------------------------------------------------------------------------------


class Terminal:
    """``python -m runner.status`` on a terminal of 80 columns."""

    def __init__(self, *args: str) -> None:
        self._own, theirs = pty.openpty()
        env = {**os.environ, "COLUMNS": "80", "LINES": "40", "TERM": "xterm"}
        line = [sys.executable, "-m", "runner.status", *args]
        self.process = subprocess.Popen(line, cwd=ROOT, stdout=theirs, stderr=theirs, stdin=theirs, env=env)
        os.close(theirs)
        self.text = ""

    def until(self, text: str, times: int = 1) -> None:
        deadline = time.monotonic() + 60
        while self.text.count(text) < times:
            assert time.monotonic() < deadline and self._read(), self.text

    def end(self) -> int:
        while self._read():
            pass
        os.close(self._own)
        return self.process.wait(60)

    def _read(self) -> bool:
        if not select.select([self._own], [], [], 60)[0]:
            return False
        try:
            self.text += os.read(self._own, 1 << 16).decode()
        except OSError:  # the other side has closed it
            return False
        return True


def test_on_a_terminal_it_follows_until_nothing_runs(tmp_path: Path) -> None:
    cell = write_cell(tmp_path, label="lion", status="running")
    with training(cell.path):
        terminal = Terminal(str(tmp_path), "--watch", "0.2")
        terminal.until("50%", times=2)
        cell.set_status("done", summary={})
    assert terminal.end() == 0
    assert "1 done" in terminal.text.replace("\x1b[32m", "").rpartition("1 cell")[2]


def test_ctrl_c_leaves(tmp_path: Path) -> None:
    with training(write_cell(tmp_path, status="running").path):
        terminal = Terminal(str(tmp_path))
        terminal.until("50%")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 0 and "Traceback" not in terminal.text


def test_a_cell_that_was_stopped_says_by_what_and_how_it_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cell(tmp_path, status="stopped", reason="callback")
    assert main([str(tmp_path), "--once", "--cells"]) == 0
    said = capsys.readouterr().out
    assert "stopped: stopped on purpose (callback); resume with runner.retry --stopped" in said

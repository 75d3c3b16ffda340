"""``python -m runner.cancel``: what is told to stop, and that nothing is lost by it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner.cancel import main
from runner.cells.launches import Launch
from runner.cells.lock import Lock
from runner.cells.survey import survey
from runner.contract.records import CellFolder
from tests.conftest import ROOT
from tests.experiments import write_cell

Command = Callable[..., "subprocess.CompletedProcess[str]"]
LONG = ("log=none", "stop_at_target=false", "workload.batch_size=256", "workload.budget_samples=4000000")


# -- this machine's launchers ------------------------------------------------------------------------


def test_a_launcher_is_interrupted_and_its_cells_save_themselves(command: Command, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "runner", "hydra/launcher=local", f"results_dir={tmp_path}", *LONG]
    process = subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not any(path.stat().st_size for path in tmp_path.glob("default/cells/*/evals.jsonl")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    done = command(str(tmp_path / "default"), module="runner.cancel")
    assert done.returncode == 0, done.stderr
    assert f"process {process.pid} has ended" in done.stdout and "runner.retry" in done.stdout
    process.communicate(timeout=60)
    assert process.returncode == 130
    (cell,) = survey(tmp_path / "default")
    assert cell.state == "preempted" and cell.left_behind and (cell.path / "checkpoint.pt").exists()
    again = command(str(tmp_path / "default"), module="runner.cancel")
    assert again.returncode == 0 and "nothing to cancel" in again.stdout


def test_a_launcher_elsewhere_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launch = Launch.create(tmp_path, "local", {})
    host = launch.record["host"]
    with Lock.acquire(write_cell(tmp_path, status="running").path) or pytest.fail():
        launch.update(boot="other")
        assert main([str(tmp_path)]) == 1
        assert (
            f"local launcher on {host}, process {os.getpid()}, cannot be reached" in capsys.readouterr().out
        )
        launch.update(host="far")
        assert main([str(tmp_path)]) == 1
        out = capsys.readouterr().out
    assert "may still be running" in out and f"process {os.getpid()} on {host} was not launched" in out


def test_cells_of_a_local_launcher_go_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Launch.create(tmp_path, "local", {})  # this very process: it would not survive being cancelled
    with Lock.acquire(write_cell(tmp_path, status="running").path) or pytest.fail():
        assert main([str(tmp_path), "--cells", "*.adamw.*"]) == 1
    assert "omit --cells" in capsys.readouterr().out


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cell(tmp_path / "exp")
    for args in (["exq"], ["exp", "--cells", "nothing"]):
        assert main([str(tmp_path / args[0]), *args[1:]]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1


# -- SLURM -------------------------------------------------------------------------------------------


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An experiment with two arrays and a follow-up job in the queue of a cluster of shell scripts."""
    experiment = tmp_path / "exp"
    names = [write_cell(experiment, trial=trial, status="pending").path.name for trial in range(4)]
    launch = Launch.create(experiment, "slurm", {})
    arrays = [{"id": "7", "tasks": {"0": names[:2], "1": names[2:3]}}, {"id": "8", "tasks": {"0": names[3:]}}]
    launch.update(arrays=arrays, then={"id": "9"}, ended=time.time())
    script = f"/x/jobs/{launch.path.name}/slurm/submission.sh"
    words = {"7_0": "RUNNING", "7_1": "PENDING", "8_0": "PENDING", "9": "PENDING"}
    lines = "".join(f"echo '{task}|{word}|{script}'\n" for task, word in words.items())
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in (("squeue", lines), ("scancel", f'echo "$@" >> {tmp_path}/cancelled')):
        (commands / name).write_text(f"#!/bin/sh\n{text}\n")
        (commands / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(commands), prepend=":")
    yield experiment


def cancelled(experiment: Path) -> list[str]:
    """The arguments of every scancel."""
    log = experiment.parent / "cancelled"
    return log.read_text().splitlines() if log.exists() else []


def test_all_arrays_and_what_follows_them(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(cluster), "--yes"]) == 0
    assert cancelled(cluster) == ["--quiet 7 8 9"]
    out = capsys.readouterr().out
    assert "SLURM: 7, 8, 9" in out and f"python -m runner.retry {cluster}" in out


def test_the_tasks_of_named_cells(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(cluster), "--yes", "--cells", "*.t0.*", "*.t3.*"]) == 0
    assert cancelled(cluster) == ["--quiet 7_0 8_0"]
    assert "1 other cell in the same tasks" in capsys.readouterr().out


def test_jobs_of_another_cluster_with_the_same_ids_are_none_of_ours(cluster: Path) -> None:
    squeue = cluster.parent / "bin" / "squeue"
    squeue.write_text(squeue.read_text().replace("/jobs/", "/jobs/of-another-"))
    assert main([str(cluster), "--yes"]) == 0
    assert cancelled(cluster) == []


def test_a_slurm_that_does_not_answer_is_said(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cluster.parent / "bin" / "squeue").write_text("#!/bin/sh\necho unable to contact >&2; exit 1\n")
    assert main([str(cluster), "--yes"]) == 1
    assert "SLURM does not answer: unable to contact" in capsys.readouterr().out
    assert cancelled(cluster) == []


def test_a_scancel_that_fails_is_said(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cluster.parent / "bin" / "scancel").write_text("#!/bin/sh\necho access denied >&2; exit 1\n")
    assert main([str(cluster), "--yes"]) == 1
    assert "scancel: access denied" in capsys.readouterr().out


@pytest.mark.parametrize(("answer", "commands"), [("n", 0), ("", 0), ("y", 1)])
def test_on_a_terminal_it_asks(
    cluster: Path, monkeypatch: pytest.MonkeyPatch, answer: str, commands: int
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _question: answer)
    assert main([str(cluster)]) == 1 - commands
    assert len(cancelled(cluster)) == commands


def test_cells_without_a_job_need_none_cancelled(cluster: Path) -> None:
    folder = CellFolder(next(cluster.glob("cells/*.t0.*")))
    folder.set_status("failed", error="x")
    assert main([str(cluster), "--yes", "--cells", "*.t1.*"]) == 0
    assert cancelled(cluster) == ["--quiet 7_0"]

"""What SLURM's answers mean, and what a task does about signals and cells; no cluster is needed."""

from __future__ import annotations

import json
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.cells import slurm_queue
from runner.cells.launches import Launch
from runner.cells.lock import Lock
from runner.contract.records import CellFolder
from runner.launch.slurm import task as slurm_task
from runner.launch.slurm.signals import Requeues, Signals
from runner.launch.slurm.submit import max_tasks
from runner.launch.slurm.task import Task

# -- the queue ---------------------------------------------------------------------------------------


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """A command of SLURM's that runs a line of shell instead."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def make(name: str, script: str) -> None:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IEXEC)

    return make


def launched(tmp_path: Path, *ids: str) -> Launch:
    launch = Launch.create(tmp_path / "exp", "slurm", {})
    launch.update(arrays=[{"id": i, "tasks": {"0": [f"a{i}", f"b{i}"], "1": [f"c{i}"]}} for i in ids])
    return launch


def test_cells_in_the_queue_are_alive(tmp_path: Path, fake: Callable[[str, str], None]) -> None:
    launch = launched(tmp_path, "7", "8")
    script = f"{launch.path}/slurm/.submission_file_1.sh"
    fake("squeue", f"echo '7_1|RUNNING|{script}'; echo '8|PENDING|{script}'; echo '9_0|RUNNING|{script}'")
    assert slurm_queue.ask([launch]).states == {"7_1": "RUNNING", "8_0": "PENDING"}
    assert slurm_queue.alive([launch]) == {"c7", "a8", "b8"}
    assert slurm_queue.cell_states([launch])["c7"] == "RUNNING"


def test_ids_of_another_cluster_are_not_ours(tmp_path: Path, fake: Callable[[str, str], None]) -> None:
    launch = launched(tmp_path, "7")
    fake(
        "squeue", "echo '7_0|RUNNING|/elsewhere/jobs/20250101T000000-abcdef/slurm/x.sh'; echo '7_1|RUNNING|'"
    )
    assert slurm_queue.alive([launch]) == set()


def test_jobs_that_end_are_gone(tmp_path: Path, fake: Callable[[str, str], None]) -> None:
    launch = launched(tmp_path, "7")
    fake("squeue", f"echo '7_0|COMPLETED|{launch.path}/slurm/x'; echo '7_1|COMPLETING|{launch.path}/slurm/x'")
    assert slurm_queue.alive([launch]) == {"c7"}


def test_no_answer_is_a_reason(
    tmp_path: Path, fake: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = launched(tmp_path, "7")
    fake("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    assert "Unable to contact" in (slurm_queue.ask([launch]).reason or "")
    assert slurm_queue.alive([launch]) == set()
    fake("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert slurm_queue.ask([launch]) == slurm_queue.Queue()
    monkeypatch.setattr(slurm_queue, "SECONDS", 0.2)
    fake("squeue", "exec sleep 20")
    assert "did not answer" in (slurm_queue.ask([launch]).reason or "")
    monkeypatch.setenv("PATH", "/nonexistent")
    assert slurm_queue.ask([launch]).reason == "squeue: no such command on this machine"
    assert slurm_queue.ask([]) == slurm_queue.Queue()


def test_array_size_is_the_clusters(fake: Callable[[str, str], None]) -> None:
    fake("scontrol", "echo 'MaxArraySize            = 77'; echo 'MaxArrayX = 3'")
    assert max_tasks() == 77
    fake("scontrol", "exit 1")
    assert max_tasks() == 1000


# -- a task ------------------------------------------------------------------------------------------


def test_what_signals_ask_for() -> None:
    usr2, term = signal.SIGUSR2, signal.SIGTERM

    def requeue(*received: int, ran: float = 10, limit: float = 600) -> bool:
        return Signals(limit, list(received), time.monotonic() - ran).requeue

    assert not requeue() and requeue(usr2) and not requeue(term)
    assert not requeue(usr2, term)  # cancelled while saving
    assert requeue(term, usr2)  # some clusters announce a preemption so
    assert requeue(usr2, term, ran=590)  # the limit came while saving


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    """A task of four cells in states of their own."""
    for variable, value in {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7",
                            "SLURM_ARRAY_TASK_ID": "1"}.items():  # fmt: skip
        monkeypatch.setenv(variable, value)
    states = ("done", "failed", "preempted", "pending")
    for state in states:
        path = tmp_path / "exp" / "cells" / state
        path.mkdir(parents=True)
        CellFolder(path).set_status(state, steps=5)
    (tmp_path / "job").mkdir()
    return Task(str(tmp_path / "exp"), list(states), str(tmp_path / "job"), minutes=10, max_requeues=2)


def test_a_task_runs_what_is_neither_finished_nor_failed(task: Task) -> None:
    assert [path.name for path in task.cells()] == ["preempted", "pending"]


def leave(task: Task, *received: int) -> int:
    return task._leave(Signals(600, list(received)))


def test_a_task_requeues_itself_so_many_times(
    task: Task, tmp_path: Path, fake: Callable[[str, str], None]
) -> None:
    fake("scontrol", f'echo "$@" >> {tmp_path}/asked')
    elsewhere = tmp_path / "exp" / "cells" / "elsewhere"
    elsewhere.mkdir()
    CellFolder(elsewhere).set_status("running")
    task.names.append("elsewhere")
    lock = Lock.acquire(elsewhere)
    assert lock is not None
    assert [leave(task, signal.SIGUSR2) for _ in range(3)] == [0, 0, 1]
    assert (tmp_path / "asked").read_text() == "requeue 7_1\n" * 2
    assert Requeues(tmp_path / "job", "7_1").read() == 2
    assert json.loads((tmp_path / "job" / "requeues.7_1.json").read_text())["count"] == 2
    cells = {name: CellFolder(tmp_path / "exp" / "cells" / name).status() for name in task.names}
    assert cells["preempted"]["status"] == "timeout" and cells["preempted"]["steps"] == 5
    assert "requeued itself 2 times" in cells["preempted"]["error"]
    unchanged = {"done": "done", "failed": "failed", "pending": "pending", "elsewhere": "running"}
    assert {name: cells[name]["status"] for name in unchanged} == unchanged
    lock.release()


def test_a_cancelled_task_does_not_come_back(
    task: Task, tmp_path: Path, fake: Callable[[str, str], None]
) -> None:
    fake("scontrol", f'echo "$@" >> {tmp_path}/asked')
    assert leave(task, signal.SIGTERM) == 1 and leave(task, signal.SIGUSR2, signal.SIGTERM) == 1
    assert not (tmp_path / "asked").exists()
    fake("scontrol", "echo 'Invalid user' >&2; exit 1")
    assert leave(task, signal.SIGUSR2) == 1


@pytest.mark.parametrize(
    ("job", "seconds", "runs"),
    [
        (None, 0.1, 2),  # a launcher looks at the cell
        ("123_0", 0.9, 1),  # another launch trains it
        ("7_1", 0.9, 2),  # our own last run, whose node was lost
    ],
)
def test_a_cell_that_is_held_is_waited_for_if_that_makes_sense(
    task: Task, monkeypatch: pytest.MonkeyPatch, job: str | None, seconds: float, runs: int
) -> None:
    held = Path(task.experiment) / "cells" / "pending"
    lock = Lock.acquire(held, job)
    assert lock is not None
    free, ran = time.monotonic() + seconds, []

    def run(cells: list[Path], _signals: Signals) -> list[Path]:
        ran.append([path.name for path in cells])
        return [held] if len(ran) == 1 else []

    monkeypatch.setattr(slurm_task, "run", run)
    monkeypatch.setattr(slurm_task, "PATIENCE", 0.4)
    monkeypatch.setattr(slurm_task.time, "sleep", lambda _: time.monotonic() > free and lock.release())
    task._train(Signals(600))
    assert ran == [["preempted", "pending"], ["pending"]][:runs]
    lock.release()


def test_a_failed_cell_that_is_submitted_again_is_run_again(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`retry` finds its task in the queue, and leaves it there."""
    ran: list[list[str]] = []

    def run(cells: list[Path], _signals: Signals) -> list[Path]:
        ran.append([path.name for path in cells])
        for path in cells:
            CellFolder(path).set_status("failed" if path.name == "pending" else "done")
        if len(ran) == 1:
            CellFolder(cells[1]).set_status("pending")
        return []

    monkeypatch.setattr(slurm_task, "run", run)
    task._train(Signals(600))
    assert ran == [["preempted", "pending"], ["pending"]]


def test_a_cell_that_cannot_be_started_is_no_endless_loop(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []
    monkeypatch.setattr(slurm_task, "run", lambda cells, _: ran.append(len(cells)) or [])
    task._train(Signals(600))
    assert ran == [2]

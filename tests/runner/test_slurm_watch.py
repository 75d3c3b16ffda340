"""Watching cells that a cluster runs; the cluster is a command that says what the test wants."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from runner.cells.launches import Launch
from runner.cells.lock import Lock
from runner.contract.records import CellFolder
from runner.launch.scheduler import Job
from runner.launch.slurm.watch import watch
from runner.status import main as status


class Told:
    """A display that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, Any]] = []
        self.errors: list[str] = []

    def started(self, job: Job) -> None:
        self.events.append(("started", job.path.name, None))

    def event(self, job: Job, event: dict[str, Any]) -> None:
        self.events.append(("event", job.path.name, event["drawn"]))

    def ended(self, job: Job, status: dict[str, Any]) -> None:
        self.events.append(("ended", job.path.name, status["status"]))
        self.errors.append(status.get("error", ""))

    def notice(self, text: str) -> None:
        self.events.append(("notice", text, None))


class World:
    """Two cells in the tasks of an array, and what happens between two looks."""

    def __init__(self, root: Path) -> None:
        self.root, self.told, self.steps = root, Told(), []
        self.launch = Launch.create(root / "exp", "slurm", {})
        self.launch.update(arrays=[{"id": "7", "tasks": {"0": ["a"], "1": ["b"]}}])
        self.cells = {name: root / "exp" / "cells" / name for name in "ab"}
        for path in self.cells.values():
            path.mkdir(parents=True)
            CellFolder(path).set_status("pending")

    def queue(self, *lines: str) -> None:
        path = self.root / "squeue"
        text = "\n".join(f"{line}|{self.launch.path}/slurm/x.sh" for line in lines)
        path.write_text(f"#!/bin/sh\ncat <<'X'\n{text}\nX\n")
        path.chmod(path.stat().st_mode | stat.S_IEXEC)

    def status(self, name: str, status: str, **facts: Any) -> None:
        CellFolder(self.cells[name]).set_status(status, **facts)

    def run(self, *steps: Any) -> list[tuple[str, str, Any]]:
        left = iter(steps)
        watch([self.launch], [Job(p) for p in self.cells.values()], self.told, 0, lambda _: next(left)())
        return self.told.events


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return World(tmp_path)


def test_cells_are_followed_to_their_end(world: World) -> None:
    world.queue("7_0|RUNNING", "7_1|PENDING")
    lock = Lock.acquire(world.cells["a"])
    assert lock is not None

    def progress() -> None:
        lock.progress = lambda: {"steps": 1, "drawn": 30, "budget": 90}
        lock._beat()

    def first_ends() -> None:
        lock.release()
        world.status("a", "done")
        world.queue("7_1|PENDING")

    def second_ends() -> None:
        world.status("b", "failed", error="x")
        world.queue("7_1|COMPLETING")

    events = world.run(progress, first_ends, second_ends)
    assert events == [("started", "a", None), ("event", "a", 30), ("ended", "a", "done"),
                      ("ended", "b", "failed")]  # fmt: skip


def test_cells_without_a_job_are_given_up_and_shown_as_they_stand(world: World) -> None:
    """A killed one says that it runs; a second look makes sure that it is no lag of a shared disk."""
    world.queue()
    world.status("a", "running")
    looks: list[int] = []
    events = world.run(lambda: looks.append(len(world.told.events)))
    assert looks == [0] and events == [("ended", "a", "killed"), ("ended", "b", "pending")]


def test_a_requeued_task_is_waited_for(world: World) -> None:
    world.queue("7_0|COMPLETING", "7_1|RUNNING")
    world.status("a", "preempted")
    pending = lambda: world.queue("7_0|PENDING", "7_1|RUNNING")  # noqa: E731

    def end() -> None:
        world.status("a", "done")
        world.status("b", "done")
        world.queue("7_0|RUNNING")

    assert world.run(pending, pending, end) == [("ended", "a", "done"), ("ended", "b", "done")]


def test_no_answer_from_slurm_is_no_end(world: World) -> None:
    path = world.root / "squeue"
    path.write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2\nexit 1\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)

    def end() -> None:
        world.status("a", "done")
        world.status("b", "done")

    events = world.run(lambda: None, lambda: None, end)
    assert [e for e in events if e[0] == "ended"] == [("ended", "a", "done"), ("ended", "b", "done")]
    assert "Unable to contact" in events[0][1]


def test_what_follows_is_waited_for(world: World) -> None:
    world.launch.update(then={"id": "8"})
    for name in "ab":
        world.status(name, "done")
    world.queue("8_0|RUNNING")
    looks: list[int] = []

    def end() -> None:
        looks.append(1)
        world.queue()

    assert len(world.run(end)) == 2 and looks == [1]


def test_interrupted_the_jobs_go_on(world: World) -> None:
    world.queue("7_0|PENDING", "7_1|PENDING")

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.run(interrupt)
    assert "the jobs keep running" in world.told.events[-1][1]


def test_what_a_jobs_log_ends_with_is_quoted(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.queue()
    world.status("b", "done")
    for path in world.cells.values():
        (path / "config.yaml").write_text("x: 1\n")
    log = world.launch.path / "slurm" / "7_0_0_log.out"
    log.parent.mkdir()
    end = b"no such module: conda\nsrun: error: n1: task 0: Exited with exit code 1\n"
    log.write_bytes(b"\xff\n" * 10_000 + end)
    assert status([str(world.root / "exp"), "--once"]) == 0
    assert "last line of a job's log: “no such module: conda”" in capsys.readouterr().out
    world.run(lambda: None)
    assert "its job is gone; its log ends: “no such module: conda”" in world.told.errors

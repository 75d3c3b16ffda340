"""Locks: one holder, taken over only from the dead, and nothing written by who has lost."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from runner.cells import lock as module
from runner.cells.lock import Lock, LostLock, holder
from runner.contract.records import CellFolder
from runner.train import checkpoint

HOLD = """
import sys, time
from pathlib import Path
from runner.cells.lock import Lock, LostLock
from runner.contract.records import CellFolder
path = Path(sys.argv[1])
lock = Lock.acquire(path)
folder = CellFolder(path, lock)
print("held", flush=True)
for line in sys.stdin:
    try:
        folder.append_eval({"by": "holder"})
        print("wrote", flush=True)
    except LostLock:
        print("lost", flush=True)
"""


class Holder:
    """A process that holds the lock on ``path`` and appends a row when told to."""

    def __init__(self, path: Path, beat: float = 10) -> None:
        env = {**os.environ, "RUNNER_BEAT": str(beat)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], text=True, env=env, **pipes)
        assert self.hear() == "held"

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def append(self) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.hear()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


def until(condition: Any, seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    first = Lock.acquire(tmp_path)
    assert first is not None and Lock.acquire(tmp_path) is None
    record = holder(tmp_path)
    assert record is not None and record["pid"] == os.getpid() and record["job"] is None
    first.check()
    first.release()
    assert holder(tmp_path) is None and list(tmp_path.iterdir()) == []
    second = Lock.acquire(tmp_path, job="7_1")
    assert second is not None and holder(tmp_path)["job"] == "7_1"  # pyright: ignore[reportOptionalSubscript]
    second.release()
    second.release()


def test_of_many_that_try_at_once_one_gets_it(tmp_path: Path) -> None:
    for attempt in range(20):
        cell = tmp_path / str(attempt)
        cell.mkdir()
        got: list[Lock] = []
        start = threading.Barrier(8)

        def try_it(cell: Path = cell, got: list[Lock] = got, start: threading.Barrier = start) -> None:
            start.wait()
            if (lock := Lock.acquire(cell)) is not None:
                got.append(lock)

        threads = [threading.Thread(target=try_it) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 1
        got[0].release()


def test_a_killed_holder_is_replaced_at_once(tmp_path: Path) -> None:
    other = Holder(tmp_path)
    try:
        assert Lock.acquire(tmp_path) is None
        assert other.append() == "wrote"
        other.process.send_signal(signal.SIGKILL)
        other.process.wait()
        mine = Lock.acquire(tmp_path)
        assert mine is not None and mine.path.name == "lock.2"
        assert sorted(p.name for p in tmp_path.glob("lock.*")) == ["lock.2"]
        mine.release()
    finally:
        other.end()


def test_a_paused_holder_is_replaced_and_writes_nothing_when_it_wakes(tmp_path: Path) -> None:
    other = Holder(tmp_path, beat=0.1)
    try:
        other.process.send_signal(signal.SIGSTOP)
        mine = until(lambda: Lock.acquire(tmp_path))
        CellFolder(tmp_path, mine).append_eval({"by": "me"})
        other.process.send_signal(signal.SIGCONT)
        assert other.append() == "lost"
        time.sleep(0.5)  # a few of its heartbeats
        mine.check()
        assert holder(tmp_path)["pid"] == os.getpid()  # pyright: ignore[reportOptionalSubscript]
        mine.release()
        assert other.append() == "lost"  # nor after the lock has been given back
        again = Lock.acquire(tmp_path)  # nor when the file has its old name again
        assert again is not None and again.path.name == "lock.1" and other.append() == "lost"
        again.release()
    finally:
        other.end()
    assert CellFolder(tmp_path).evals() == [{"by": "me"}]


def test_a_living_holder_is_never_replaced_however_long_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNNER_BEAT", "0.05")
    mine = Lock.acquire(tmp_path)
    assert mine is not None
    for _ in range(20):
        time.sleep(0.05)
        assert holder(tmp_path) is not None and Lock.acquire(tmp_path) is None
    mine.release()


def test_a_holder_elsewhere_counts_until_its_heartbeat_stops(tmp_path: Path) -> None:
    path = tmp_path / "lock.3"
    path.write_text(json.dumps({"token": "x", "host": "far", "pid": 1, "boot": "b", "every": 10}) + "\n")
    assert holder(tmp_path) is not None and Lock.acquire(tmp_path) is None
    old = time.time() - 89
    os.utime(path, (old, old))
    assert Lock.acquire(tmp_path) is None
    old = time.time() - 91
    os.utime(path, (old, old))
    assert holder(tmp_path) is None
    mine = Lock.acquire(tmp_path)
    assert mine is not None and mine.path.name == "lock.4"
    mine.release()


def test_a_clock_that_runs_ahead_takes_nothing_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock.1"
    path.write_text(json.dumps({"host": "far", "pid": 1, "boot": "b", "every": 10}) + "\n")
    now = time.time
    monkeypatch.setattr(module.time, "time", lambda: now() + 3600)
    assert Lock.acquire(tmp_path) is None


def test_a_lock_that_was_being_written_counts_as_held(tmp_path: Path) -> None:
    (tmp_path / "lock.1").touch()
    assert Lock.acquire(tmp_path) is None


def test_the_number_of_a_process_that_ended_may_be_another_ones(tmp_path: Path) -> None:
    mine = Lock.acquire(tmp_path)
    assert mine is not None
    record = json.loads(mine.path.read_text())
    mine.release()
    (tmp_path / "lock.1").write_text(json.dumps({**record, "born": "1"}) + "\n")
    assert holder(tmp_path) is None


def test_what_a_killed_writer_left_half_written_is_swept_up(tmp_path: Path) -> None:
    (tmp_path / ".status.json.abc.tmp").write_text("{")
    others = [".nfs0001", "notes.tmp"]  # of a file system, and of a person
    for name in others:
        (tmp_path / name).touch()
    mine = Lock.acquire(tmp_path)
    assert mine is not None
    assert {p.name for p in tmp_path.iterdir()} == {mine.stage.name, "lock.1", *others}
    mine.release()
    assert sorted(p.name for p in tmp_path.iterdir()) == others


def test_every_write_of_a_cell_asks_for_the_lock(tmp_path: Path) -> None:
    folder = CellFolder(tmp_path)
    folder.create({"a": 1}, {})
    folder.append_eval({"eval_index": 0})
    folder.set_status("running")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    class Lost:
        stage = tmp_path

        def check(self) -> None:
            raise LostLock

    guarded = CellFolder(tmp_path, Lost())
    for write in (
        lambda: guarded.set_status("done"),
        lambda: guarded.append_eval({"eval_index": 1}),
        lambda: guarded.keep_evals(0),
        lambda: guarded.update_manifest({"x": 1}),
        lambda: guarded.fail("no", "trace"),
        lambda: guarded.create({"a": 2}, {}),
        lambda: guarded.discard(guarded.evals_file),
    ):
        with pytest.raises(LostLock):
            write()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


# -- a holder that is paused between its look at the lock and its write --------------------------------------

WRITES = {
    "status": lambda folder: folder.set_status("running"),
    "eval": lambda folder: folder.append_eval({"eval_index": 9}),
    "kept evals": lambda folder: folder.keep_evals(0),
    "manifest": lambda folder: folder.update_manifest({"late": True}),
    "failure": lambda folder: folder.fail("late", "trace"),
    "config": lambda folder: folder.create({"late": True}, {}),
    "deletion": lambda folder: folder.discard(folder.evals_file),
    "checkpoint": lambda folder: checkpoint.save(folder.checkpoint_file, {"late": True}, folder.stage),
}


@pytest.mark.parametrize("wrote_before", [False, True])
@pytest.mark.parametrize("what", WRITES)
def test_a_writer_that_wakes_behind_its_check_changes_nothing(
    tmp_path: Path, what: str, wrote_before: bool
) -> None:
    first = Lock.acquire(tmp_path)
    assert first is not None
    late = CellFolder(tmp_path, first)
    if wrote_before:
        late.append_eval({"eval_index": 0})
    first._record["every"] = 0  # its heartbeats are too late from here on
    first.check()
    late.guard = lambda: None  # type: ignore[method-assign]  # it has looked; and now it sleeps
    os.utime(first.path, (0, 0))
    boot, module.boot = module.boot, lambda: "another machine"
    try:
        second = Lock.acquire(tmp_path)
    finally:
        module.boot = boot
    assert second is not None
    folder = CellFolder(tmp_path, second)
    folder.create({"a": 1}, {"id": "x"})
    folder.keep_evals(len(folder.evals()))
    folder.append_eval({"eval_index": 1})
    checkpoint.save(folder.checkpoint_file, {"late": False}, second.stage)
    folder.set_status("done")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    with contextlib.suppress(OSError):
        WRITES[what](late)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == before
    second.release()
    first.release()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith((".", "lock."))] == []


def test_a_lock_is_never_there_without_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_link", killed)
    with pytest.raises(KeyboardInterrupt):
        Lock.acquire(tmp_path)
    monkeypatch.undo()
    assert list(tmp_path.glob("lock.*")) == []
    mine = Lock.acquire(tmp_path)
    assert mine is not None
    mine.release()


def test_file_systems_without_links_have_locks_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    mine = Lock.acquire(tmp_path)
    assert mine is not None and Lock.acquire(tmp_path) is None
    mine.check()
    mine.release()


@pytest.mark.parametrize(("hours", "alive"), [(-2, False), (0, True), (2, False)])
def test_a_lock_of_another_machine_is_judged_by_the_file_systems_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int, alive: bool
) -> None:
    """Whatever this machine's own clock says: it may be an hour behind."""
    mine = Lock.acquire(tmp_path)
    assert mine is not None
    mine._ended.set()
    record = json.loads(mine.path.read_text())
    mine.path.write_text(json.dumps({**record, "boot": "another", "host": "elsewhere"}))
    beat = time.time() + 3600 * hours
    os.utime(mine.path, (beat, beat))
    real = time.time
    module._offsets.clear()
    monkeypatch.setattr(time, "time", lambda: real() - 3600)
    assert (holder(tmp_path) is not None) == alive
    taken = Lock.acquire(tmp_path)
    assert (taken is None) == alive
    if taken is not None:
        taken.release()


def test_a_holder_that_runs_here_keeps_its_lock_when_the_clock_is_set_back(tmp_path: Path) -> None:
    mine = Lock.acquire(tmp_path)
    assert mine is not None
    os.utime(mine.path, (time.time() + 3600,) * 2)
    assert holder(tmp_path) is not None and Lock.acquire(tmp_path) is None
    mine.release()


def held_by(folder: Path, **facts: object) -> Path:
    """A lock with a fresh heartbeat, as another process of this machine left it."""
    path = folder / "lock.1"
    path.write_text(json.dumps({**module.this_process(), "every": 10, **facts}))
    return path


@pytest.mark.parametrize(
    ("where", "alive"),
    [
        ({}, False),  # here: its process is seen to be gone
        ({"host": "elsewhere"}, True),  # a machine that was cloned has the same boot id
        ({"boot": "another"}, True),  # containers have one host name and numbers of their own
        ({"host": "elsewhere", "boot": "another"}, True),
    ],
)
def test_a_process_is_looked_for_on_its_own_machine_alone(
    tmp_path: Path, where: dict[str, str], alive: bool
) -> None:
    held_by(tmp_path, pid=2**22 + 1, born="1", **where)
    assert (holder(tmp_path) is not None) == alive
    assert (Lock.acquire(tmp_path) is None) == alive


@pytest.mark.parametrize(("age", "alive"), [(90.0, True), (90.001, False), (-90.0, True), (-90.001, False)])
def test_nine_heartbeats_may_be_missed(tmp_path: Path, age: float, alive: bool) -> None:
    path = held_by(tmp_path, host="elsewhere")
    os.utime(path, (1e9, 1e9))
    assert module._alive(path, lambda: 1e9 + age) == alive


def test_a_lock_is_on_disk_before_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, link = os.fsync, os.link

    def flushed(handle: int) -> None:
        order.append(f"{os.fstat(handle).st_size} bytes")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "link", lambda *names: (order.append("link"), link(*names))[1])
    with Lock.acquire(tmp_path) or pytest.fail() as mine:
        assert order == ["1024 bytes", "link"]
        mine._beat()
        assert order == ["1024 bytes", "link", "1024 bytes"]


def when_linking(monkeypatch: pytest.MonkeyPatch, happens: Any) -> None:
    """Somebody else acts between our look at the locks and the creation of ours; once."""
    link, pending = module._link, [happens]

    def late(*names: Any) -> None:
        if pending:
            pending.pop()()
        link(*names)

    monkeypatch.setattr(module, "_link", late)


@pytest.mark.parametrize("alive", [True, False])
def test_who_was_overtaken_while_it_created_its_lock_looks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alive: bool
) -> None:
    """Others have been there and gone meanwhile: the number that we create is not the highest any more."""

    def another() -> None:
        path = held_by(tmp_path, host="elsewhere").rename(tmp_path / "lock.2")
        if not alive:
            os.utime(path, (0, 0))

    when_linking(monkeypatch, another)
    mine = Lock.acquire(tmp_path)
    if alive:
        assert mine is None and [p.name for p in tmp_path.iterdir()] == ["lock.2"]
    else:
        assert mine is not None and mine.path.name == "lock.3"
        assert sorted(p.name for p in tmp_path.glob("lock.*")) == ["lock.3"]
        mine.release()


def test_who_seemed_dead_and_wakes_in_time_keeps_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = held_by(tmp_path, host="elsewhere")
    os.utime(path, (0, 0))
    when_linking(monkeypatch, lambda: os.utime(path))
    assert Lock.acquire(tmp_path) is None
    assert [p.name for p in tmp_path.iterdir()] == ["lock.1"]


def test_a_stage_that_cannot_be_moved_away_keeps_its_lock_for_the_next_one_to_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Lock.acquire(tmp_path)
    assert mine is not None

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", full)
        mine.release()
    assert mine.stage.exists() and mine.path.exists()
    os.utime(mine.path, (0, 0))
    with Lock.acquire(tmp_path) or pytest.fail() as again:
        assert again.path.name == "lock.2" and not mine.stage.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_has_another_name_or_a_higher_one_beside_it_does_not_count(tmp_path: Path) -> None:
    for spoil in (
        lambda path: (path.rename(path.with_name(".nfs0001")), path.touch()),  # NFS, of a file that is open
        lambda path: path.with_name("lock.2").touch(),
        lambda path: path.unlink(),
    ):
        mine = Lock.acquire(tmp_path)
        assert mine is not None
        mine.check()
        spoil(mine.path)
        with pytest.raises(LostLock):
            mine.check()
        mine.release()
        for path in tmp_path.iterdir():
            path.unlink()


def test_no_file_is_left_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by who gives its lock back, nor by who comes second."""

    def late(*_: object) -> None:
        raise FileExistsError

    open_files = Path("/proc/self/fd")
    before = len(list(open_files.iterdir()))
    with Lock.acquire(tmp_path) or pytest.fail():
        assert len(list(open_files.iterdir())) == before + 1
    monkeypatch.setattr(module, "_link", late)
    assert Lock.acquire(tmp_path) is None
    assert len(list(open_files.iterdir())) == before and list(tmp_path.iterdir()) == []


def test_a_heartbeat_is_over_when_the_lock_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it would be written to whatever file has the lock's handle next."""
    monkeypatch.setenv("RUNNER_BEAT", "0.01")
    mine, beats = Lock.acquire(tmp_path), threading.Event()
    assert mine is not None

    def slow() -> dict[str, Any]:
        beats.set()
        time.sleep(0.2)
        return {}

    mine.progress = slow
    assert beats.wait(30)
    mine.release()
    assert not mine._beating.is_alive()

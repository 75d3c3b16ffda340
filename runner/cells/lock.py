"""Who works on a cell: a lock file with a heartbeat, taken over when its holder is gone.

Locks are generations: ``lock.1``, ``lock.2``, …; the highest one counts. Whoever finds it dead creates the
next, whole and exclusively, so that of two that try only one gets it. A holder asks before every write
whether its file is still the one that counts (:meth:`Lock.check`). It may be paused between that question and
the write, so the write is fenced, too: it goes through a folder of the holder's own (:attr:`Lock.stage`),
which whoever takes over moves away first. No ``flock``, no clock shared between machines: the age of a
heartbeat is measured with the file system's own.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import math
import os
import re
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from runner.base.files import read_json

Record = dict[str, Any]
BEATS = 9  # heartbeats that a holder may miss
OFFSET_SECONDS = 60.0  # for which a reader trusts what it knows of a file system's clock
_NAME = re.compile(r"lock\.(\d+)")
_STAGE = ".holds."
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
# Device -> seconds that its clock is ahead of ours, and until when that is taken as known.
_offsets: dict[int, tuple[float, float]] = {}
_WIDTH = 1024  # bytes of a lock file: rewritten in place, so never shorter than before


def beat_seconds() -> float:
    """Seconds between two heartbeats; ``RUNNER_BEAT`` changes it (for file systems that lag behind)."""
    return float(os.environ.get("RUNNER_BEAT", "10"))


class LostLock(Exception):  # noqa: N818 - an outcome, not a fault
    """Another process has taken the cell over: nothing more may be written."""


class Lock:
    """A held lock; made by :meth:`acquire`, ended by :meth:`release` or as a context manager.

    Attributes:
        progress: called at every heartbeat; what it returns is in the lock's record.
        stage: a folder beside the cell's files. A file is written there and then renamed into place, which
            fails once another process has taken over.
    """

    def __init__(self, path: Path, handle: int, record: Record) -> None:
        self.path, self._handle, self._record = path, handle, record
        self.progress: Callable[[], Mapping[str, Any]] = dict
        self.stage = path.with_name(f"{_STAGE}{_generation(path)}.{record['token']}")
        self._inode = os.fstat(handle).st_ino
        self._next = path.with_name(f"lock.{_generation(path) + 1}")
        self._ended = threading.Event()
        self._beating = threading.Thread(target=self._beat_on, daemon=True)
        self._beating.start()

    @classmethod
    def acquire(cls, cell: Path, job: str | None = None) -> Lock | None:
        """The lock on the cell in folder ``cell``; None while somebody else works on it.

        Args:
            cell: its folder, which must exist.
            job: the batch system's job id, for the record.
        """
        before = _generations(cell)
        if before and _alive(before[-1], lambda: _file_system_time(cell)):
            return None
        lock = cls._create(cell, _generation(before[-1]) + 1 if before else 1, job)
        if lock is None:
            return None
        try:
            return lock._take_over(before)
        except BaseException:
            lock.release()
            raise

    def _take_over(self, before: list[Path]) -> Lock | None:
        cell = self.path.parent
        if self._outnumbered():  # between our look and our creation the numbers went on: look again
            self.release()
            return Lock.acquire(cell, self._record["job"])
        others = [path for path in _generations(cell) if path != self.path]
        if others and any(_alive(path, lambda: _file_system_time(cell)) for path in others):
            self.release()
            return None
        for path in before:
            _unlink(path)
        for stage in _stages(cell):
            if _generation(stage) < _generation(self.path):  # never one of a process that has taken us over
                _move_away(stage)
        for name in os.listdir(cell):
            if name.startswith(".") and name.endswith(".tmp"):  # of a writer that was killed
                _unlink(cell / name)
        os.mkdir(self.stage)
        return self

    def _outnumbered(self) -> bool:
        return any(_generation(path) > _generation(self.path) for path in _generations(self.path.parent))

    @classmethod
    def _create(cls, cell: Path, generation: int, job: str | None) -> Lock | None:
        """The lock file, with its record from the first moment on; None where there is one already."""
        path = cell / f"lock.{generation}"
        record = {"token": secrets.token_hex(8), **this_process(), "job": job, "every": beat_seconds()}
        handle, name = tempfile.mkstemp(dir=cell, prefix=".lock.", suffix=".tmp")
        try:
            os.fchmod(handle, 0o644)
            _write_record(handle, record)
            _link(name, path)
        except BaseException as error:
            os.close(handle)
            # Swept up by another process, which then has the lock; or the cell's folder is gone.
            lost = isinstance(error, FileExistsError) or (
                isinstance(error, FileNotFoundError) and os.path.isdir(cell)
            )
            if lost:
                return None
            raise
        finally:
            _unlink(Path(name))
        return cls(path, handle, record)

    def check(self) -> None:
        """Make sure that this lock still counts.

        Raises:
            LostLock: when the cell has been taken over.
        """
        if not self._is_there() or os.path.lexists(self._next):
            raise LostLock(f"{self.path.parent.name} has been taken over by another process")

    def _is_there(self) -> bool:
        """Whether the file of this name is still the one that this lock has made."""
        try:
            # An inode's number may be used again once its file is gone everywhere; an open file's link count
            # says that it is.
            return os.fstat(self._handle).st_nlink > 0 and os.stat(self.path).st_ino == self._inode
        except OSError:
            return False

    def release(self) -> None:
        """Give the cell back; harmless when it has been taken over, or released before."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._beating.join()
        with contextlib.suppress(OSError):
            _move_away(self.stage)  # where that fails, the lock stays, for the next one to find the stage by
            if self._is_there():  # also where a higher number counts by now: nobody else clears this one up
                os.unlink(self.path)
        with contextlib.suppress(OSError):
            os.close(self._handle)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _beat_on(self) -> None:
        while not self._ended.wait(self._record["every"]):
            with contextlib.suppress(Exception):  # a full disk, say: the next beat may succeed
                self._beat()

    def _beat(self) -> None:
        # Through the open file: what another process has taken over and recreated is never touched.
        _write_record(self._handle, {**self._record, **self.progress()})


def holder(cell: Path) -> Record | None:
    """The record of whoever works on the cell right now; reads only.

    Returns:
        ``token, host, pid, boot, job, started, beat`` and the cell's progress; None when nobody does.
    """
    found = _generations(cell)
    return _read(found[-1]) if found and _alive(found[-1], lambda: _time_for(found[-1])) else None


def sweep(folder: Path) -> None:
    """Delete what locks left in a cell's folder that was moved to where nobody trains it."""
    for path in _generations(folder):
        _unlink(path)
    for stage in _stages(folder):
        _move_away(stage)


def this_process() -> Record:
    """``host``, ``pid``, ``boot`` (of the machine, and of its process numbers) and ``started``."""
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "pid": pid,
        "boot": boot(),
        "born": _born(pid),
        "started": time.time(),
    }


def runs_here(record: Mapping[str, Any]) -> bool | None:
    """Whether the process that :func:`this_process` described still runs; None when that cannot be seen."""
    if record.get("boot") != boot() or record.get("host") != socket.gethostname():
        return None
    return _born(record.get("pid", 0)) == record.get("born")


@functools.lru_cache(maxsize=1)
def boot() -> str:
    """Tells apart what numbers its processes on its own: machines, boots of one, containers."""
    with contextlib.suppress(OSError):
        namespace = Path("/proc/self/ns/pid").readlink()
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text('utf-8').strip()} {namespace}"
    return ""


def _born(pid: int) -> str | None:
    """When a process began, in the kernel's ticks; None when there is none, or it is dead but unreaped."""
    if not Path("/proc/self").exists():  # not Linux: no more than whether there is one
        with contextlib.suppress(ProcessLookupError):
            with contextlib.suppress(PermissionError):  # somebody else's, but there
                os.kill(pid, 0)
            return "some time"
        return None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _alive(path: Path, clock: Callable[[], float]) -> bool:
    record = _read(path)
    runs = runs_here(record)
    if runs is False:
        return False
    try:
        age = clock() - os.stat(path).st_mtime
    except OSError:
        return False
    limit = _limit(record)
    if age < -limit:  # from before a clock was set back: whoever is alive will have renewed it by now
        return runs is True
    return age <= limit


def _limit(record: Record) -> float:
    """Seconds after which a lock without a heartbeat is dead."""
    every = record.get("every")
    return BEATS * (every if isinstance(every, (int, float)) else beat_seconds())


def _file_system_time(folder: Path) -> float:
    handle, name = tempfile.mkstemp(dir=folder, prefix=".now.", suffix=".tmp")
    try:
        return os.fstat(handle).st_mtime
    finally:
        os.close(handle)
        _unlink(Path(name))  # another process may have swept it up


def _time_in(folder: Path) -> float:
    """The file system's time, for one who only reads: our clock, and how far it was off within a minute."""
    now, device = time.time(), os.stat(folder).st_dev
    offset, until = _offsets.get(device, (0.0, -math.inf))
    if not until - OFFSET_SECONDS <= now < until:
        try:
            offset = _file_system_time(folder) - now
        except OSError:  # where nothing may be written
            offset = 0.0
        _offsets[device] = offset, now + OFFSET_SECONDS
    return now + offset


def _time_for(path: Path) -> float:
    """The time to judge a lock by. Our own clock does where the lock looks fresh: to read leaves no trace."""
    now = time.time()
    fresh = abs(now - os.stat(path).st_mtime) <= _limit(_read(path))
    return now if fresh else _time_in(path.parent)


def _write_record(handle: int, record: Record) -> None:
    text = json.dumps({**record, "beat": time.time()})
    os.pwrite(handle, text.ljust(_WIDTH - 1).encode() + b"\n", 0)
    os.fsync(handle)


def _link(name: str, path: Path) -> None:
    """Give the file ``name`` its second name, which nobody else may have."""
    try:
        os.link(name, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))  # a file system without links
        os.replace(name, path)


def _unlink(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _move_away(stage: Path) -> None:
    """From here on, whoever writes through ``stage`` gets an error; then clear it up."""
    gone = stage.with_name(f"{_STAGE}0.{secrets.token_hex(8)}")
    try:
        os.rename(stage, gone)
    except FileNotFoundError:
        return
    with contextlib.suppress(OSError):  # another process may clear it up at the same time
        for name in os.listdir(gone):
            _unlink(gone / name)
        os.rmdir(gone)


def _stages(cell: Path) -> list[Path]:
    return [cell / name for name in os.listdir(cell) if name.startswith(_STAGE)]


def _read(path: Path) -> Record:
    return read_json(path) or {}


def _generations(cell: Path) -> list[Path]:
    """Lock files, the one that counts last."""
    try:
        names = [name for name in os.listdir(cell) if _NAME.fullmatch(name)]  # half the time of Path's
    except OSError:
        return []
    return sorted((cell / name for name in names), key=_generation)


def _generation(path: Path) -> int:
    """``lock.<n>``, ``.holds.<n>.<token>``."""
    return int(path.name.removeprefix(_STAGE).removeprefix("lock.").partition(".")[0])

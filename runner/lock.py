"""Who works on a cell: a lock file with a heartbeat, taken over when its holder is gone.

Locks are generations: ``lock.1``, ``lock.2``, …; the highest one counts. Whoever finds it dead creates the
next, exclusively, so that of two that try only one gets it. A holder asks before every write whether its file
is still the one that counts (:meth:`Lock.check`): a process that was paused, and taken over meanwhile, writes
nothing when it wakes. No ``flock``, no clock shared between machines: the age of a heartbeat is measured with
the file system's own.
"""

from __future__ import annotations

import contextlib
import functools
import json
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

from runner.files import UNREADABLE

Record = dict[str, Any]
BEATS = 9  # heartbeats that a holder may miss
_NAME = re.compile(r"lock\.(\d+)")
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
    """

    def __init__(self, path: Path, handle: int, record: Record) -> None:
        self.path, self._handle, self._record = path, handle, record
        self.progress: Callable[[], Mapping[str, Any]] = dict
        self._inode = os.fstat(handle).st_ino
        self._next = path.with_name(f"lock.{_generation(path) + 1}")
        self._ended = threading.Event()
        self._beating = threading.Thread(target=self._beat_on, daemon=True)
        self._beat()
        self._beating.start()

    @classmethod
    def acquire(cls, cell: Path, job: str | None = None) -> Lock | None:
        """The lock on the cell in folder ``cell``; None while somebody else works on it.

        Args:
            cell: its folder, which must exist.
            job: the batch system's job id, for the record.
        """
        before = _generations(cell)
        if before and _alive(before[-1], by_file_system=True):
            return None
        lock = cls._create(cell, _generation(before[-1]) + 1 if before else 1, job)
        if lock is None:
            return None
        # Between our look and our creation another may have come and begun anew with a lower number.
        if any(_alive(path) for path in _generations(cell) if path != lock.path):
            lock.release()
            return None
        for path in before:
            path.unlink(missing_ok=True)
        for orphan in cell.glob(".*.tmp"):  # of a writer that was killed
            orphan.unlink(missing_ok=True)
        return lock

    @classmethod
    def _create(cls, cell: Path, generation: int, job: str | None) -> Lock | None:
        path = cell / f"lock.{generation}"
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return None
        record = {"token": secrets.token_hex(8), **this_process(), "job": job, "every": beat_seconds()}
        try:
            return cls(path, handle, record)
        except OSError:  # a full disk: a lock that cannot say whose it is, is none
            path.unlink(missing_ok=True)
            os.close(handle)
            raise

    def check(self) -> None:
        """Make sure that this lock still counts.

        Raises:
            LostLock: when the cell has been taken over.
        """
        try:
            # An inode's number may be used again once its file is gone everywhere; an open file's link count
            # says that it is.
            linked = os.fstat(self._handle).st_nlink > 0
            mine = linked and self.path.stat().st_ino == self._inode and not self._next.exists()
        except OSError:
            mine = False
        if not mine:
            raise LostLock(f"{self.path.parent.name} has been taken over by another process")

    def release(self) -> None:
        """Give the cell back; harmless when it has been taken over, or released before."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._beating.join()
        with contextlib.suppress(LostLock, OSError):
            self.check()
            self.path.unlink()
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
        record = {**self._record, "beat": time.time(), **self.progress()}
        os.pwrite(self._handle, json.dumps(record).ljust(_WIDTH - 1).encode() + b"\n", 0)
        os.fsync(self._handle)


def holder(cell: Path) -> Record | None:
    """The record of whoever works on the cell right now; reads only.

    Returns:
        ``token, host, pid, boot, job, started, beat`` and the cell's progress; None when nobody does.
    """
    found = _generations(cell)
    return _read(found[-1]) if found and _alive(found[-1]) else None


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


def _alive(path: Path, by_file_system: bool = False) -> bool:
    record = _read(path)
    if runs_here(record) is False:
        return False
    try:
        beat = path.stat().st_mtime
    except OSError:
        return False
    limit = BEATS * float(record.get("every", beat_seconds()))
    now = _file_system_time(path.parent) if by_file_system else time.time()
    return now - beat <= limit


def _file_system_time(folder: Path) -> float:
    handle, name = tempfile.mkstemp(dir=folder, prefix=".now.", suffix=".tmp")
    try:
        return os.fstat(handle).st_mtime
    finally:
        os.close(handle)
        Path(name).unlink(missing_ok=True)  # another process may have swept it up


def _read(path: Path) -> Record:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except UNREADABLE:
        return {}
    return record if isinstance(record, dict) else {}


def _generations(cell: Path) -> list[Path]:
    """Lock files, the one that counts last."""
    try:
        names = [name for name in os.listdir(cell) if _NAME.fullmatch(name)]  # noqa: PTH208 - half the time
    except OSError:
        return []
    return sorted((cell / name for name in names), key=_generation)


def _generation(path: Path) -> int:
    return int(path.name.rpartition(".")[2])

"""A seam between the runner and its files: counts every operation under a folder, and makes one of them fail.

It stands in for the functions of ``os`` and for ``open``, so what goes around ``runner.base.files`` is seen,
too: pathlib, tempfile, shutil, zipfile and torch's Python side all end there. Not seen: what C++ opens itself
(torch maps a checkpoint into memory to read it back), and other processes.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

READS = ("read", "readlink", "stat", "lstat", "fstat", "listdir", "scandir", "access")
WRITES = ("write", "pwrite")
# What needs room on the disk, or may learn only now that there was none.
SPACE = (*WRITES, "create", "fsync", "mkdir", "link", "symlink", "rename", "replace", "close")
OF_A_PATH = (
    "stat", "lstat", "listdir", "scandir", "access", "readlink", "mkdir", "rmdir", "unlink", "remove",
    "chmod", "utime", "truncate",
)  # fmt: skip
OF_TWO = ("rename", "replace", "link", "symlink")
OF_A_HANDLE = ("fstat", "fsync", "fchmod", "ftruncate")
KINDS = ("killed", "torn", "full", "full for good", "broken", "broken for good")


@dataclass
class Fault:
    """What goes wrong: at operation ``at`` of those that it can befall, or from there on ``for good``.

    ``killed``: the process is, before the operation · ``torn``: half of what was to be written is, then it is
    killed · ``full``: ENOSPC · ``broken``: EIO.
    """

    kind: str
    at: int
    count: int = 0

    def befalls(self, operation: str) -> bool:
        """Whether this operation is the one, or one of those behind it."""
        if not self._can_befall(operation):
            return False
        self.count += 1
        return self.count == self.at or (self.kind.endswith("for good") and self.count > self.at)

    def _can_befall(self, operation: str) -> bool:
        match self.kind.split()[0]:
            case (
                "killed"
            ):  # before one that only reads it would be killed with the same files as before the next
                return operation not in READS and operation not in ("open", "close", "fsync")
            case "torn":
                return operation in WRITES
            case "full":
                return operation in SPACE
        return True

    def error(self, path: object) -> OSError:
        """What the operation raises."""
        number = errno.ENOSPC if self.kind.startswith("full") else errno.EIO
        return OSError(number, os.strerror(number), path)


class Seam:
    """Stands in for the functions of this process that touch files under ``root``.

    Attributes:
        trace: the operations so far, with the names of their files.
    """

    def __init__(self, root: Path, fault: Fault) -> None:
        self.fault, self._root = fault, str(root)
        self.trace: list[tuple[str, str]] = []
        self._handles: dict[int, tuple[str, bool]] = {}  # of files that are open: path, and whether to write
        self._open, self._close, self._write = os.open, os.close, os.write

    def install(self) -> None:
        """For the rest of this process."""
        for name in OF_A_PATH + OF_TWO + OF_A_HANDLE:
            setattr(os, name, self._guarded(name, getattr(os, name)))
        os.write = self._writing("write", os.write)
        os.pwrite = self._writing("pwrite", os.pwrite)
        os.open, os.close = self.open, self.close
        io.open = builtins.open = self._opening(io.open)  # type: ignore[assignment]

    def pass_(self, operation: str, target: Any, tear: Callable[[], object] = lambda: None) -> None:
        """One operation: it may be the last, or fail."""
        if (path := self.known(target)) is None:
            return
        self.trace.append((operation, path.removeprefix(self._root)))
        if not self.fault.befalls(operation):
            return
        if self.fault.kind in ("killed", "torn"):
            tear()
            os.kill(os.getpid(), signal.SIGKILL)
        raise self.fault.error(path)

    def known(self, target: Any) -> str | None:
        """The path of a file that is ours."""
        if isinstance(target, int):
            return self._handles[target][0] if target in self._handles else None
        path = os.fsdecode(target)
        return path if path.startswith(self._root) else None

    def note(self, handle: int, path: Any, writes: bool) -> None:
        """A file is open now."""
        if (known := self.known(path)) is not None:
            self._handles[handle] = known, writes

    def forget(self, handle: int) -> None:
        """It is closed. Where a disk has kept back that it was full, that comes out now."""
        path, writes = self._handles.pop(handle, (None, False))
        if path is not None and writes:
            self.pass_("close", path)

    # -- what stands in ----------------------------------------------------------------------------

    def open(self, path: Any, flags: int, mode: int = 0o777, **kwargs: Any) -> int:
        """``os.open``."""
        self.pass_("create" if flags & os.O_CREAT else "open", path)
        handle = self._open(path, flags, mode, **kwargs)
        self.note(handle, path, bool(flags & (os.O_WRONLY | os.O_RDWR)))
        return handle

    def close(self, handle: int) -> None:
        """``os.close``."""
        self._close(handle)
        self.forget(handle)

    def _guarded(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(target: Any = ".", *args: Any, **kwargs: Any) -> Any:
            self.pass_(name, args[0] if name in OF_TWO else target)
            return real(target, *args, **kwargs)

        return call

    def _writing(self, name: str, real: Callable[..., int]) -> Callable[..., int]:
        def call(handle: int, data: bytes, *where: int) -> int:
            self.pass_(name, handle, lambda: real(handle, data[: len(data) // 2], *where))
            return real(handle, data, *where)

        return call

    def _opening(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(
            file: Any,
            mode: str = "r",
            buffering: int = -1,
            encoding: str | None = None,
            errors: str | None = None,
            newline: str | None = None,
            closefd: bool = True,
            opener: Any = None,
        ) -> Any:
            if self.known(file) is None:
                return real(file, mode, buffering, encoding, errors, newline, closefd, opener)
            raw = File(self, file, mode.replace("b", "").replace("t", ""), closefd)
            if buffering == 0:
                return raw
            both = io.BufferedRandom if "+" in mode else None
            whole = both or (io.BufferedReader if raw.readable() else io.BufferedWriter)
            buffer = whole(raw)
            return (
                buffer if "b" in mode else io.TextIOWrapper(buffer, encoding, errors, newline, buffering == 1)
            )

        return call


class File(io.FileIO):
    """A file under the seam's folder."""

    def __init__(self, seam: Seam, file: Any, mode: str, closefd: bool) -> None:
        self._seam = seam
        if not isinstance(file, int):
            seam.pass_("open" if mode == "r" else "create", file)
        super().__init__(file, mode, closefd)
        seam.note(self.fileno(), file, self.writable())

    def write(self, data: Any) -> int:
        half = bytes(data)[: len(data) // 2]
        self._seam.pass_("write", self.fileno(), lambda: io.FileIO.write(self, half))
        return super().write(data)

    def readinto(self, buffer: Any) -> int:
        self._seam.pass_("read", self.fileno())
        return super().readinto(buffer)

    def readall(self) -> bytes:
        self._seam.pass_("read", self.fileno())
        return super().readall()

    def read(self, size: int | None = -1) -> bytes:
        self._seam.pass_("read", self.fileno())
        return super().read(-1 if size is None else size)

    def close(self) -> None:
        if self.closed:
            return
        handle = self.fileno()
        super().close()
        self._seam.forget(handle)

"""Files that survive a kill at any instant: written under a temporary name, flushed, renamed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

# Temporary files are the owner's alone; what they become is for everyone whom the user lets read their files.
_MASK = os.umask(0o077)
os.umask(_MASK)


# What reading JSON raises that is absent, damaged, or nested deeper than Python can follow.
UNREADABLE = (OSError, ValueError, RecursionError)


HEAD, TAIL = 16 << 20, 1 << 20  # bytes of a log that are kept at both ends
TRIMMED = (
    b"\n[the log is too long: what stood here is left out; its first 16 MiB and its last 1 MiB are kept]\n"
)


def write_atomic(path: Path, write: Callable[[BinaryIO], object], stage: Path | None = None) -> None:
    """Let ``write`` fill a temporary file, flush it to disk, and rename it to ``path``.

    Args:
        path: the file to replace.
        write: gets the temporary file, open.
        stage: folder of the temporary file, on the same file system; beside ``path`` when None.

    Raises:
        OSError: where it cannot be written, or ``stage`` is gone. ``path`` is then what it was.
    """
    with staged(path, stage) as file:
        write(file)


@contextlib.contextmanager
def staged(path: Path, stage: Path | None = None, keep_open: bool = False) -> Iterator[BinaryIO]:
    """A temporary file that becomes ``path`` at the end, in one step; as :func:`write_atomic`.

    Args:
        path: the file to replace.
        stage: as in :func:`write_atomic`.
        keep_open: leave the file open, for more to be appended.
    """
    handle, name = tempfile.mkstemp(dir=stage or path.parent, prefix=f".{path.name}.", suffix=".tmp")
    file = os.fdopen(handle, "wb")
    try:
        os.fchmod(handle, 0o666 & ~_MASK)
        yield file
        file.flush()
        os.fsync(handle)
        if not keep_open:
            file.close()
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            file.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    sync_folder(path.parent)


def discard(path: Path, stage: Path) -> None:
    """Delete ``path``, if it is there, by way of ``stage``: not at all once that is gone.

    Raises:
        OSError: where ``stage`` is gone, and there is something to delete.
    """
    gone = stage / path.name
    try:
        os.rename(path, gone)
    except FileNotFoundError:
        if os.path.lexists(path):
            raise
        return
    os.unlink(gone)


def append(handle: int, data: bytes) -> None:
    """Write ``data`` to an open file and flush it to disk; nothing of it is kept to be written later.

    Raises:
        OSError: where it cannot be written, or not all of it.
    """
    if (written := os.write(handle, data)) < len(data):
        raise OSError(errno.ENOSPC, f"{written} of {len(data)} bytes were written")
    os.fsync(handle)


def no_link(path: str, flags: int) -> int:
    """An opener for :func:`open` that follows no link, and waits at no pipe.

    A folder from elsewhere may have links out of it, and whatever else in the place of a file.

    Raises:
        OSError: for a link.
    """
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk: a rename that a power cut must not undo."""
    with contextlib.suppress(OSError):  # some file systems cannot
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: Path, text: str, stage: Path | None = None) -> None:
    """Replace ``path`` by ``text`` in one step."""
    # Half a character, which an exception's text may hold, is written as its escape.
    write_atomic(path, lambda file: file.write(text.encode(errors="backslashreplace")), stage)


def write_json(path: Path, value: Any, stage: Path | None = None) -> None:
    """Replace ``path`` by ``value`` as JSON in one step."""
    write_text(path, json.dumps(value, indent=1, default=str) + "\n", stage)


def exists(path: Path) -> bool:
    """Whether a file is seen to be there; where nothing can be seen, whoever reads or writes will be told."""
    return os.path.exists(path)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in ``path``; None when the file is absent or damaged."""
    try:
        with open(path, encoding="utf-8", opener=no_link) as file:
            value = json.load(file)
    except UNREADABLE:
        return None
    return value if isinstance(value, dict) else None


def read_tail(path: Path, size: int = 4000) -> str:
    """The last ``size`` bytes of a log, whatever its length; empty where it cannot be read."""
    try:
        with open(path, "rb", opener=no_link) as file:
            file.seek(max(0, path.stat().st_size - size))
            return file.read(size).decode(errors="replace")
    except OSError:
        return ""


def trim(path: Path) -> None:
    """Of a log that has grown too long keep both ends, with a line between them; its writers append to it."""
    with contextlib.suppress(OSError):
        if path.stat().st_size <= HEAD + 2 * TAIL:
            return
        with path.open("r+b", buffering=0) as file:
            file.seek(-TAIL, os.SEEK_END)
            tail = file.read(TAIL)
            file.seek(HEAD)
            file.write(TRIMMED + tail)
            file.truncate()


def append_line(path: Path, line: str) -> None:
    """Append one line and flush it to disk."""
    with open(path, "ab", buffering=0, opener=no_link) as file:
        append(file.fileno(), f"{line}\n".encode())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a line file; a torn or damaged line and all after it are left out."""
    rows: list[dict[str, Any]] = []
    try:
        with open(path, encoding="utf-8", errors="replace", opener=no_link) as file:
            text = file.read()
    except OSError:
        return rows
    for line in text.splitlines(keepends=True):
        try:
            row = json.loads(line)
        except UNREADABLE:
            break
        if not line.endswith("\n") or not isinstance(row, dict):
            break
        rows.append(row)
    return rows

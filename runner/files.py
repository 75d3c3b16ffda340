"""Files that survive a kill at any instant: written under a temporary name, flushed, renamed."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

# Temporary files are the owner's alone; what they become is for everyone whom the user lets read their files.
_MASK = os.umask(0o077)
os.umask(_MASK)


# What reading JSON raises that is absent, damaged, or nested deeper than Python can follow.
UNREADABLE = (OSError, ValueError, RecursionError)


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, flush it to disk, and rename it into place."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, 0o666 & ~_MASK)
            write(file)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` in one step."""
    # Half a character, which an exception's text may hold, is written as its escape.
    write_atomic(path, lambda file: file.write(text.encode(errors="backslashreplace")))


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` by ``value`` as JSON in one step."""
    write_text(path, json.dumps(value, indent=1, default=str) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in ``path``; None when the file is absent or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except UNREADABLE:
        return None
    return value if isinstance(value, dict) else None


def read_tail(path: Path, size: int = 4000) -> str:
    """The last ``size`` bytes of a log, whatever its length; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            return file.read(size).decode(errors="replace")
    except OSError:
        return ""


def append_line(path: Path, line: str) -> None:
    """Append one line and flush it to disk."""
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a line file; a torn or damaged line and all after it are left out."""
    rows: list[dict[str, Any]] = []
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
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

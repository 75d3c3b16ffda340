"""Data files checked against known checksums, once for each state of a file."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from runner.errors import UserError
from runner.files import read_json, write_json
from runner.machine import checksum

STAMPS = ".verified.json"  # in the folder of the files


def check_file(path: Path, sha256: str) -> None:
    """Raise unless ``path`` holds the bytes of that checksum.

    What was found is remembered beside the file by its size and time of change, so a file is read
    once and not in every cell. In a folder that cannot be written it is read each time.

    Args:
        path: the file.
        sha256: its known SHA-256, as hex.

    Raises:
        UserError: when the file is missing, unreadable or another one.
    """
    try:
        found = _remembered_checksum(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if found != sha256:
        raise UserError(
            f"{path} is damaged, or another file of that name: SHA-256 {found[:16]}…, "
            f"expected {sha256[:16]}…; delete it and get it anew"
        )


def _remembered_checksum(path: Path) -> str:
    stat, stamps_file = path.stat(), path.parent / STAMPS
    state = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    stamp = _stamp(stamps_file, path.name)
    if {key: stamp.get(key) for key in state} == state and isinstance(stamp.get("sha256"), str):
        return stamp["sha256"]
    found = checksum(path)
    with contextlib.suppress(OSError):
        # Two cells at once may lose each other's line: the file is then read once more.
        write_json(stamps_file, {**(read_json(stamps_file) or {}), path.name: {**state, "sha256": found}})
    return found


def _stamp(stamps_file: Path, name: str) -> dict[str, Any]:
    stamp = (read_json(stamps_file) or {}).get(name)
    return stamp if isinstance(stamp, dict) else {}

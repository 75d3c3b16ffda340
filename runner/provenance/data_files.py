"""The data files that a cell's workload names, and whether they have changed since it was trained."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def stamps(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Absolute path -> size, time of change and SHA-256 of every file that the workload of a config names."""
    return {str(path): _stamp(path) for path in sorted(_named(config))}


def changed(recorded: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a file holds other bytes than those recorded; one that is not on this machine tells nothing.

    A file is read again only where its size or its time of change is another one, and then once a process.
    """
    return any(_changed(Path(path), stamp) for path, stamp in recorded.items())


def _changed(path: Path, stamp: Mapping[str, Any]) -> bool:
    try:
        now = path.stat()
        if (now.st_size, now.st_mtime_ns) == (stamp.get("size"), stamp.get("mtime_ns")):
            return False
        return _checksum(path, now.st_size, now.st_mtime_ns) != stamp.get("sha256")
    except OSError:
        return False


def _named(config: Mapping[str, Any]) -> Iterator[Path]:
    for value in config["workload"].values():
        path = Path(config["data_dir"], value).absolute() if isinstance(value, str) else None
        if path is not None and path.is_file():
            yield path


def _stamp(path: Path) -> dict[str, Any]:
    now = path.stat()
    sha256 = _checksum(path, now.st_size, now.st_mtime_ns)
    return {"size": now.st_size, "mtime_ns": now.st_mtime_ns, "sha256": sha256}


@functools.lru_cache(maxsize=256)
def _checksum(path: Path, _size: int, _mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Data files checked against known checksums, once for each state of a file."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

from runner.base.errors import UserError
from runner.base.files import read_json, write_json
from runner.machine.machine import checksum

TIMEOUT = 30.0  # seconds without an answer after which a download gives up
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


def obtain(path: Path, url: str | None, sha256: str, advice: str) -> None:
    """See that ``path`` is there and holds the bytes of that checksum; fetch it where it is missing.

    A download goes to a temporary name beside it and is renamed once it is whole and right, so that cells
    that start at once get in nobody's way.

    Args:
        path: where the file belongs.
        url: where it can be fetched; None where downloading is off or there is no such place.
        sha256: its known SHA-256, as hex.
        advice: how to get the file by hand, and what needs no file; the end of the error message.

    Raises:
        UserError: when the file cannot be had, or is another one.
    """
    if not os.path.exists(path):  # noqa: PTH110  Path.exists() raises where a folder cannot be read
        try:
            fetch(path, url, sha256)
        except (OSError, HTTPException, RuntimeError) as error:
            raise UserError(f"no {path}: {advice} ({_reason(error)})") from error
    check_file(path, sha256)


def obtain_dataset(
    root: Path, folder: Path, files: Iterable[str], download: Callable[[str], object] | None, advice: str
) -> None:
    """See that ``files`` are in ``folder``; have what is missing of them downloaded, as one data set.

    Every cell downloads into a folder of its own; whole files are then renamed into place.

    Args:
        root: where data lies; ``folder`` is below it.
        folder: where the files belong.
        files: their names.
        download: fetches the data set below the folder it is given, laid out as below ``root``; None where
            downloading is off.
        advice: how to get the files by hand, and what needs no files.

    Raises:
        UserError: when the files cannot be had.
    """
    missing = [name for name in files if not (folder / name).exists()]
    if not missing:
        return
    # The remedy before the reason: summaries cut long lines.
    others = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
    absent = f"no {missing[0]}{others} in {folder}: {advice}."
    if download is None:
        raise UserError(f"{absent} Downloading is off (workload.download=false)")
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as own, patience(TIMEOUT):
            download(own)
            folder.mkdir(parents=True, exist_ok=True)
            for name in missing:
                _settle(Path(own) / folder.relative_to(root) / name, folder / name)
    except (RuntimeError, OSError, EOFError, HTTPException) as error:
        raise UserError(f"{absent} The download failed: {_reason(error)}") from error


def fetch(path: Path, url: str | None, sha256: str) -> None:
    """Download ``url`` to ``path`` if it has that checksum.

    Raises:
        OSError: without a URL, without a network, or when the file cannot be written.
        RuntimeError: when other bytes came than expected.
    """
    if url is None:
        raise OSError("downloading is off")
    from torch.hub import download_url_to_file

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".download-") as own, patience(TIMEOUT):
        whole = Path(own) / path.name
        download_url_to_file(url, str(whole), hash_prefix=sha256, progress=False)
        _settle(whole, path)


@contextlib.contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Give sockets a timeout: on a node that drops packets a download would otherwise wait for minutes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _settle(whole: Path, path: Path) -> None:
    """Give a whole file its name, unless another cell was first: what was noted of that one stays true."""
    try:
        os.link(whole, path)
    except FileExistsError:
        return
    except OSError:  # a file system without links
        whole.replace(path)


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


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

"""Run directories in a folder or an archive: folder -> what an import reads. Nothing is unpacked."""

from __future__ import annotations

import errno
import fnmatch
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from runner.base.errors import UserError, one_line
from runner.base.files import no_link
from runner.base.unpack import Room, packing, unpacked
from runner.importing.notices import Notices

WANTED = ("eval_measurements.csv", "hparams.json", "meta_data_*.json")
NO_PART = ("", ".", "..")
NO_LOG = ("__MACOSX", "._")  # what macOS puts beside files: a folder of that name, names that begin so
Parts = tuple[str, ...]
Folders = dict[Parts, dict[str, bytes]]  # absolute-like path of a folder -> file name -> content


def read(logs: Path, notices: Notices) -> Folders:
    """Folders that hold a wanted file, or are called ``trial_…``; on disk or in an archive.

    A path begins with the parts of ``logs`` itself, so that a submission's own folder can be given.

    Raises:
        UserError: when there is no such thing, or the archive is damaged.
    """
    if not (logs.is_dir() or logs.is_file()):
        raise UserError(f"no such folder or archive: {logs}")
    room = Room(logs)
    if logs.is_dir():
        return _gather(_on_disk(logs, room, notices), logs.resolve().parts)
    root = (*logs.resolve().parent.parts, logs.name.split(".")[0])
    try:
        if zipfile.is_zipfile(logs):
            return _gather(_in_zip(logs, room), root)
        return _gather(_in_tar(logs, room), root)
    except UserError:
        raise
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{logs} cannot be read as an archive: {one_line(str(error))}") from error
    except Exception as error:  # lzma.LZMAError, zlib.error: the modules may not be there to name them
        raise UserError(f"{logs} is damaged: {one_line(str(error))}") from error


Entry = tuple[Parts, str | None, Callable[[], bytes]]  # folder, file (None: none), content


def _gather(entries: Iterator[Entry], root: Parts) -> Folders:
    folders: Folders = {}
    for parts, name, content in entries:
        if any(part.startswith(NO_LOG) for part in (*parts, name or "")):
            continue
        path = (*root, *map(_legible, parts))
        if name is None:
            if path and path[-1].startswith("trial_"):
                folders.setdefault(path, {})
        elif any(fnmatch.fnmatchcase(name, pattern) for pattern in WANTED):
            folders.setdefault(path, {})[name] = content()
    return dict(sorted(folders.items(), key=lambda item: _natural(item[0])))


def _natural(parts: Parts) -> tuple[tuple[str, int, str], ...]:
    """``trial_2`` before ``trial_10``."""
    keys = []
    for part in parts:
        stem = part.rstrip("0123456789")
        keys.append((stem, int(part[len(stem) :][:18] or -1), part))
    return tuple(keys)


def _legible(name: str) -> str:
    """A name that no table refuses: bytes that are not UTF-8 are replaced."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _on_disk(root: Path, room: Room, notices: Notices) -> Iterator[Entry]:
    def content(folder: str, name: str) -> bytes:
        try:
            with open(f"{folder}/{name}", "rb", opener=no_link) as file:
                room.take(os.fstat(file.fileno()).st_size)
                return file.read()
        except OSError as error:
            odd = "link, not followed" if error.errno == errno.ELOOP else "unreadable file"
            notices.add(f"{odd}, treated as empty", f"{folder}/{name}")
            return b""

    for folder, _, names in os.walk(root):
        parts = Path(folder).relative_to(root).parts
        yield parts, None, bytes
        for name in names:
            yield parts, name, lambda folder=folder, name=name: content(folder, name)


def _in_tar(path: Path, room: Room) -> Iterator[Entry]:
    with unpacked(path, packing(path), most=None) as file, tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            room.count()
            parts = _clean(member.name)
            if member.isdir():
                yield parts, None, bytes
            elif member.isfile() and parts:
                yield parts[:-1], parts[-1], lambda member=member: _of_tar(archive, member, room)


def _of_tar(archive: tarfile.TarFile, member: tarfile.TarInfo, room: Room) -> bytes:
    room.take(member.size)
    file = archive.extractfile(member)
    return file.read() if file else b""


def _in_zip(path: Path, room: Room) -> Iterator[Entry]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            room.count()
            parts = _clean(info.filename)
            if info.is_dir():
                yield parts, None, bytes
            elif parts:
                yield parts[:-1], parts[-1], lambda info=info: _of_zip(archive, info, room)


def _of_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo, room: Room) -> bytes:
    room.take(info.file_size)
    return archive.read(info)


def _clean(name: str) -> Parts:
    return tuple(part for part in name.replace("\\", "/").split("/") if part not in NO_PART)

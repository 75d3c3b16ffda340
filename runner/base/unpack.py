"""What comes out of a packed file has a limit: a few megabytes may unpack to more than a machine's memory."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from runner.base.errors import UserError

VARIABLE = "RUNNER_UNPACK_GB"
FREE, MOST, RATIO = 256 << 20, 4 << 30, 50  # bytes that any file may hold, that none may; times its own size
MEMBERS, CHUNK = 1_000_000, 1 << 20
PACKED = {b"BZh": (".bz2", bz2.open), b"\x1f\x8b": (".gz", gzip.open), b"\xfd7zXZ\x00": (".xz", lzma.open)}


def limit(path: Path, most: int | None = MOST) -> int:
    """Bytes that may come out of a file: 50 times its size, from 256 MB up to ``most``; or the user's word.

    Raises:
        UserError: for a ``$RUNNER_UNPACK_GB`` that is no number above 0.
    """
    if (told := os.environ.get(VARIABLE)) is None:
        size = MOST if path.is_dir() else max(FREE, RATIO * path.stat().st_size)
        return size if most is None else min(size, most)
    try:
        gigabytes = float(told)
    except ValueError:
        gigabytes = 0.0
    if not 0 < gigabytes < float("inf"):
        raise UserError(f"{VARIABLE}={told}: expected a number of gigabytes above 0")
    return int(gigabytes * 1e9)


class Room:
    """How much of a folder or an archive may still be read into memory, and how many files it may hold."""

    def __init__(self, path: Path) -> None:
        self._path, self._allowed, self._left, self._files = path, limit(path), limit(path), 0

    def take(self, size: int) -> None:
        """A file of so many bytes is about to be read.

        Raises:
            UserError: where there is no room for it.
        """
        self._left -= size
        if self._left < 0:
            raise too_much(self._path, self._allowed)

    def count(self) -> None:
        """One more file.

        Raises:
            UserError: where there are too many.
        """
        self._files += 1
        if self._files > MEMBERS:
            raise UserError(f"{self._path} holds more than {MEMBERS:,} files, the limit")


def too_much(path: Path, allowed: int) -> UserError:
    """What to say of a file out of which more comes than ``allowed`` bytes."""
    return UserError(
        f"{path} holds more than {allowed / 1e6:,.0f} MB, unpacked; if that is expected, set "
        f"{VARIABLE} to the gigabytes allowed"
    )


def check_zip(path: Path) -> None:
    """Hold the sizes that a zip archive (an ``.npz``) says its files have against the limits.

    Raises:
        UserError: for too many, or too much.
        OSError, zipfile.BadZipFile: for one that is damaged.
    """
    if zipfile.is_zipfile(path):
        room = Room(path)
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                room.count()
                room.take(member.file_size)


def check_table(path: Path) -> None:
    """Hold what a Parquet file says of its columns against the limit: of equal values it needs one alone.

    Raises:
        UserError: for too much.
        Exception: of any kind, for a file that is damaged.
    """
    from pyarrow.parquet import read_metadata

    facts = read_metadata(path)
    packed = sum(facts.row_group(place).total_byte_size for place in range(facts.num_row_groups))
    if max(8 * facts.num_rows * facts.num_columns, packed) > (allowed := limit(path)):
        raise too_much(path, allowed)


def unpacked(path: Path, opener: Callable[..., Any] | None, most: int | None = MOST) -> IO[bytes]:
    """The bytes of a file that ``opener`` unpacks (None: of one that is not packed).

    Reading on behind the limit raises UserError.
    """
    if opener is None:
        return path.open("rb")
    return io.BufferedReader(_Limited(path, opener(path, "rb"), limit(path, most)))


class _Limited(io.RawIOBase):
    def __init__(self, path: Path, file: IO[bytes], allowed: int) -> None:
        self._path, self._file, self._allowed = path, file, allowed

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._file.seekable()

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any, /) -> int:
        data = self._file.read(min(len(buffer), CHUNK))
        if self._file.tell() > self._allowed:
            raise too_much(self._path, self._allowed)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def packing(path: Path) -> Callable[..., Any] | None:
    """What unpacks a file, by its first bytes; None where it is not packed."""
    with path.open("rb") as file:
        first = file.read(max(map(len, PACKED)))
    return next((opener for magic, (_, opener) in PACKED.items() if first.startswith(magic)), None)

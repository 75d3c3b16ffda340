"""LIBSVM (SVMlight) files, plain or compressed. scikit-learn parses them; what it refuses is found and named.

A line is ``label index:value index:value …``. Comments (``# …``), ``qid:`` and empty lines are passed over;
entries that are not there are zero; indices ascend within a line, each once; every number is finite.
"""

from __future__ import annotations

import codecs
import lzma
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from runner.base.errors import UserError, nearest, one_line
from runner.base.unpack import PACKED, packing, unpacked

OPENERS = dict(PACKED.values())
MOST = 2**24 - 1  # the largest index: beyond it float32, which holds ids in sparse rows, has gaps
LARGEST = float(np.finfo(np.float32).max)
BROKEN = (EOFError, zlib.error, lzma.LZMAError)  # a compressed file that is none, or is cut off


class Rows(NamedTuple):
    """Rows of a file: ``x`` a CSR matrix in float64, columns as the file counts them; ``y`` (n,) labels."""

    x: Any
    y: np.ndarray


def read_rows(path: Path) -> Rows:
    """The rows of a file, in its order; repeated rows are kept.

    Raises:
        UserError: when there is no such file, or a line that breaks the format: which one, and how.
    """
    from sklearn.datasets import load_svmlight_file

    parse: Any = load_svmlight_file
    try:
        with open_lines(path) as file:
            loaded = parse(file, zero_based=True)  # columns as the file counts them
    except OSError as error:
        raise _unreadable(path, error) from error
    except BROKEN as error:
        raise UserError(f"{path} is no whole {path.suffix} file ({_reason(error)}): get it anew") from error
    except (ValueError, OverflowError) as error:
        reason = f"{path} cannot be parsed ({one_line(str(error))})"
        raise UserError(_encoded(path) or _first_fault(path) or reason) from error
    return _checked(path, Rows(*loaded))


def restrict(x: Any, start: int, stop: int) -> Any:
    """Columns ``start`` … ``stop`` − 1 of a CSR matrix, empty where it has fewer; written-out zeros go."""
    x = x.copy()
    x.resize(x.shape[0], stop)
    x = x[:, start:]
    x.eliminate_zeros()
    return x


def first_index(x: Any) -> int:
    """Where the features of a file count from: 0 where it has that index, else 1."""
    return 0 if (x.indices == 0).any() else 1


def to_entries(x: Any) -> Tensor:
    """Rows of a CSR matrix as lists of (column, value), (n, K, 2) float32.

    K is the length of the longest row; others are filled up with (0, 0), a value of zero in column 0.
    """
    counts = np.diff(x.indptr)
    rows = np.repeat(np.arange(len(counts)), counts)
    at = np.arange(x.nnz) - np.repeat(x.indptr[:-1], counts)
    entries = np.zeros((len(counts), max(1, counts.max()), 2), np.float32)
    entries[rows, at, 0], entries[rows, at, 1] = x.indices, x.data
    return torch.from_numpy(entries)


def line_of(path: Path, row: int) -> int:
    """The number of the line, from 1, that holds row ``row``, from 0."""
    with open_lines(path) as file:
        numbers = (number for number, line in enumerate(file, start=1) if _tokens(line))
        return next(number for i, number in enumerate(numbers) if i == row)


def open_lines(path: Path) -> IO[bytes]:
    """The file's bytes, unpacked where its ending or its first bytes say that it is compressed."""
    ending = path.suffix.lower()
    return unpacked(path, OPENERS[ending] if ending in OPENERS else packing(path))


def _checked(path: Path, rows: Rows) -> Rows:
    if not len(rows.y):
        raise UserError(f"{path} holds no rows")
    finite = np.isfinite(rows.y).all() and (np.abs(rows.x.data) <= LARGEST).all()
    if not finite or rows.x.shape[1] > MOST + 1:
        raise UserError(_first_fault(path) or f"{path} holds numbers that are not finite")
    if not rows.x.nnz:
        raise UserError(f"{path} holds labels alone, no index:value")
    return rows


def _unreadable(path: Path, error: OSError) -> UserError:
    if isinstance(error, FileNotFoundError):
        there = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = nearest(path.name, [name for name in there if not name.startswith(".")]) if there else ""
        return UserError(
            f"no file {path}: put it there, or set workload.file or data_dir; {hint}".rstrip("; ")
        )
    return UserError(f"{path} cannot be read: {error.strerror or _reason(error)}")


def _encoded(path: Path) -> str | None:
    """What to do with a file whose first bytes are another encoding's."""
    with open_lines(path) as file:
        start = file.read(4)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in start:
        return f"{path} is UTF-16 or no text: convert it with iconv -f UTF-16 -t UTF-8"
    if start.startswith(codecs.BOM_UTF8):
        return f"{path} begins with a byte order mark: sed -i '1s/^\\xEF\\xBB\\xBF//' removes it"
    return None


def _reason(error: Exception) -> str:
    return one_line(str(error)) or type(error).__name__


# -- what is wrong with a line ---------------------------------------------------------------------


def _first_fault(path: Path) -> str | None:
    with open_lines(path) as file:
        for number, line in enumerate(file, start=1):
            for fault in _faults(_tokens(line)):
                return f"{path}:{number}: {fault}"
    return None


def _tokens(line: bytes) -> list[str]:
    return line.partition(b"#")[0].decode(errors="replace").split()


def _faults(tokens: list[str]) -> Iterator[str]:
    if not tokens:
        return
    label, *pairs = tokens
    number = _number(label)
    if number is None:
        yield f"label {label[:40]!r} is not a number"
    elif not math.isfinite(number):
        yield f"label {label} is not finite"
    before = -1
    for pair in pairs[1:] if pairs and pairs[0].startswith("qid:") else pairs:
        index, value = _entry(pair)
        if index is None or value is None:
            yield f"{pair[:40]!r} is not index:value"
            return
        yield from _entry_faults(pair, index, value, before)
        before = index


def _entry_faults(pair: str, index: int, value: float, before: int) -> Iterator[str]:
    if not 0 <= index <= MOST:
        yield f"index {index} is not in 0 … {MOST}"
    elif index <= before:
        yield f"index {index} comes behind {before}: indices must ascend, each once"
    if not abs(value) <= LARGEST:
        yield f"{pair[:40]!r} is not a finite number in float32"


def _entry(pair: str) -> tuple[int | None, float | None]:
    index, _, value = pair.partition(":")
    try:
        return int(index), _number(value)
    except ValueError:
        return None, None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None

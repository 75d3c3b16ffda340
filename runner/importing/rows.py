"""Evaluation files by the thousand as one table: files that share a header are parsed together."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from runner.importing.notices import Notices

if TYPE_CHECKING:
    import pyarrow as pa

OWNER = "owner"  # column: place of the file in the sequence
NO_NUMBER = ["", "nan", "NaN", "NAN", "None", "null", "NA", "N/A"]
MANY = 100  # files from which on threads help
File = tuple[int, str, list[str], bytes]  # owner, place, header, body


def table(contents: Sequence[bytes], places: Sequence[str], notices: Notices) -> pa.Table:
    """All rows, in order of file and line, one float64 column a name; a cell that is no number is NaN.

    Args:
        contents: what the CSV files hold.
        places: what to call them in a notice.
        notices: told of lines and cells that cannot be read.
    """
    import pyarrow as pa

    groups: dict[tuple[str, ...], list[File]] = {}
    for owner, (content, place) in enumerate(zip(contents, places, strict=True)):
        if (file := _file(owner, place, content)) is not None:
            groups.setdefault(tuple(file[2]), []).append(file)
    tables = [_group(list(header), files, notices) for header, files in groups.items()]
    empty = pa.table({OWNER: pa.array([], pa.float64())})
    whole = pa.concat_tables([empty, *tables], promote_options="default").combine_chunks()
    if len(tables) < 2:
        return whole
    import numpy as np

    # By owner alone and stable: a file's lines stay in their order.
    return whole.take(pa.array(np.argsort(whole[OWNER].to_numpy(), kind="stable")))


def _file(owner: int, place: str, content: bytes) -> File | None:
    text = content.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\0", b"").strip()
    head, _, body = text.partition(b"\n")
    header = [name.strip().strip('"') for name in head.decode("utf-8", "replace").split(",")]
    return (owner, place, header, body) if body else None


def _group(header: list[str], files: Sequence[File], notices: Notices) -> pa.Table:
    """Files of one header: at once, and where that fails one by one."""
    import pyarrow as pa

    if len(set(header)) == len(header) and OWNER not in header:
        try:
            return _parsed(header, files)
        except pa.ArrowInvalid:
            pass
    if len(files) == 1:
        return _patiently(header, files[0], notices)
    return pa.concat_tables([_group(header, [file], notices) for file in files])


def _parsed(header: list[str], files: Sequence[File]) -> pa.Table:
    """Every line gets the number of its file in front; pyarrow reads them all together."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    lines = [b"%d,%s\n" % (owner, body.replace(b"\n", b"\n%d," % owner)) for owner, _, _, body in files]
    names = [OWNER, *header]
    return arrow_csv.read_csv(
        pa.BufferReader(b"".join(lines)),
        read_options=arrow_csv.ReadOptions(column_names=names, use_threads=len(files) > MANY),
        convert_options=arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.float64()), null_values=NO_NUMBER
        ),
    )


def _patiently(header: list[str], file: File, notices: Notices) -> pa.Table:
    """A file that is not as it should be: what can be read of it."""
    import pyarrow as pa

    owner, place, _, body = file
    names = [name if header.index(name) == k else "" for k, name in enumerate(header)]
    if "" in names:
        notices.add("evaluations with a column twice or without a name, the first one used", place)
    columns: dict[str, list[float]] = {name: [] for name in names if name and name != OWNER}
    for line in csv.reader(io.StringIO(body.decode("utf-8", "replace"))):
        if [cell.strip() for cell in line] == header:
            notices.add("header repeated among the evaluations, skipped", place)
        elif len(line) != len(header):
            notices.add("line whose length differs from its header, skipped", place)
        else:
            for name, cell in zip(names, line, strict=True):
                if name in columns:
                    columns[name].append(_number(cell, f"{place}, {name}", notices))
    length = len(next(iter(columns.values()), []))
    arrays = {name: pa.array(values, pa.float64()) for name, values in columns.items()}
    return pa.table({OWNER: pa.array([float(owner)] * length, pa.float64()), **arrays})


def _number(cell: str, place: str, notices: Notices) -> float:
    try:
        return float(cell)
    except ValueError:
        if cell.strip() not in NO_NUMBER:
            notices.add("entry that is not a number, treated as NaN", place)
        return float("nan")

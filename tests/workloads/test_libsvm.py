"""LIBSVM files: read as a slow reference reads them; what breaks the format is named by file and line."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from runner.base.errors import UserError
from workloads.libsvm import MOST, line_of, read_rows, restrict, to_entries

MIXED = b"""\
# a comment, then an empty line

+1 1:0.5 3:-2e-1 7:1 # the end
-1 qid:4 2:3
1\t5:.25\r
-1
   \t
+1 1:0.5 3:-2e-1 7:1
"""
MIXED_LINES = [3, 4, 5, 6, 8]  # that hold the rows


def reference(text: bytes) -> tuple[list[float], list[dict[int, float]]]:
    """Labels and entries, in plain Python."""
    labels, rows = [], []
    for line in text.decode().splitlines():
        words = line.split("#")[0].split()
        if words:
            labels.append(float(words[0]))
            pairs = [word.split(":") for word in words[1:] if not word.startswith("qid")]
            rows.append({int(index): float(value) for index, value in pairs})
    return labels, rows


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def fault(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_rows(path)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 300
    return message


@pytest.mark.parametrize(
    "pack", [("", bytes), (".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)]
)
def test_rows_are_those_of_a_slow_reference(tmp_path: Path, pack) -> None:
    suffix, packed = pack
    rows = read_rows(write(tmp_path / f"mixed{suffix}", packed(MIXED)))
    labels, entries = reference(MIXED)
    dense = np.zeros((5, 8))
    for row, columns in enumerate(entries):
        for index, value in columns.items():
            dense[row, index] = value
    assert rows.y.tolist() == labels == [1, -1, 1, -1, 1]
    assert np.array_equal(rows.x.toarray(), dense)
    assert [line_of(tmp_path / f"mixed{suffix}", row) for row in range(5)] == MIXED_LINES


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"1 3:abc", "'3:abc' is not index:value"),
        (b"1 3", "'3' is not index:value"),
        (b"1 3:", "'3:' is not index:value"),
        (b"1 :3", "':3' is not index:value"),
        (b"1 3:1:2", "'3:1:2' is not index:value"),
        (b"1 2.5:1", "'2.5:1' is not index:value"),
        (b"1 \xff\xfe:1", "is not index:value"),
        (b"1 2:1 qid:3", "'qid:3' is not index:value"),
        (b"one 3:1", "label 'one' is not a number"),
        (b"1,2 3:1", "label '1,2' is not a number"),
        (b"nan 3:1", "label nan is not finite"),
        (b"-inf 3:1", "label -inf is not finite"),
        (b"1 3:nan", "'3:nan' is not a finite number"),
        (b"1 3:inf", "'3:inf' is not a finite number"),
        (b"1 3:1e39", "'3:1e39' is not a finite number in float32"),
        (b"1 -3:1", "index -3 is not in 0 … 16777215"),
        (b"1 16777216:1", "index 16777216 is not in 0 … 16777215"),
        (b"1 99999999999999999999:1", "index 99999999999999999999 is not in"),
        (b"1 5:1 3:1", "index 3 comes behind 5"),
        (b"1 5:1 5:1", "index 5 comes behind 5"),
    ],
)
def test_a_line_that_breaks_the_format_is_named(tmp_path: Path, line: bytes, says: str) -> None:
    path = write(tmp_path / "bad", MIXED + line + b"\n1 1:1\n")
    message = fault(path)
    assert message.startswith(f"{path}:9: ") and says in message


def test_the_largest_index_is_kept_exactly(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path / "wide", b"1 %d:2\n0 %d:3\n" % (MOST, MOST - 1)))
    entries = to_entries(rows.x)
    assert entries[:, 0, 0].long().tolist() == [MOST, MOST - 1]


@pytest.mark.parametrize("content", [b"", b"\n\n# nothing\n"])
def test_a_file_without_rows_is_named(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "empty", content)
    assert fault(path) == f"{path} holds no rows"


def test_a_file_of_labels_alone_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "labels", b"1\n0\n1\n")
    assert fault(path) == f"{path} holds labels alone, no index:value"


def test_a_missing_file_is_named_with_what_lies_there(tmp_path: Path) -> None:
    write(tmp_path / "heart_scale", b"")
    message = fault(tmp_path / "heart_scal")
    assert (
        message.startswith(f"no file {tmp_path / 'heart_scal'}: ") and "did you mean heart_scale?" in message
    )
    assert "workload.file" in fault(tmp_path / "no" / "folder" / "a9a")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert fault(tmp_path) == f"{tmp_path} cannot be read: Is a directory"


@pytest.mark.parametrize("name", ["a.GZ", "a.Bz2", "a.gzip", "a"])
def test_a_packed_file_is_unpacked_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    pack = bz2.compress if name == "a.Bz2" else gzip.compress
    (tmp_path / name).write_bytes(pack(MIXED))
    assert read_rows(tmp_path / name).y.tolist() == [1, -1, 1, -1, 1]
    assert line_of(tmp_path / name, 0) == MIXED_LINES[0]


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz"])
def test_a_compressed_file_that_is_damaged_is_named(tmp_path: Path, suffix: str) -> None:
    packed = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[suffix](MIXED * 99)
    contents = {"cut off": packed[: len(packed) // 2], "not packed": MIXED, "flipped": bytearray(packed)}
    contents["flipped"][len(packed) // 2] ^= 255
    for name, content in contents.items():
        path = write(tmp_path / f"{name}{suffix}", bytes(content))
        assert fault(path).startswith(str(path))


def test_columns_are_cut_and_made_up(tmp_path: Path) -> None:
    x = read_rows(write(tmp_path / "mixed", MIXED + b"1 2:0 4:9\n")).x
    whole = x.toarray()
    assert np.array_equal(restrict(x, 1, 4).toarray(), whole[:, 1:4])
    assert np.array_equal(restrict(x, 0, 11).toarray()[:, :8], whole)
    assert restrict(x, 0, 11).shape == (6, 11)
    assert restrict(x, 1, 8).nnz == np.count_nonzero(whole)  # the zero that was written out is gone


def test_entries_hold_every_value_and_fill_up_with_nothing(tmp_path: Path) -> None:
    x = read_rows(write(tmp_path / "mixed", MIXED)).x
    entries = to_entries(x).numpy()
    assert entries.shape == (5, 3, 2) and entries.dtype == np.float32
    dense = np.zeros(x.shape)
    for row, pairs in enumerate(entries):
        for index, value in pairs:
            dense[row, int(index)] += value
    assert np.allclose(dense, x.toarray(), atol=1e-7)


@pytest.mark.parametrize(
    ("encoding", "said"),
    [("utf-16", "is UTF-16 or no text: convert it with iconv"), ("utf-16-le", "is UTF-16 or no text"),
     ("utf-8-sig", "begins with a byte order mark: sed -i")],
)  # fmt: skip
def test_text_of_another_encoding_says_how_to_convert_it(tmp_path: Path, encoding: str, said: str) -> None:
    (tmp_path / "rows").write_bytes("1 1:0.5\n-1 2:1\n".encode(encoding))
    with pytest.raises(UserError, match=re.escape(f"rows {said}")) as caught:
        read_rows(tmp_path / "rows")
    if encoding == "utf-8-sig":
        command = str(caught.value).partition(": ")[2].removesuffix(" removes it")
        subprocess.run(["bash", "-c", f"{command} {tmp_path / 'rows'}"], check=True)
        assert read_rows(tmp_path / "rows").y.tolist() == [1, -1]

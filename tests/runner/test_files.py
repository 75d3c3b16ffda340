from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from runner.base.files import append_line, read_json, read_lines, write_atomic, write_json, write_text
from runner.contract.records import CellFolder


def test_a_write_that_breaks_off_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    write_json(path, {"a": 1})

    def broken(file: object) -> None:
        file.write(b'{"a": 2')  # pyright: ignore[reportAttributeAccessIssue]
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, broken)
    assert read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["status.json"]


def test_the_new_content_is_on_disk_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda name, to: (order.append("rename"), replace(name, to))[1])
    write_json(tmp_path / "x.json", {})
    assert order == ["fsync", "rename", "fsync"]  # the file, and then its folder


def test_all_of_the_content_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (sizes.append(os.fstat(fd).st_size), fsync(fd))[1])
    write_text(tmp_path / "x.txt", "twelve bytes")
    assert sizes[0] == 12
    append_line(tmp_path / "x.txt", "and 7 more"[:6])
    assert sizes[-1] == 12 + 7


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_are_for_whom_the_user_says(tmp_path: Path, mask: int) -> None:
    """And not for their owner alone, as temporary files are."""
    script = (
        "import sys, pathlib; from runner.base import files; files.write_json(pathlib.Path(sys.argv[1]), 1)"
    )
    line = ["sh", "-c", f'umask {mask:03o}; exec "$@"', "sh", sys.executable, "-c", script]
    subprocess.run([*line, str(tmp_path / "x.json")], check=True)
    assert stat.S_IMODE((tmp_path / "x.json").stat().st_mode) == 0o666 & ~mask


def test_an_append_that_the_disk_cuts_short_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:3]))
    with pytest.raises(OSError, match="3 of 6 bytes were written") as told:
        append_line(tmp_path / "x.jsonl", "12345")
    assert told.value.errno == errno.ENOSPC


@pytest.mark.parametrize("tail", ['{"eval_index": 2, "dra', "\x00\x00\x00", '{"eval_index": 2}', "[1, 2]\n"])
def test_a_torn_last_line_is_left_out(tmp_path: Path, tail: str) -> None:
    path = tmp_path / "evals.jsonl"
    append_line(path, '{"eval_index": 0}')
    append_line(path, '{"eval_index": 1}')
    with path.open("a") as file:
        file.write(tail)
    assert [row["eval_index"] for row in read_lines(path)] == [0, 1]


def test_damaged_and_absent_json_reads_as_none(tmp_path: Path) -> None:
    (tmp_path / "torn.json").write_text('{"a": ')
    (tmp_path / "list.json").write_text("[]")
    assert read_json(tmp_path / "torn.json") is None
    assert read_json(tmp_path / "list.json") is None
    assert read_json(tmp_path / "absent.json") is None


def test_a_resume_cuts_the_rows_behind_its_checkpoint(tmp_path: Path) -> None:
    folder = CellFolder(tmp_path)
    for index in range(5):
        folder.append_eval({"eval_index": index})
    folder.keep_evals(3)
    folder.append_eval({"eval_index": 3, "again": True})
    assert [row["eval_index"] for row in folder.evals()] == [0, 1, 2, 3]
    assert folder.evals()[-1]["again"]
    with pytest.raises(ValueError, match="holds 4"):
        folder.keep_evals(9)


def test_only_known_statuses_are_written(tmp_path: Path) -> None:
    folder = CellFolder(tmp_path)
    assert folder.status() == {"status": "pending"}
    folder.fail("two\nlines  of text", "traceback")
    assert folder.status()["status"] == "failed" and folder.status()["error"] == "two lines of text"
    with pytest.raises(ValueError, match="finished"):
        folder.set_status("finished")

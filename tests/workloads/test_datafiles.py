"""Checksums of data files, and the memory of them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from runner.base.errors import UserError
from workloads import datafiles
from workloads.datafiles import STAMPS, check_file, obtain

CONTENT = b"seven rows"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.bin"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose content was read, in order."""
    seen: list[Path] = []
    real = datafiles.checksum
    monkeypatch.setattr(datafiles, "checksum", lambda path: (seen.append(path), real(path))[1])
    return seen


def test_a_good_file_is_read_once(file: Path, reads: list[Path]):
    for _ in range(3):
        check_file(file, SHA256)
    assert reads == [file]


def test_a_changed_file_is_read_again_and_caught(file: Path, reads: list[Path]):
    check_file(file, SHA256)
    before = file.stat()
    file.write_bytes(CONTENT[::-1])
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))  # file systems differ in resolution
    with pytest.raises(UserError, match=r"rows\.bin is damaged"):
        check_file(file, SHA256)
    assert reads == [file, file]


def test_a_change_of_size_alone_is_caught(file: Path):
    check_file(file, SHA256)
    before = file.stat()
    file.write_bytes(CONTENT + b"!")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(UserError, match="damaged"):
        check_file(file, SHA256)


def test_damage_is_never_remembered_as_good(file: Path):
    file.write_bytes(b"torn")
    for _ in range(2):
        with pytest.raises(UserError, match="damaged"):
            check_file(file, SHA256)


def test_another_expected_checksum_is_not_answered_from_memory(file: Path):
    check_file(file, SHA256)
    with pytest.raises(UserError, match="damaged"):
        check_file(file, "0" * 64)


def test_files_of_one_folder_keep_their_own_memory(file: Path, reads: list[Path]):
    other = file.with_name("other.bin")
    other.write_bytes(b"other")
    for _ in range(2):
        check_file(file, SHA256)
        check_file(other, hashlib.sha256(b"other").hexdigest())
    assert reads == [file, other]


def test_a_memory_that_cannot_be_written_is_done_without(file: Path, reads: list[Path]):
    (file.parent / STAMPS).mkdir()  # cannot be replaced by a file, even by root
    for _ in range(2):
        check_file(file, SHA256)
    assert reads == [file, file]
    assert sorted(p.name for p in file.parent.iterdir()) == [STAMPS, file.name]


@pytest.mark.parametrize("memory", ["", "[1]", '{"rows.bin": 3}', '{"rows.bin": {"size": 10}}', "{torn"])
def test_a_damaged_memory_is_done_without(file: Path, memory: str):
    (file.parent / STAMPS).write_text(memory)
    check_file(file, SHA256)
    assert json.loads((file.parent / STAMPS).read_text())[file.name]["sha256"] == SHA256


def test_a_missing_file_is_the_users_error(tmp_path: Path):
    with pytest.raises(UserError, match=r"rows\.bin cannot be read: No such file"):
        check_file(tmp_path / "rows.bin", SHA256)


def test_a_missing_file_is_fetched_once_and_whole(tmp_path: Path):
    source, target = tmp_path / "source.txt", tmp_path / "data" / "text" / "copy.txt"
    source.write_bytes(b"to be")
    right = hashlib.sha256(b"to be").hexdigest()
    obtain(target, source.as_uri(), right, "get it")
    source.unlink()
    obtain(target, source.as_uri(), right, "get it")  # from now on nothing is fetched
    assert target.read_bytes() == b"to be"
    assert [p.name for p in target.parent.iterdir() if not p.name.startswith(".")] == ["copy.txt"]


@pytest.mark.parametrize("what", ["other bytes", "nothing there", "off"])
def test_what_cannot_be_fetched_leaves_nothing_and_says_what_to_do(tmp_path: Path, what: str):
    source, target = tmp_path / "source.txt", tmp_path / "data" / "copy.txt"
    if what == "other bytes":
        source.write_bytes(b"not to be")
    url = None if what == "off" else source.as_uri()
    with pytest.raises(UserError, match=r"^no .*copy\.txt: put it there \(.+\)$") as caught:
        obtain(target, url, hashlib.sha256(b"to be").hexdigest(), "put it there")
    assert "\n" not in str(caught.value)
    assert not target.parent.exists() or list(target.parent.iterdir()) == []


def test_a_file_that_is_there_must_be_the_right_one(tmp_path: Path):
    path = tmp_path / "copy.txt"
    path.write_bytes(b"not to be")
    with pytest.raises(UserError, match="damaged, or another file of that name"):
        obtain(path, None, hashlib.sha256(b"to be").hexdigest(), "put it there")

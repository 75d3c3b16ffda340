"""Files and exceptions that hold what no file of ours would: damage is passed over, what happened is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.base.errors import one_line
from runner.base.files import read_json, read_lines
from runner.cells.launches import Launch, launches
from runner.cells.tables import load
from runner.contract.records import CellFolder
from runner.status import main as status
from runner.train.session import run_cell
from tests.runner.test_cells import faulty

DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("double", "said"),
    [
        ("RaisesSpeechless", "SpeechlessError, whose message cannot be printed"),
        ("RaisesSpeechlessUserError", "SpeechlessUserError, whose message cannot be printed"),
        ("RaisesSpeechlessMemoryError", "SpeechlessMemoryError, whose message cannot be printed"),
        ("RaisesAtLength", one_line("ValueError: " + "at length " * 100)),
        ("RaisesAtTheBase", "GeneratorExit: no Exception"),
        ("RaisesHalfACharacter", "ValueError: half a character: \\ud800"),
    ],
)
def test_an_exception_that_cannot_be_written_is_recorded_all_the_same(
    tmp_path: Path, double: str, said: str
) -> None:
    c = faulty(tmp_path, double)
    c.submit()
    assert run_cell(c.folder.path)["error"] == said
    assert c.folder.status()["status"] in ("failed", "oom") and "go_wrong" in c.folder.error_file.read_text()
    assert c.folder.error_file.stat().st_size < 200_000
    cells, _ = load(c.folder.path.parent.parent)
    cells.to_parquet(tmp_path / "cells.parquet")


@pytest.mark.parametrize("text", ['{"a": 1}', '{"status": 3}', DEEP, "[]", ""])
def test_a_status_that_is_none_is_pending(tmp_path: Path, text: str) -> None:
    folder = CellFolder(tmp_path / "experiment" / "cells" / "x")
    folder.path.mkdir(parents=True)
    folder.config_file.write_text("id: x\n")
    folder.status_file.write_text(text)
    assert folder.status() == {"status": "pending"}
    assert status([str(tmp_path / "experiment"), "--once"]) == 0


def test_json_that_is_nested_too_deep_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "deep").write_text(f'{{"a": 1}}\n{{"b": {DEEP}}}\n')
    assert read_lines(tmp_path / "deep") == [{"a": 1}]
    assert read_json(tmp_path / "deep") is None


def test_a_list_of_cells_that_is_not_utf8_is_read(tmp_path: Path) -> None:
    launch = Launch.create(tmp_path, "local", {})
    (launch.path / "cells.txt").write_bytes(b"one\n\xff\xfe\n")
    assert launch.names()[0] == "one" and len(launch.names()) == 2
    assert [json.dumps(found.record["launcher"]) for found in launches(tmp_path)] == ['"local"']

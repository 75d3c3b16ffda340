"""Every number of a published board comes out again; whatever was changed or damaged is found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from published_boards import Capture, checked, contents, edit, grid, here, published, record

from runner import score
from runner.base.files import append_line
from runner.boards import publish
from tests.experiments import Said, refusal

__all__ = ["here"]  # a fixture that is used by every test


def test_a_changed_number_in_the_tables_is_found(capsys: Capture) -> None:
    board = published(capsys, grid())
    whole = contents(board)

    def found(name: str) -> Said:
        said = checked(capsys, board)
        assert said.code == 1 and said.err == "" and "every number" not in said.out
        (board / name).write_bytes(whole[name])
        return said

    edit(board / "leaderboard.csv", "1100.0", "1101.0")
    assert found("leaderboard.csv").lines[0].startswith("leaderboard.csv: digits/median of adamw is 1101.0")
    edit(board / "leaderboard.csv", "adamw", "adamx")
    assert found("leaderboard.csv").lines == ["leaderboard.csv: rows or columns differ"]
    edit(board / "leaderboard.md", "1,100", "1,101")
    assert "1,101" in found("leaderboard.md").out
    (board / "leaderboard.md").write_bytes(whole["leaderboard.md"] + b"more\n")
    assert found("leaderboard.md").lines == ["leaderboard.md: number of lines differs"]
    cells = pd.read_parquet(board / "cells.parquet")
    cells.loc[cells["id"] == "lion00digits", "samples_to_target"] -= 100
    cells.to_parquet(board / "cells.parquet")
    said = found("cells.parquet")
    assert any(line.startswith("leaderboard.csv: digits/median of lion is 2300.0") for line in said.lines)
    assert any(line.startswith("leaderboard.md: ") for line in said.lines)
    edit(board / "board.json", '"target": 0.97', '"target": 0.5')
    assert found("board.json").lines == ["workloads and targets are not those of board.json"]
    edit(board / "board.json", '"tau_max": 4.0', '"tau_max": 2.0')
    assert any("score of lion" in line for line in found("board.json").lines)
    edit(board / "manifest.json", '"a processor"', '"a better one"')
    assert "a better one" in found("manifest.json").out


def test_a_row_that_is_gone_or_doubled_is_found(capsys: Capture) -> None:
    board = published(capsys, grid())
    cells = pd.read_parquet(board / "cells.parquet")
    cells.iloc[:-1].to_parquet(board / "cells.parquet")
    assert checked(capsys, board).code == 1
    pd.concat([cells, cells.iloc[:1]]).to_parquet(board / "cells.parquet")
    assert f"holds {cells['id'][0]} twice" in refusal(score.main, capsys, board, "--check")


def test_the_check_does_not_depend_on_where_it_is_called_from(
    capsys: Capture, here: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    board = published(capsys, grid())
    assert checked(capsys, here / board).code == 0
    monkeypatch.chdir(board)
    assert checked(capsys, Path()).code == 0
    elsewhere = tmp_path_factory.mktemp("copy") / "renamed"
    shutil.copytree(here / board, elsewhere)
    assert checked(capsys, elsewhere).code == 0


UNREADABLE = "cannot be read"
DAMAGE = {
    "cells.parquet": UNREADABLE, "evals.parquet": UNREADABLE, "configs.jsonl.gz": UNREADABLE,
    "leaderboard.csv": UNREADABLE, "leaderboard.md": UNREADABLE, "board.json": "is damaged",
    "manifest.json": "is damaged",
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files_are_one_line(capsys: Capture, name: str) -> None:
    board = published(capsys, grid())
    whole = (board / name).read_bytes()
    middle = len(whole) // 2
    damages = [b"\xff\xfe\x00torn"]
    if not name.startswith("leaderboard"):  # there that is another text, not a damaged one
        damages.append(whole[:middle])
    if name.endswith(".gz"):
        flipped = bytes(255 - byte for byte in whole[middle : middle + 40])
        damages.append(whole[:middle] + flipped + whole[middle + 40 :])
    for damage in damages:
        (board / name).write_bytes(damage)
        line = refusal(score.main, capsys, board, "--check")
        assert name in line and DAMAGE[name] in line, line
    (board / name).unlink()
    gone = "holds no cells" if name == "board.json" else name
    assert gone in refusal(score.main, capsys, *([board] if name == "board.json" else [board, "--check"]))


@pytest.mark.parametrize("column", ["id", "workload", "status", "best_metric", "samples_to_target"])
def test_a_table_without_a_column(capsys: Capture, column: str) -> None:
    board = published(capsys, grid())
    pd.read_parquet(board / "cells.parquet").drop(columns=column).to_parquet(board / "cells.parquet")
    for options in ((), ("--check",)):
        assert f"no column {column}" in refusal(score.main, capsys, board, *options)


@pytest.mark.parametrize(
    "change",
    [{"rules": []}, {"rules": {"zap": 1}}, {"boards": 3}, {"boards": [{"title": "x"}]}, {"headline": None}],
    ids=str,
)
def test_a_record_that_makes_no_sense(capsys: Capture, change: dict) -> None:
    board = published(capsys, grid())
    (board / "board.json").write_text(json.dumps({**record(board), **change}))
    line = refusal(score.main, capsys, board, "--check")
    assert "damaged" in line or "newer version" in line


def test_disputes_stand_on_the_page_and_the_last_rerun_counts(capsys: Capture) -> None:
    board = published(capsys, grid())
    row = {"id": "lion00digits", "label": "lion", "title": "digits · lion · study 0 · trial 0"}
    row |= {"why": "because", "machine": "m", "date": "2026-01-02"}
    append_line(board / "verifications.jsonl", json.dumps({**row, "verdict": "disputed"}))
    assert checked(capsys, board).code == 1  # the page does not say so yet
    publish.refresh(board)
    assert checked(capsys, board).code == 0
    page = (board / "leaderboard.md").read_text()
    assert "> **disputed: digits · lion · study 0 · trial 0: because (m, 2026-01-02)**" in page
    assert (
        "| lion (disputed) |" in page
        and "Rerun so far: 1 disputed." in page
        and "adamw (disputed)" not in page
    )
    append_line(board / "verifications.jsonl", json.dumps({**row, "verdict": "same"}))
    publish.refresh(board)
    page = (board / "leaderboard.md").read_text()
    assert "disputed" not in page and "Rerun so far: 1 same." in page and checked(capsys, board).code == 0

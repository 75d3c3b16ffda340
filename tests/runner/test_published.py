"""Every published board is scored again from its own tables, and every printed number comes out."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner import score
from tests.conftest import ROOT
from tests.experiments import call

HOME = ROOT / "results" / "leaderboards"
BOARDS = sorted(path.parent for path in HOME.glob("*/board.json"))


def test_the_projects_own_board_is_there() -> None:
    assert "embedded-v1" in [board.name for board in BOARDS]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_every_number_comes_out_again(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = call(score.main, capsys, board, "--check")
    assert (said.code, said.err) == (0, ""), said.out
    assert said.out.endswith("every number reproduced\n")


@pytest.mark.parametrize(
    "folder", sorted(path for path in HOME.glob("*/") if path.is_dir()), ids=lambda f: f.name
)
def test_no_folder_is_half_a_board(folder: Path) -> None:
    assert (folder / "board.json").is_file()

"""One's own algorithm on a published board, without a run of the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner import load, score
from tests.experiments import Said, call, refusal, write_cell, write_grid

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Path:
    """Two algorithms on two workloads, published."""
    monkeypatch.chdir(tmp_path)
    times = {
        (w, a): [at, at + 100] for w in ("digits", "w") for a, at in (("adamw", 1000.0), ("lion", 2000.0))
    }
    write_grid(Path("results/theirs"), times, ruleset="external_tuning")
    assert call(score.main, capsys, "results/theirs", "--publish", "--as", "ours").code == 0
    return Path("results/leaderboards/ours")


def shown(capsys: Capture, *args: object) -> Said:
    said = call(score.main, capsys, "results/mine", "--against", *args)
    assert said.code == 0, said.err
    return said


@pytest.mark.parametrize("name", ["ours", "results/leaderboards/ours"])
def test_ones_own_rows_beside_the_published_ones(board: Path, capsys: Capture, name: str) -> None:
    before = {path: path.read_bytes() for path in board.iterdir()}
    mine = {
        ("digits", "mine"): [500.0],
        ("w", "mine"): [600.0],
        ("digits", "lion"): [9.0],
        ("x", "mine"): [1.0],
    }
    write_grid(Path("results/mine"), mine, ruleset="external_tuning", sources={"runner.train.loop": "other"})
    said = shown(capsys, name)
    assert said.row("mine")[0] == "1" and {"adamw", "lion", "lion (mine)"} <= {
        r.split("|")[2].strip() for r in said.lines if r.count("|") > 3
    }
    assert said.lines[0].startswith(
        "lion (mine), mine: of results/mine; the other rows are those published in ours"
    )
    assert {path: path.read_bytes() for path in board.iterdir()} == before
    assert not Path("results/mine/leaderboard.csv").exists()


def test_cells_that_were_trained_otherwise_come_with_the_command(board: Path, capsys: Capture) -> None:
    ran = ["algorithm=mine", "workload=digits", "study=3", "algorithm.optimizer.lr=0.5", "name=mine"]
    write_cell(Path("results/mine"), "mine", overrides=ran)
    line = refusal(score.main, capsys, "results/mine", "--against", "ours")
    assert (
        "no cell of results/mine was trained like those of ours (embedded data, external tuning: digits, w)"
        in line
    )
    assert (
        "train mine this way: python -m runner -m algorithm=mine algorithm.optimizer.lr=0.5 "
        "workload=digits,w ruleset=external_tuning ruleset.studies=2" in line
    )
    assert line.endswith(" name=mine")
    assert "did you mean ours?" in refusal(score.main, capsys, "results/mine", "--against", "our")
    assert "only displays" in refusal(score.main, capsys, "results/mine", "--against", "ours", "--publish")


def test_a_published_board_loads(board: Path) -> None:
    cells, evals = load(board)
    assert len(cells) == 8 and {"id", "workload", "label", "study", "trial"} <= set(evals)

"""Boards that are published below a temporary working directory."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from runner import score
from tests.experiments import Said, call, write_grid

Capture = pytest.CaptureFixture[str]
V06 = Path(__file__).parent.parent / "data_algoperf" / "v06_trimmed.tar.xz"
HOME = Path("results/leaderboards")
GRID = {("digits", "adamw"): [1000, 1200], ("digits", "lion"): [2000, 2600], ("mnist", "adamw"): [700],
        ("mnist", "lion"): [None]}  # fmt: skip
FILES = {
    "board.json", "cells.parquet", "configs.jsonl.gz", "evals.parquet", "leaderboard.csv", "leaderboard.md",
    "manifest.json",
}  # fmt: skip
SECRET = "/home/somebody/secret"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Boards are published below the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def grid(name: str = "exp", times: Any = GRID, **more: Any) -> Path:
    folder = Path("results") / name
    for cell in write_grid(folder, times, **more):
        cell.append_eval(
            {"eval_index": 0, "steps": 0, "validation/accuracy": 0.5, "clock/train": 0.123456789}
        )
        cell.append_eval({"eval_index": 1, "steps": 9, "validation/accuracy": 0.98, "clock/train": 1.0})
    return folder


def scored(capsys: Capture, *args: object) -> Said:
    said = call(score.main, capsys, *args)
    assert said.code == 0, said.err
    return said


def published(capsys: Capture, *args: object) -> Path:
    """The board that was published."""
    line = next(line for line in scored(capsys, *args, "--publish").lines if line.startswith("published: "))
    return Path(line.removeprefix("published: ").partition(",")[0])


def checked(capsys: Capture, board: Path) -> Said:
    return call(score.main, capsys, board, "--check")


def contents(board: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in board.iterdir()}


def record(board: Path) -> dict[str, Any]:
    return json.loads((board / "board.json").read_text())


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def every_byte(board: Path) -> str:
    """All that a board's files hold, unpacked."""
    found = []
    for path in board.iterdir():
        if path.suffix == ".parquet":
            frame = pd.read_parquet(path)
            found += [",".join(map(str, frame.columns)), frame.to_csv(), repr(frame.attrs)]
        elif path.suffix == ".gz":
            found.append(gzip.decompress(path.read_bytes()).decode())
        found.append(path.read_bytes().decode(errors="replace"))
    return "\n".join(found)

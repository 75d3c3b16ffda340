"""Which cells share a board, which never do, and what a reader is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from runner import score
from runner.stats.comparable import Difference, data_kind, differences, parts, titles, twins
from tests.experiments import Said, call, refusal, write_cell

Capture = pytest.CaptureFixture[str]


def pair(folder: Path, first: dict[str, Any], second: dict[str, Any], **both: Any) -> Path:
    """Cells of a and b that differ in what is given."""
    write_cell(folder, "a", at=1000, **both, **first)
    write_cell(folder, "b", at=2000, **both, **second)
    return folder


def scored(capsys: Capture, *args: object) -> Said:
    said = call(score.main, capsys, *args)
    assert said.code == 0, said.err
    return said


def headings(said: Said) -> list[str]:
    return [line for line in said.lines if line.startswith("On ")]


# -- boards of their own -----------------------------------------------------------------------------


def test_each_kind_of_data_has_its_own_board(tmp_path: Path, capsys: Capture) -> None:
    kinds = {"digits": "embedded", "drawn": "synthetic", "cifar10": "real", "cifar10_npz": "jpeg75"}
    for workload, data in kinds.items():
        pair(tmp_path, {}, {}, workload=workload, data=data)
    said = scored(capsys, tmp_path)
    assert headings(said) == ["On embedded data", "On jpeg75 data", "On real data"]
    assert said.out.count("2 workloads, by samples") == 1 and said.out.count("1 workload, by samples") == 2
    board = pd.read_csv(tmp_path / "leaderboard.csv")
    assert board["data"].tolist() == ["embedded"] * 2 + ["jpeg75"] * 2 + ["real"] * 2
    assert board["rank"].tolist() == [1, 2] * 3 and board["score"].tolist() == pytest.approx([1, 2 / 3] * 3)
    page = (tmp_path / "leaderboard.md").read_text()
    assert [line for line in page.splitlines() if line.startswith("## On")] == [
        f"## {heading}" for heading in headings(said)
    ]


def test_rulesets_are_scored_apart(tmp_path: Path, capsys: Capture) -> None:
    for ruleset, label in (("external_tuning", "a"), ("self_tuning", "b"), (None, "c")):
        write_cell(tmp_path, label, ruleset=ruleset)
    said = scored(capsys, tmp_path)
    assert headings(said) == [
        "On embedded data", "On embedded data, external tuning", "On embedded data, self tuning"
    ]  # fmt: skip
    assert pd.read_csv(tmp_path / "leaderboard.csv")["rank"].tolist() == [1, 1, 1]


def test_the_open_division_is_ranked_apart_unless_asked_for(tmp_path: Path, capsys: Capture) -> None:
    pair(tmp_path, {}, {"open_division": True})
    write_cell(tmp_path, "b", study=1, status="failed")  # which does not say its division
    said = scored(capsys, tmp_path)
    assert headings(said) == ["On embedded data", "On embedded data, open division"]
    assert said.row("b")[:3] == ["1", "b", "1.000"]
    together = scored(capsys, tmp_path, "--together")
    assert headings(together) == [] and together.row("b (open)")[:3] == ["2", "b (open)", "0.667"]
    assert together.row("a")[:2] == ["1", "a"]
    board = pd.read_csv(tmp_path / "leaderboard.csv").set_index("label")
    assert board["open"].to_dict() == {"a": False, "b": True}
    assert "b (open)" in (tmp_path / "leaderboard.md").read_text()


def test_a_part_without_a_board_is_said_on_the_others(tmp_path: Path, capsys: Capture) -> None:
    pair(tmp_path, {}, {})
    write_cell(tmp_path, "a", "imagenet", data="real", status="failed")
    said = scored(capsys, tmp_path)
    assert "real data: nothing to rank: 1 failed; no workload has a target" in said.lines


def test_a_baseline_that_one_part_lacks_is_a_baseline_on_the_other(tmp_path: Path, capsys: Capture) -> None:
    pair(tmp_path, {}, {}, workload="digits")
    for label in ("c", "d"):
        write_cell(tmp_path, label, "cifar10", data="real")
    scored(capsys, tmp_path, "--baseline", "b")
    board = pd.read_csv(tmp_path / "leaderboard.csv").set_index("label")
    assert board.loc["a", "speedup"] == 2 and board.loc[["c", "d"], "speedup"].isna().all()
    assert board["baseline"].fillna("none").tolist() == ["b", "b", "none", "none"]


# -- refused, whatever the unit ----------------------------------------------------------------------

ALWAYS = [
    ("target", {"target": 0.97}, {"target": 0.9}, "target of digits is 0.9 (1 cell: "),
    ("targets", {"targets": "v1"}, {"targets": "v2"}, "targets is v1 (1 cell: "),
    ("data_checksum", {"data": "embedded"}, {"data": "embedded"}, "data_checksum of digits is "),
    ("budget", {"budget": 2000}, {"budget": 4000}, "budget of digits is 2000 (1 cell: "),
    ("precision", {"precision": "fp32"}, {"precision": "bf16"}, "precision of digits is bf16 (1 cell: "),
    ("minimize", {"minimize": False}, {"minimize": True}, "minimize of digits is False (1 cell: "),
    ("source", {"source": "s1", "sources": {"runner.x": "1", "x": "1"}},
     {"source": "s2", "sources": {"runner.x": "2", "y": "1"}}, "source (runner.x) is 1 (1 cell: "),
]  # fmt: skip


@pytest.mark.parametrize(("what", "first", "second", "words"), ALWAYS, ids=[row[0] for row in ALWAYS])
def test_refused_by_every_unit(
    tmp_path: Path, capsys: Capture, what: str, first: dict, second: dict, words: str
) -> None:
    pair(tmp_path, first, second)
    if what == "data_checksum":
        other = next((tmp_path / "cells").glob("*.b.*")) / "manifest.json"
        other.write_text(other.read_text().replace('"train": "1"', '"train": "2"'))
    for by in ("samples", "seconds", "steps"):
        line = refusal(score.main, capsys, tmp_path, "--by", by)
        assert line.startswith("these cells cannot share a leaderboard: ") and words in line
        assert "digits · a · study 0 · trial 0" in line and "digits · b · study 0 · trial 0" in line
        assert "--allow-mixed ranks them anyway" in line and "--by samples" not in line
    said = scored(capsys, tmp_path, "--allow-mixed")
    noted = [line for line in said.lines if line.startswith("mixed, on request: ")]
    assert len(noted) == 1 and words in noted[0] and noted[0] in said.lines[:2]
    page = (tmp_path / "leaderboard.md").read_text()
    assert page.index("mixed, on request") < page.index("| algorithm |")


def test_modules_that_cells_do_not_share_may_differ(tmp_path: Path, capsys: Capture) -> None:
    """Two algorithms have two sources; what both use is one."""
    pair(tmp_path, {"source": "s1", "sources": {"m": "1", "a": "1"}}, {"source": "s2", "sources": {"m": "1"}})
    for by in ("samples", "seconds", "steps"):
        scored(capsys, tmp_path, "--by", by)


def test_unlike_goals_of_unlike_workloads_are_no_difference(tmp_path: Path, capsys: Capture) -> None:
    for label in "ab":
        write_cell(tmp_path, label, "v", target=0.9, budget=10, precision="bf16")
        write_cell(tmp_path, label, "w", target=0.8, budget=20)
    scored(capsys, tmp_path)


def test_unfinished_cells_are_never_unlike(tmp_path: Path, capsys: Capture) -> None:
    pair(tmp_path, {}, {})
    write_cell(tmp_path, "b", study=1, status="failed", targets="v2", precision="bf16", source="other",
               sources={"runner.train.loop": "0"})  # fmt: skip
    scored(capsys, tmp_path, "--by", "seconds")


# -- refused where the unit makes them unlike --------------------------------------------------------

BY_SECONDS = [
    ("device", {"device": "cpu"}, {"device": "cuda"}, "device of digits is cpu (1 cell: digits · a · "),
    ("hardware", {}, {"hardware": {"device": "H100"}}, "hardware of digits is H100 (1 cell: digits · b · "),
    ("threads", {"threads": 1}, {"threads": 4}, "threads of digits is 1 (1 cell: digits · a · "),
    ("driver", {"gpu": {"driver": "550.54"}}, {"gpu": {"driver": "560.1"}}, "driver of digits is 550.54 (1 "),
    ("cuda", {"gpu": {"cuda": "12.6"}}, {"gpu": {"cuda": "13.0"}}, "cuda of digits is 12.6 (1 cell: "),
    ("cudnn", {"gpu": {"cudnn": "91002"}}, {"gpu": {"cudnn": "90100"}}, "cudnn of digits is 90100 (1 cell: "),
    ("power", {"gpu": {"power_limit_w": 700.0}}, {"gpu": {"power_limit_w": 350.0}},
     "power_limit_w of digits is 350 (1 cell: digits · b · "),
    ("contended", {"contended": False}, {"contended": True}, "contended is true (1 cell: digits · b · "),
]  # fmt: skip


@pytest.mark.parametrize(("what", "first", "second", "words"), BY_SECONDS, ids=[row[0] for row in BY_SECONDS])
def test_refused_by_seconds_alone(
    tmp_path: Path, capsys: Capture, what: str, first: dict, second: dict, words: str
) -> None:
    pair(tmp_path, first, second)
    line = refusal(score.main, capsys, tmp_path, "--by", "seconds")
    assert words in line
    assert line.endswith("(--by samples compares them, --allow-mixed ranks them anyway)")
    for by in ("samples", "steps"):
        assert "mixed" not in scored(capsys, tmp_path, "--by", by).out
    assert words in scored(capsys, tmp_path, "--by", "seconds", "--allow-mixed").out


def test_another_gpu_of_one_kind_is_the_same_machine(tmp_path: Path, capsys: Capture) -> None:
    """A grid over the four GPUs of a machine has seconds that compare."""
    pair(tmp_path, {"gpu": {"uuid": "a", "driver": "550.54"}}, {"gpu": {"uuid": "b", "driver": "550.54"}})
    scored(capsys, tmp_path, "--by", "seconds")


def test_steps_of_unlike_size(tmp_path: Path, capsys: Capture) -> None:
    pair(tmp_path, {}, {"drawn": 8000})  # 40 rows a step, the other 10
    line = refusal(score.main, capsys, tmp_path, "--by", "steps")
    assert "batch size of digits is 10 (1 cell: digits · a" in line and "40 (1 cell: digits · b" in line
    assert "--by samples compares them" in line
    for by in ("samples", "seconds"):
        scored(capsys, tmp_path, "--by", by)


def test_no_advice_that_does_not_help(tmp_path: Path, capsys: Capture) -> None:
    """By samples the targets would still differ."""
    pair(tmp_path, {"threads": 1}, {"threads": 2, "target": 0.5})
    line = refusal(score.main, capsys, tmp_path, "--by", "seconds")
    assert "threads" in line and "target of digits" in line and "--by samples" not in line


def test_a_long_list_of_cells_is_cut(tmp_path: Path, capsys: Capture) -> None:
    for study in range(5):
        pair(tmp_path, {"threads": 1}, {"threads": 2}, study=study)
    line = refusal(score.main, capsys, tmp_path, "--by", "seconds")
    assert "threads of digits is 1 (5 cells: digits · a · study 0 · trial 0" in line and "and 2 more)" in line


def test_two_cells_in_one_place(tmp_path: Path, capsys: Capture) -> None:
    write_cell(tmp_path, "a", id="one")
    write_cell(tmp_path, "a", id="two", at=3)
    write_cell(tmp_path, "b")
    line = refusal(score.main, capsys, tmp_path, "--allow-mixed")
    assert "2 cells claim digits · a · study 0 · trial 0: one and two" in line and "label=NAME" in line
    write_cell(tmp_path, "a", id="two", status="failed")
    assert scored(capsys, tmp_path).row("a")[:3] == ["1", "a", "1.000"]


# -- the functions, on tables as they come from elsewhere --------------------------------------------


def table(**columns: list) -> pd.DataFrame:
    number = len(next(iter(columns.values())))
    place = {"workload": ["w"] * number, "label": list("abcdefgh"[:number]), "study": [0] * number}
    place |= {"trial": [0] * number, "status": ["done"] * number, "id": list("12345678"[:number])}
    return pd.DataFrame(place | columns)


def test_what_a_table_does_not_say_is_no_difference() -> None:
    for by in ("samples", "seconds", "steps"):
        assert differences(table(threads=[1, None], target=[None, 0.5], device=[None, None]), by) == []
        assert differences(table(metric=["x", "x"]), by, {"s": {"m": "1"}}) == []
    assert [part.title for part in parts(table(metric=["x", "x"]))] == ["unknown data"]
    assert twins(table(metric=["x", "x"])) == []


def test_a_difference_in_words() -> None:
    (found,) = differences(table(target=[0.5, 0.25, 0.5]))
    a, b, c = (f"w · {label} · study 0 · trial 0" for label in "abc")
    assert found == Difference("target", "w", {"0.25": [b], "0.5": [a, c]})
    assert str(found) == (
        "target of w is 0.25 (1 cell: w · b · study 0 · trial 0) and "
        "0.5 (2 cells: w · a · study 0 · trial 0, w · c · study 0 · trial 0)"
    )


def test_kinds_of_data() -> None:
    assert [data_kind(kind) for kind in ("synthetic", "embedded", "real", None, float("nan"))] == [
        "embedded", "embedded", "real", "unknown", "unknown"
    ]  # fmt: skip


def test_every_row_is_in_one_part() -> None:
    cells = table(
        data=["real", "embedded", None, "real"], ruleset=[None, "x", None, "x"],
        open_division=[True, False, None, pd.NA],
    )  # fmt: skip
    found = parts(cells)
    assert sorted(title for part in found for title in titles(part.cells)) == sorted(titles(cells))
    assert [part.open_division for part in found].count(True) == 1
    assert not any(part.open_division for part in parts(cells, together=True))

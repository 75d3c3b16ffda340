"""``--json``: one document on standard output, nothing else there, the exit code as without it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runner import compare, doctor, score, status
from runner.base.cli import print_json
from runner.base.paths import ROOT
from runner.check import __main__ as check
from runner.check import suite
from runner.check.result import Result, failed
from runner.check.subject import Subject
from runner.methods import __main__ as methods
from tests.experiments import call, write_cell, write_grid

Main = Callable[[Sequence[str] | None], int]
Capture = pytest.CaptureFixture[str]


def document(capsys: Capture, main: Main, *args: object, code: int = 0) -> Any:
    """What a program reads; strictly JSON, without NaN."""
    said = call(main, capsys, *args, "--json")
    assert said.code == code, said.err
    return json.loads(said.out, parse_constant=pytest.fail)


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """adamw hits on both workloads, lion on one."""
    write_grid(tmp_path / "two", {("digits", "adamw"): [1000, 1000], ("digits", "lion"): [2500, 2500]})
    write_grid(tmp_path / "two", {("mnist", "adamw"): [900, 900], ("mnist", "lion"): [None, None]})
    return tmp_path / "two"


def test_a_board(experiment: Path, capsys: Capture) -> None:
    told = document(capsys, score.main, experiment)
    (board,) = told["boards"]
    assert [(row["rank"], row["label"]) for row in board["ranking"]] == [(1, "adamw"), (2, "lion")]
    assert {(row["workload"], row["label"]) for row in board["workloads"]} == {
        (workload, label) for workload in ("digits", "mnist") for label in ("adamw", "lion")
    }
    assert board["rules"]["by"] == "samples" and board["goals"]["digits"]["metric"] == "accuracy"
    assert board["cells"] == 8 and told["folder"] == str(experiment)


def test_what_a_board_writes_is_told_beside_the_document(experiment: Path, capsys: Capture) -> None:
    assert score.main([str(experiment), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["boards"] and err == f"report: {experiment / 'report.html'}\n"


def test_a_published_board_that_does_not_hold(
    experiment: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(experiment.parent)
    assert document(capsys, score.main, experiment, "--publish")["boards"]
    board = Path("results/leaderboards/two")
    assert document(capsys, score.main, board, "--check") == {
        "folder": str(board), "holds": True, "differences": []
    }  # fmt: skip
    page = board / "leaderboard.csv"
    page.write_text(page.read_text().replace("lion", "tiger"))
    told = document(capsys, score.main, board, "--check", code=1)
    assert not told["holds"] and told["differences"]


def test_a_comparison(experiment: Path, capsys: Capture) -> None:
    (told,) = document(capsys, compare.main, experiment, "adamw", "lion")
    assert (told["a"], told["b"], told["by"], told["overall"]["only_a"]) == ("adamw", "lion", "samples", 2)
    ratios = {row["workload"]: row["ratio"] for row in told["workloads"]}
    assert ratios == {"digits": pytest.approx(0.4), "mnist": None}


def test_bad_input_is_a_message(tmp_path: Path, capsys: Capture) -> None:
    for main in (score.main, status.main):
        said = call(main, capsys, tmp_path / "nothing", "--json")
        assert (said.code, said.out) == (2, "") and said.err.startswith("error: ")
    said = call(methods.main, capsys, "lionn", "--json")
    assert (said.code, said.out) == (2, "") and "lion" in said.err


def test_checks(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a plugin prints is no part of the document."""

    def talks(subject: Subject) -> Result:
        print("hello")
        return failed("a reason")

    monkeypatch.setitem(suite.CHECKS, "step", talks)
    lion = ("algorithm=lion", "workload=digits", "--only", "card,step")
    told = document(capsys, check.main, *lion, code=1)
    assert told["counts"] == {"ok": 1, "failed": 1, "skipped": 0}
    broken = {"subject": "lion on digits", "check": "step", "status": "failed", "message": "a reason"}
    assert told["results"][1] == broken


def test_the_list_of_checks(capsys: Capture) -> None:
    told = document(capsys, check.main, "--list")
    assert list(told) == ["algorithm", "workload"] and told["algorithm"]["card"].startswith("Every part")


def test_methods(capsys: Capture) -> None:
    (lion,) = document(capsys, methods.main, "lion")
    assert (lion["kind"], lion["paper"]["arxiv"]) == ("optimizer", "2302.06675")
    assert (ROOT / lion["yaml"]).is_file() and lion["settings"]["lr"]["default"] == "1e-3"
    everything = document(capsys, methods.main)
    assert len(everything) > 70 and {"preset", "diagnostic"} <= {one["kind"] for one in everything}
    assert document(capsys, methods.main, "--kind", "sampler") == [
        one for one in everything if one["kind"] == "sampler"
    ]


def test_experiments_of_a_folder(tmp_path: Path, capsys: Capture) -> None:
    write_cell(tmp_path / "a")
    write_cell(tmp_path / "b" / "c")
    assert document(capsys, status.main, tmp_path) == [
        {"experiment": str(tmp_path / name), "counts": {"done": 1}} for name in ("a", "b/c")
    ]


def test_the_machine(tmp_path: Path, capsys: Capture) -> None:
    told = document(capsys, doctor.main, "--results-dir", tmp_path)
    assert all(set(one) == {"what", "status", "text", "remedy"} for one in told)


def test_what_json_has_no_word_for(capsys: Capture) -> None:
    print_json({"a": np.float64("nan"), "b": [np.int64(3), float("inf")], "c": Path("x"), 4: np.True_})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [3, None], "c": "x", "4": True}

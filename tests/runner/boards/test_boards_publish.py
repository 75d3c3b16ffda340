"""Published boards: what is in them, and what freezes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from published_boards import (
    FILES,
    GRID,
    HOME,
    SECRET,
    V06,
    Capture,
    checked,
    contents,
    edit,
    every_byte,
    grid,
    here,
    published,
    record,
    scored,
)

from runner import import_logs, score
from runner.boards import publish
from tests.experiments import call, refusal, write_cell, write_grid

__all__ = ["here"]  # a fixture that is used by every test

# -- publishing --------------------------------------------------------------------------------------


def test_what_is_published(capsys: Capture) -> None:
    folder = grid()
    said = scored(capsys, folder, "--publish")
    board = HOME / "exp"
    assert said.lines[-2:] == [
        "published: results/leaderboards/exp, version 1",
        "check it: python -m runner.score results/leaderboards/exp --check",
    ]
    assert {path.name for path in board.iterdir()} == FILES
    facts = record(board)
    assert facts["version"] == 1 and facts["targets"] == ["v1"] and facts["cells"] == 6
    assert facts["rules"]["baseline"] == "adamw" and facts["rules"]["by"] == "samples"
    goal = {"metric": "accuracy", "minimize": False, "target": 0.97}
    assert facts["boards"] == [{"title": "embedded data", "goals": {"digits": goal, "mnist": goal}}]
    (event,) = facts["history"]
    assert event["version"] == 1 and event["finished"] == 6 and event["complete"] is False
    assert (board / "leaderboard.csv").read_bytes() == (folder / "leaderboard.csv").read_bytes()
    page = (board / "leaderboard.md").read_text()
    assert page.startswith("# exp, version 1\n\n> **incomplete: of 8 cells 2 missing**")
    assert page.splitlines()[-1] == (
        "6 cells, targets v1; commit c0ffee; a processor (Linux). Recompute the numbers from the tables: "
        "`python -m runner.score results/leaderboards/exp --check`; rerun cells: "
        "`python -m runner.verify results/leaderboards/exp --cells 5`."
    )
    configs = publish.configs(board)
    assert sorted(configs) == sorted(pd.read_parquet(board / "cells.parquet")["id"]) and len(configs) == 6
    assert configs["lion10digits"]["algorithm"]["optimizer"]["lr"] == 0.001
    manifest = json.loads((board / "manifest.json").read_text())
    assert manifest["machines"] == [{"value": {"device": "a processor", "platform": "Linux"}, "cells": 6}]
    assert manifest["sources"] == {"abc": {}} and manifest["data"] == {
        w: {"train": "1"} for w in ("digits", "mnist")
    }
    evals = pd.read_parquet(board / "evals.parquet")
    assert (
        len(evals) == 12 and evals["validation/accuracy"].dtype == "float64"
    )  # what counts, to the last bit
    assert checked(capsys, board) == (0, f"{board}: every number reproduced\n", "")


def test_the_same_numbers_are_no_new_version(capsys: Capture) -> None:
    folder = grid()
    board = published(capsys, folder)
    before = contents(board)
    said = scored(capsys, folder, "--publish")
    assert said.lines[-1] == f"{board} already holds these numbers, as version 1"
    assert contents(board) == before


def test_a_board_grows_by_versions(capsys: Capture) -> None:
    folder = grid()
    board = published(capsys, folder)
    write_cell(folder, "adamw", "mnist", 1, at=800)
    write_cell(folder, "lion", "mnist", 1, at=None)
    assert "published: results/leaderboards/exp, version 2" in scored(capsys, folder, "--publish").lines
    facts = record(board)
    assert [event["version"] for event in facts["history"]] == [1, 2]
    assert [event["finished"] for event in facts["history"]] == [6, 8]
    assert [event["complete"] for event in facts["history"]] == [False, True]
    page = (board / "leaderboard.md").read_text()
    assert page.startswith("# exp, version 2\n\n## On embedded data") and "incomplete" not in page
    assert len(publish.configs(board)) == 8 and checked(capsys, board).code == 0


def test_a_new_algorithm_is_a_new_version_even_the_baseline(capsys: Capture) -> None:
    folder = grid(times={("digits", "a"): [1000], ("digits", "b"): [2000]})
    board = published(capsys, folder)
    write_cell(folder, "adamw", at=500)
    published(capsys, folder)
    assert record(board)["version"] == 2 and checked(capsys, board).code == 0
    assert set(pd.read_csv(board / "leaderboard.csv")["baseline"]) == {"adamw"}


def test_that_the_source_has_changed_since_is_no_fact_of_the_board(capsys: Capture) -> None:
    stale = {"source": "s", "sources": {"runner.train.loop": "before"}}
    folder = grid(times={("digits", "a"): [1000], ("digits", "b"): [2000]}, **stale)
    board = published(capsys, folder)
    assert "2 stale" in scored(capsys, folder).lines[0]
    assert "stale" not in every_byte(board) and record(board)["history"][0]["complete"] is True


def test_a_board_that_says_something_else_of_what_is_missing_is_a_new_version(capsys: Capture) -> None:
    """The numbers are the same: the cell that is not there costs nothing."""
    folder = grid(times={("digits", "a"): [1000, 1000], ("digits", "b"): [2000]})
    write_cell(folder, "b", study=1, status="pending")
    board = published(capsys, folder)
    assert "1 pending" in (board / "leaderboard.md").read_text()
    write_cell(folder, "b", study=1, status="failed")
    published(capsys, folder)
    assert "1 failed" in (board / "leaderboard.md").read_text() and checked(capsys, board).code == 0


OTHERS = [
    (("--tau-max", "3"), {}, "its rules differ"),
    (("--by", "steps"), {}, "its rules differ"),
    (("--baseline", "lion"), {}, "its rules differ"),
    (("--resamples", "50"), {}, "its rules differ"),
    ((), {"target": 0.9}, "its workloads and targets differ"),
    ((), {"targets": "v2"}, "its targets differ"),
]


@pytest.mark.parametrize(("options", "facts", "words"), OTHERS, ids=str)
def test_other_rules_and_targets_need_another_name(
    capsys: Capture, options: tuple, facts: dict, words: str
) -> None:
    folder = grid()
    board = published(capsys, folder)
    before = contents(board)
    if facts:
        shutil.rmtree(folder)
        grid(**facts)
    said = call(score.main, capsys, folder, "--publish", *options)
    assert said.code == 2 and said.err.count("\n") == 1
    assert f"{board} is frozen, and {words}: publish under another name, --as NAME" in said.err
    assert contents(board) == before
    other = published(capsys, folder, "--as", "other", *options)
    assert other == HOME / "other" and checked(capsys, other).code == 0
    assert (other / "leaderboard.md").read_text().startswith("# other, version 1\n")


def test_another_workload_does_not_enter_a_frozen_board(capsys: Capture) -> None:
    """Its score is over the workloads that it was frozen with, whatever its table of cells grows to hold."""
    folder = grid()
    board = published(capsys, folder)
    before = (board / "leaderboard.csv").read_bytes()
    write_grid(folder, {("new", "adamw"): [None], ("new", "lion"): [10]})
    assert "its workloads and targets differ" in call(score.main, capsys, folder, "--publish").err
    assert (board / "leaderboard.csv").read_bytes() == before
    more = pd.read_parquet(folder / "cells.parquet").drop(columns=list(publish.MACHINE), errors="ignore")
    assert set(more["workload"]) == {"digits", "mnist", "new"}
    more.to_parquet(board / "cells.parquet")
    said = scored(capsys, board)
    assert "2 workloads, by samples" in said.out
    assert "not ranked, not a workload of this leaderboard: new" in said.lines
    assert said.row("adamw")[:3] == ["1", "adamw", "1.000"]
    wrong = checked(capsys, board).lines  # notices, and no number
    assert wrong[0] == "configs.jsonl.gz: does not match the cells"
    assert not [line for line in wrong if line.startswith("leaderboard.csv")]


def test_two_kinds_of_data_on_one_published_board(capsys: Capture) -> None:
    folder = grid()
    write_cell(folder, "nesterov", "cifar10", at=10, data="real")  # without the baseline
    write_cell(folder, "lion", "cifar10", at=20, data="real")
    board = published(capsys, folder)
    titles = [part["title"] for part in record(board)["boards"]]
    assert titles == ["embedded data", "real data"] and checked(capsys, board).code == 0
    for options in (("--baseline", "nesterov"), ("--baseline", "lion")):
        other = published(capsys, folder, "--as", options[1], *options)
        assert checked(capsys, other).code == 0, options
    assert scored(capsys, board).lines[2] == "On embedded data"


def test_an_import_is_published_without_configs(capsys: Capture, here: Path) -> None:
    logs = here / "secret logs"
    logs.mkdir()
    shutil.copy(V06, logs / "v06.tar.xz")
    assert call(import_logs.main, capsys, logs / "v06.tar.xz", "results/v06", "--quiet").code == 0
    rules = ("--compat", "--study-pick", "eval_index", "--resamples", "20")
    board = published(capsys, "results/v06", *rules)
    assert {path.name for path in board.iterdir()} == FILES - {"configs.jsonl.gz"}
    assert "0.6244" in (board / "leaderboard.md").read_text() and checked(capsys, board).code == 0
    assert "runner.verify" not in (board / "leaderboard.md").read_text()
    assert "secret logs" not in every_byte(board) and str(here) not in every_byte(board)
    assert "samples are not recorded" in refusal(score.main, capsys, board, "--by", "samples")


def test_nothing_of_this_machine_is_published(capsys: Capture, here: Path) -> None:
    folder = grid("exp", GRID)
    overrides = ["algorithm=lion", "workload=mnist", f"results_dir={here}/results", f"data_dir={SECRET}"]
    config = {"data_dir": SECRET, "results_dir": str(here), "name": "private", "log": {"_target_": SECRET}}
    for cell in folder.glob("cells/*"):
        file = cell / "config.yaml"
        file.write_text(file.read_text() + "".join(f"{k}: {json.dumps(v)}\n" for k, v in config.items()))
        manifest = json.loads((cell / "manifest.json").read_text())
        facts = {"overrides": overrides, "host": "my-host", "job": "job_77"}
        (cell / "manifest.json").write_text(json.dumps({**manifest, **facts}))
    write_cell(folder, "lion", "mnist", 1, status="failed", error=f"FileNotFoundError: {SECRET}/train.bin")
    job = folder / "jobs" / "1"
    job.mkdir(parents=True)
    command = ["python -m runner", "-m", f"results_dir={here}/results", f"data_dir={SECRET}", "a=b"]
    facts = {
        "command": command,
        "host": "my-host",
        "pid": 1,
        "boot": "x",
        "born": "0",
        "ended": 1.0,
        "grid": 30,
    }
    (job / "job.json").write_text(json.dumps(facts))
    said = scored(capsys, folder.resolve(), "--publish")
    assert str(here) in said.out  # the terminal's commands are for this machine
    board = HOME / "exp"
    for word in (SECRET, str(here), "my-host", "job_77", "node1", "private"):
        assert word not in every_byte(board), word
    page = (board / "leaderboard.md").read_text()
    assert (
        "`python -m runner.retry results/exp --states failed`" in page and "`python -m runner -m a=b`" in page
    )
    assert checked(capsys, board).code == 0


def test_a_folder_called_dot_leaves_the_dots_of_its_commands(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    folder = grid(
        times={("digits", "a"): [1000, 1000], ("digits", "b"): [2000]}, overrides=["algorithm.lr=0.1"]
    )
    write_cell(folder, "b", study=1, status="oom")
    monkeypatch.chdir(folder)
    scored(capsys, ".", "--publish", "--as", "dots")
    page = (Path("results/leaderboards/dots") / "leaderboard.md").read_text()
    assert "python -m runner.retry results/exp --states oom" in page


def test_names_of_boards_stay_in_their_folder(capsys: Capture) -> None:
    folder = grid()
    for name in ("../../up", "..", "a b|c"):
        board = published(capsys, folder, "--as", name)
        assert board.parent == HOME and board.name not in ("", ".", "..")
        assert checked(capsys, board).code == 0


def test_the_pages_of_a_published_board_are_written_again_from_its_own_tables(capsys: Capture) -> None:
    board = published(capsys, grid())
    before = contents(board)
    edit(board / "leaderboard.csv", "reached", "best_metric")
    edit(board / "leaderboard.md", "reached", "best")
    assert checked(capsys, board).code == 1
    assert "rewritten from its own tables" in scored(capsys, board, "--publish").lines[-1]
    assert contents(board) == before and checked(capsys, board).code == 0


def test_what_cannot_be_published(capsys: Capture) -> None:
    folder = grid()
    board = published(capsys, folder)
    assert "is already published, as exp" in call(score.main, capsys, board, "--as", "other").err
    assert (
        "is frozen with different rules" in call(score.main, capsys, board, "--publish", "--tau-max", "3").err
    )
    (board / "board.json").write_text("{")
    said = call(score.main, capsys, folder, "--publish")
    assert said.code == 2 and "board.json is damaged" in said.err
    next((folder / "cells").iterdir()).joinpath("config.yaml").write_text("a: [")
    said = call(score.main, capsys, folder, "--as", "other")
    assert said.code == 2 and "config.yaml cannot be read" in said.err and said.err.count("\n") == 1
    assert not (HOME / "other" / "board.json").exists()


def test_a_folder_of_boards_that_cannot_be_written(capsys: Capture) -> None:
    folder = grid()
    HOME.parent.mkdir(exist_ok=True)
    HOME.write_text("in the way")
    said = call(score.main, capsys, folder, "--publish")
    assert said.code == 2 and "cannot be written" in said.err and said.err.count("\n") == 1


# -- scored again, by other rules --------------------------------------------------------------------


def test_a_published_board_scores_by_its_own_rules_unless_told(capsys: Capture) -> None:
    folder = grid()
    board = published(capsys, folder, "--tau-max", "3", "--baseline", "lion")
    before = contents(board)
    assert "misses beyond 3×" in scored(capsys, board).out and "× lion" in scored(capsys, board).out
    other = scored(capsys, board, "--tau-max", "5", "--by", "steps")
    assert "by steps, misses beyond 5×" in other.out
    assert contents(board) == before  # nothing of it is written


def test_no_label_is_a_formula_in_a_spreadsheet_and_parquet_holds_it_as_it_is(capsys: Capture) -> None:
    times = {("digits", "=1+1"): [1000], ("digits", "@sum"): [2000], ("digits", "-3"): [3000]}
    folder = grid(times=times)
    board = published(capsys, folder)
    for file in (board / "leaderboard.csv", folder / "cells.csv", folder / "leaderboard.csv"):
        assert sorted(pd.read_csv(file)["label"]) == ["'=1+1", "'@sum", "-3"]
        assert not [cell for cell in file.read_text().replace("\n", ",").split(",") if cell[:1] in ("=", "@")]
    assert sorted(pd.read_parquet(board / "cells.parquet")["label"]) == ["-3", "=1+1", "@sum"]
    assert checked(capsys, board).code == 0


def test_a_workload_is_no_formula_in_the_head_of_a_table(capsys: Capture) -> None:
    board = published(capsys, grid(times={("=w", "a"): [1000], ("=w", "b"): [2000]}))
    assert "'=w/median" in pd.read_csv(board / "leaderboard.csv") and checked(capsys, board).code == 0


def test_studies_may_be_stamps(capsys: Capture) -> None:
    folder = grid(times={("digits", "a"): [1000], ("digits", "b"): [2000]})
    for label in "ab":
        for study in (1732800000000000000, 2**63 - 1):
            write_cell(folder, label, study=study, at=500)
    board = published(capsys, folder)
    assert 2**63 - 1 in pd.read_parquet(board / "cells.parquet")["study"].tolist()
    assert checked(capsys, board).code == 0 and "incomplete" not in scored(capsys, folder).out

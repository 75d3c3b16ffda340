"""Published boards: what is in them, what freezes, and that every number comes out again."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from runner import import_algoperf, score
from runner.boards import publish
from runner.files import append_line
from tests.experiments import Said, call, refusal, write_cell, write_grid

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
        "6 cells, targets v1; commit c0ffee; a processor (Linux). The numbers from the tables: "
        "`python -m runner.score results/leaderboards/exp --check`; cells run again: "
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
    assert checked(capsys, board) == (0, f"{board}: every number again\n", "")


def test_the_same_numbers_are_no_new_version(capsys: Capture) -> None:
    folder = grid()
    board = published(capsys, folder)
    before = contents(board)
    said = scored(capsys, folder, "--publish")
    assert said.lines[-1] == f"{board} holds these numbers already, as version 1"
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
    stale = {"source": "s", "sources": {"runner.loop": "before"}}
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
    (("--tau-max", "3"), {}, "its rules are others"),
    (("--by", "steps"), {}, "its rules are others"),
    (("--baseline", "lion"), {}, "its rules are others"),
    (("--resamples", "50"), {}, "its rules are others"),
    ((), {"target": 0.9}, "its workloads and targets are others"),
    ((), {"targets": "v2"}, "its targets are others"),
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
    assert "its workloads and targets are others" in call(score.main, capsys, folder, "--publish").err
    assert (board / "leaderboard.csv").read_bytes() == before
    more = pd.read_parquet(folder / "cells.parquet").drop(columns=list(publish.MACHINE), errors="ignore")
    assert set(more["workload"]) == {"digits", "mnist", "new"}
    more.to_parquet(board / "cells.parquet")
    said = scored(capsys, board)
    assert "2 workloads, by samples" in said.out
    assert "not one of this board's workloads, so not ranked: new" in said.lines
    assert said.row("adamw")[:3] == ["1", "adamw", "1.000"]
    wrong = checked(capsys, board).lines  # notices, and no number
    assert wrong[0] == "configs.jsonl.gz: the configs of other cells"
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
    assert call(import_algoperf.main, capsys, logs / "v06.tar.xz", "results/v06", "--quiet").code == 0
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


def test_what_cannot_be_published(capsys: Capture) -> None:
    folder = grid()
    board = published(capsys, folder)
    assert "is published already" in call(score.main, capsys, board, "--publish").err
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


# -- checking ----------------------------------------------------------------------------------------


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
    assert found("leaderboard.csv").lines == ["leaderboard.csv: other rows or columns"]
    edit(board / "leaderboard.md", "1,100", "1,101")
    assert "1,101" in found("leaderboard.md").out
    (board / "leaderboard.md").write_bytes(whole["leaderboard.md"] + b"more\n")
    assert found("leaderboard.md").lines == ["leaderboard.md: other number of lines"]
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
    assert "| lion (disputed) |" in page and "Rerun: 1 disputed." in page and "adamw (disputed)" not in page
    append_line(board / "verifications.jsonl", json.dumps({**row, "verdict": "same"}))
    publish.refresh(board)
    page = (board / "leaderboard.md").read_text()
    assert "disputed" not in page and "Rerun: 1 same." in page and checked(capsys, board).code == 0

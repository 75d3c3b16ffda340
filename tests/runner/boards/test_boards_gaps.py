"""What an experiment lacks, and that the printed commands fill it."""

from __future__ import annotations

import json
import shlex
import shutil
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from runner import retry, score
from runner.__main__ import main as launch
from runner.base.files import write_json
from runner.cells.cell import Cell
from runner.cells.launches import launches
from runner.cells.lock import this_process
from runner.compose.commands import places as put_into
from runner.stats.complete import blocks, holes, ranges
from tests.experiments import Said, call, commands, refusal, write_cell, write_grid

Capture = pytest.CaptureFixture[str]
SMALL = (
    "workload=breast_cancer",
    "workload.budget_samples=480",
    "workload.target=0.6",
    "log=none",
    "trial=0",
)
DEAD = {"host": "elsewhere", "pid": 1, "boot": "x", "born": "0"}


def scored(capsys: Capture, *args: object) -> Said:
    said = call(score.main, capsys, *args)
    assert said.code == 0, said.err
    return said


def ends(said: Said) -> list[str]:
    """The lines after the last table."""
    last = max(place for place, line in enumerate(said.lines) if line.startswith("+"))
    return said.lines[last + 1 :]


# -- for real ----------------------------------------------------------------------------------------


def test_the_printed_commands_complete_a_grid(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["python -m runner"])
    folder, there = tmp_path / "a b", (f"results_dir={tmp_path}", "name='a b'", "hydra/launcher=inline")

    def run(*words: str) -> None:
        assert launch(words) == 0, capsys.readouterr().err

    run("-m", "algorithm=adamw", "study=0,1", *SMALL, *there)
    run("-m", "algorithm=lion", "study=0", *SMALL, *there)  # study 1 was never launched
    said = scored(capsys, folder)
    assert said.lines[0] == "incomplete: of 4 cells 1 missing"
    page = (folder / "leaderboard.md").read_text()
    assert page.splitlines()[2] == "> **incomplete: of 4 cells 1 missing**" and "## Missing cells" in page
    (line,) = ends(said)
    assert line.startswith("1 cell missing (") and "· lion · study 1 · trial 0): python -m runner -m " in line
    assert f"`{line.rpartition(': ')[2]}`" in page
    ((_, _, _, *words),) = commands(said)
    assert "study=1" in words and "trial=0" in words
    run(*words, "hydra/launcher=inline")
    complete = scored(capsys, folder)
    assert "incomplete" not in complete.out and ends(complete) == [] and complete.row("lion", 1)[4] == "2"

    shutil.rmtree(next((folder / "cells").glob("*.adamw.s1.*")))  # somebody deleted it
    said = scored(capsys, folder)
    assert said.lines[0] == "incomplete: of 4 cells 1 missing"
    (line,) = ends(said)
    assert line.startswith("1 cell never written, or deleted, by an interrupted launch: python -m runner -m ")
    ((_, _, _, *words),) = commands(said)
    assert "algorithm=adamw" in words and "study=0,1" in words
    untouched = next((folder / "cells").glob("*.adamw.s0.*")) / "evals.jsonl"
    before = untouched.stat().st_mtime_ns
    run(*words)
    assert scored(capsys, folder) == complete and untouched.stat().st_mtime_ns == before


def test_the_printed_retry_runs_what_failed(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "backend_of", lambda *_: (retry.Inline(), None))
    for study in (0, 1):
        for label in ("adamw", "lion"):
            words = (f"results_dir={tmp_path}", "name=exp", *SMALL, f"study={study}", f"algorithm={label}")
            cell = Cell.from_overrides(words)
            cell.submit()
            if (study, label) == (1, "lion"):
                cell.folder.fail("ValueError: once", "its traceback")
    assert "1 failed, 3 pending" in refusal(score.main, capsys, tmp_path / "exp")  # nothing to score yet
    assert call(retry.main, capsys, tmp_path / "exp", "--states", "pending").code == 0
    said = scored(capsys, tmp_path / "exp")
    assert said.lines[0] == "incomplete: of 4 cells 1 failed"
    ((_, module, name, *words),) = commands(said)
    assert (module, name, words[1:]) == ("-m", "runner.retry", ["--states", "failed"])
    assert call(retry.main, capsys, *words).code == 0
    assert "incomplete" not in scored(capsys, tmp_path / "exp").out


# -- by state ----------------------------------------------------------------------------------------

STATES = {
    "failed": ({"status": "failed", "error": "boom"}, "retry"),
    "oom": ({"status": "oom"}, "retry"),
    "timeout": ({"status": "timeout"}, "retry"),
    "killed": ({"status": "running"}, "retry"),  # says that it runs, and nobody works on it
    "preempted": ({"status": "preempted"}, "retry"),
    "pending": ({"status": "pending"}, "retry"),
    "stale": ({"source": "s", "sources": {"runner.train.loop": "before"}}, "retry"),
}


@pytest.mark.parametrize("state", STATES)
def test_cells_in_every_state(tmp_path: Path, capsys: Capture, state: str) -> None:
    folder = tmp_path / "it's | one"
    facts: dict[str, Any] = STATES[state][0]
    write_grid(folder, {("digits", "a"): [1000, 1100, 900], ("digits", "b"): [2000]})
    for study in (1, 2):
        write_cell(folder, "b", study=study, at=2000, **facts)
    said = scored(capsys, folder)
    assert said.lines[0] == f"incomplete: of 6 cells 2 {state}"
    (line,) = ends(said)
    why = ", source or data has changed since" if state == "stale" else ""
    assert line.startswith(
        f"2 {state}{why} (digits · b · study 1 · trial 0, digits · b · study 2 · trial 0): "
    )
    assert commands(said) == [["python", "-m", "runner.retry", str(folder), "--states", state]]
    assert f"incomplete: of 6 cells 2 {state}" in (folder / "leaderboard.md").read_text()
    assert said.row("b", 1)[4] == ("3" if state == "stale" else "1")  # a stale cell counts, and is said


def test_states_together_and_a_long_list(tmp_path: Path, capsys: Capture) -> None:
    write_grid(tmp_path, {("digits", "a"): [1000] * 7})
    for study in range(7):
        write_cell(tmp_path, "b", study=study, status="oom" if study < 5 else "failed")
    said = scored(capsys, tmp_path)
    assert said.lines[0] == "incomplete: of 14 cells 5 oom, 2 failed"
    assert ends(said)[0].startswith(
        "5 oom (digits · b · study 0 · trial 0, digits · b · study 1 · trial 0, and 3 more): python -m "
    )
    assert said.row("b")[:4] == ["2", "b", "0.000", "too few studies"] and said.row("b", 1)[4] == "0"


def test_a_complete_grid_says_nothing(tmp_path: Path, capsys: Capture) -> None:
    write_grid(tmp_path, {("digits", "a"): [1000, None], ("digits", "b"): [2000, 1000]})
    write_cell(tmp_path, "b", study=1, at=None, status="diverged")
    said = scored(capsys, tmp_path)
    assert "incomplete" not in said.out and ends(said) == []
    assert "Missing cells" not in (tmp_path / "leaderboard.md").read_text()


def test_a_hole_of_cells_that_nobody_knows_how_to_launch(tmp_path: Path, capsys: Capture) -> None:
    write_grid(tmp_path, {("digits", "a"): [1000, 1000], ("digits", "b"): [2000]})
    (line,) = ends(scored(capsys, tmp_path))
    assert line == "1 cell missing (digits · b · study 1 · trial 0); no record of how they were launched"


def test_a_pair_that_was_never_launched_is_made_of_its_halves(tmp_path: Path, capsys: Capture) -> None:
    """The algorithm's overrides from another workload, the workload's from another algorithm."""
    common = ["log=none", "+experiment=x", "dry_run=true"]
    for label, workload, extra in (
        ("a", "v", ["algorithm.lr=1"]),
        ("a", "w", ["algorithm.lr=1"]),
        ("b", "v", []),
    ):
        overrides = [f"algorithm={label}", *extra, f"workload={workload}", f"workload.target={workload}"]
        for study in (0, 1):
            write_cell(tmp_path, label, workload, study, trial=1,
                       overrides=[*overrides, *common, f"study={study}", "trial=1"])  # fmt: skip
    said = scored(capsys, tmp_path)
    (words,) = commands(said)
    assert words[:4] == ["python", "-m", "runner", "-m"]
    assert words[4:] == [
        "algorithm=b", "log=none", "+experiment=x", "workload=w", "workload.target=w", *put_into(tmp_path),
        "study=0,1", "trial=1",
    ]  # fmt: skip
    assert ends(said)[0].startswith("2 cells missing (w · b · study 0 · trial 1, w · b · study 1 · trial 1)")


def test_words_that_a_shell_would_split_are_quoted(tmp_path: Path, capsys: Capture) -> None:
    overrides = ["algorithm=a", "algorithm.betas=[0.9, 0.99]", "label='it''s `x` | y'"]
    write_grid(tmp_path, {("w", "a"): [10, 20]})
    write_cell(tmp_path, "`x` | y", "w", overrides=overrides)
    (words,) = commands(scored(capsys, tmp_path))
    assert words[4:] == [*overrides, *put_into(tmp_path), "study=1", "trial=0"]
    last = (tmp_path / "leaderboard.md").read_text().splitlines()[-1]
    assert last.endswith("trial=0 ``") and ": `` python -m runner -m algorithm=a " in last


# -- launches ----------------------------------------------------------------------------------------


def job(folder: Path, when: str, **record: Any) -> None:
    path = folder / "jobs" / when
    path.mkdir(parents=True)
    facts = {"launcher": "local", "command": ["python -m runner", "-m", "study=0,1,2", "label='a b'"]}
    facts |= {**DEAD, "submitted": time.time() - 100, "ended": None, **record}
    names = facts.pop("names", [])
    write_json(path / "job.json", facts)
    (path / "cells.txt").write_text("".join(f"{name}\n" for name in names))


def cells_of(folder: Path) -> list[str]:
    return [path.name for path in sorted((folder / "cells").iterdir())]


def test_a_launch_that_was_killed_before_it_had_composed_everything(tmp_path: Path, capsys: Capture) -> None:
    write_grid(tmp_path, {("digits", "a"): [1000], ("digits", "b"): [2000]})
    job(tmp_path, "1", grid=6, names=cells_of(tmp_path))
    said = scored(capsys, tmp_path)
    assert said.lines[0] == "incomplete: of 6 cells 4 missing"
    assert ends(said) == [
        "4 cells never written, or deleted, by an interrupted launch: "
        "python -m runner -m study=0,1,2 'label='\"'\"'a b'\"'\"''"
    ]
    (launched,) = launches(tmp_path)
    launched.update(ended=1.0)  # a traceback in the launcher
    assert scored(capsys, tmp_path) == said
    job(tmp_path, "2", grid=6, names=[*cells_of(tmp_path), "w.a.s9.t0.x"], composed=True)  # the same, again
    assert scored(capsys, tmp_path).lines[0] == "incomplete: of 3 cells 1 missing"


def test_a_launch_that_is_composing_is_not_cut(tmp_path: Path, capsys: Capture) -> None:
    write_grid(tmp_path, {("digits", "a"): [1000], ("digits", "b"): [2000]})
    job(tmp_path, "1", grid=6, names=cells_of(tmp_path), **this_process())
    assert "incomplete" not in scored(capsys, tmp_path).out


def test_launches_of_older_versions_and_torn_records_say_nothing(tmp_path: Path, capsys: Capture) -> None:
    write_grid(tmp_path, {("digits", "a"): [1000], ("digits", "b"): [2000]})
    job(tmp_path, "1")  # without its number of cells
    job(tmp_path, "2", grid="many")
    job(tmp_path, "3", grid=2)
    (tmp_path / "jobs" / "3" / "job.json").write_text("{")
    assert "incomplete" not in scored(capsys, tmp_path).out


def test_cells_that_are_on_their_way_are_no_gap_to_fill(tmp_path: Path, capsys: Capture) -> None:
    write_grid(tmp_path, {("digits", "a"): [1000, 1000], ("digits", "b"): [2000]})
    write_cell(tmp_path, "b", study=1, status="pending")
    job(tmp_path, "1", grid=4, names=cells_of(tmp_path), composed=True, **this_process())
    said = scored(capsys, tmp_path)
    assert said.lines[0] == "incomplete: of 4 cells 1 still to run" and commands(said) == []
    assert ends(said) == ["1 still to run (digits · b · study 1 · trial 0)"]


# -- the functions -----------------------------------------------------------------------------------


def places(*rows: tuple) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["workload", "label", "study", "trial"])


def test_holes_are_what_the_full_grid_has_besides() -> None:
    cells = places(("v", "a", 0, 0), ("v", "a", 1, 0), ("w", "b", 0, 1))
    found = list(holes(cells).itertuples(index=False, name=None))
    full = {(w, a, *pair) for w in "vw" for a in "ab" for pair in ((0, 0), (1, 0), (0, 1))}
    assert set(found) == full - set(cells.itertuples(index=False, name=None)) and found == sorted(found)
    assert not len(holes(places(("v", "a", 3, 7)))) and not len(holes(places()))


def test_blocks_hold_every_place_once() -> None:
    cells = places(*[("w", "a", s, t) for s, t in ((0, 1), (0, 2), (1, 1), (1, 2), (2, 2), (3, 0))])
    assert blocks(cells) == [([0, 1], [1, 2]), ([2], [2]), ([3], [0])]
    assert ranges([3, 1, 1, 2]) == "1,2,3"


def test_a_thousand_cells_lacking_are_a_few_commands(tmp_path: Path, capsys: Capture) -> None:
    write_cell(tmp_path, "z", "z", 0, at=10, overrides=["algorithm=z", "workload=z"])
    for place in range(12):
        for study in range(2):
            write_cell(
                tmp_path, f"a{place}", "w", study, at=10, overrides=[f"algorithm=a{place}", "workload=w"]
            )
    said = scored(capsys, tmp_path)
    assert said.lines[0] == "incomplete: of 52 cells 27 missing"  # 13 labels x 2 workloads x 2 studies
    assert len(commands(said)) == 8 and ends(said)[-1] == "and 6 commands more"
    assert all(shlex.join(words) for words in commands(said))
    assert json.loads((tmp_path / "cells" / cells_of(tmp_path)[0] / "manifest.json").read_text())["overrides"]

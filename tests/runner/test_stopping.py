"""A cell that is stopped early on purpose: from Python, gone on with on request alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from runner import load, run
from runner.boards.gaps import gaps
from runner.cells.cell import Cell
from runner.cells.survey import look
from runner.launch.display import Display
from runner.launch.grid import Grid
from runner.launch.local import Inline
from runner.launch.plan import show
from runner.retry import main as retry
from runner.status import main as status
from tests.experiments import call, write_cell

ARGS = ["name=exp", "log=none", "workload.budget_samples=2560", "workload.eval_every=640",
        "workload.target=0.99", "stop_at_target=false"]  # fmt: skip


def overrides(results: Path) -> list[str]:
    return [f"results_dir={results}", *ARGS]


def at(index: int, seen: list[dict[str, Any]]) -> Any:
    """A callback that stops at an evaluation."""

    def callback(row: dict[str, Any]) -> bool:
        seen.append(row)
        return row["eval_index"] == index

    return callback


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a cell that was stopped at its third evaluation."""
    results, seen = tmp_path_factory.mktemp("results"), []
    row = run(overrides(results), inline=True, callback=at(2, seen))
    assert (row["status"], row["reason"]) == ("stopped", "callback")
    assert [one["eval_index"] for one in seen] == [0, 1, 2] and "validation/accuracy" in seen[0]
    assert row["samples"] == 1280 and row["seconds"] > 0 and row["best_metric"] > 0
    return results


@pytest.fixture
def results(tmp_path: Path, stopped: Path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "results"))


def test_the_same_command_leaves_it_alone(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cell = Cell.from_overrides(overrides(results))
    grid = Grid([overrides(results)], Inline(), Display())
    assert list(grid.todo()) == [] and grid.display.summary() == 0
    assert "stopped on purpose (callback)" in capsys.readouterr().err
    assert cell.state() == "stopped" and cell.folder.checkpoint_file.exists()
    assert run(overrides(results), inline=True)["status"] == "stopped"
    assert show(grid) == 0 and "1 cell: 1 stopped" in capsys.readouterr().out


def test_status_and_retry_know_it(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = results / "exp"
    assert "1 cell: 1 stopped" in call(status, capsys, experiment, "--once").out
    assert "nothing to retry: 1 stopped" in call(retry, capsys, experiment).out
    assert retry([str(experiment), "--stopped", "--launcher", "inline"]) == 0
    cells, evals = load(experiment)
    assert list(cells["status"]) == ["done"] and cells["resumes"][0] == 1 and len(evals) == 5


def test_a_promotion_goes_on_as_if_it_had_not_been_stopped(results: Path, tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    assert run(overrides(results), inline=True, callback=at(9, seen), promote=True)["status"] == "done"
    assert [row["eval_index"] for row in seen] == [3, 4]
    run(overrides(tmp_path / "whole"), inline=True)
    _, went_on = load(results / "exp")
    _, whole = load(tmp_path / "whole" / "exp")
    assert went_on["validation/loss"].equals(whole["validation/loss"])


def test_in_a_worker_too_and_an_error_of_the_callback_is_the_callers(tmp_path: Path) -> None:
    def fails(row: dict[str, Any]) -> bool:
        raise ZeroDivisionError("the caller's own mistake")

    with pytest.raises(ZeroDivisionError, match="own mistake"):
        run(overrides(tmp_path), callback=fails)
    cell = Cell.from_overrides(overrides(tmp_path))
    assert cell.state() == "preempted" and cell.folder.checkpoint_file.exists()
    row = run(overrides(tmp_path), callback=at(2, []))
    assert row["status"] == "stopped" and len(cell.folder.evals()) == 3


def test_a_board_names_what_it_lacks_of_a_study_and_no_censored_trial(tmp_path: Path) -> None:
    for study, trial in ((0, 0), (0, 1)):
        write_cell(tmp_path, study=study, trial=trial)
    write_cell(tmp_path, study=0, trial=2, status="stopped", reason="tuner", summary={"samples": 500.0})
    found = gaps(tmp_path, load(tmp_path)[0])
    assert not found.headline and not found.lines
    write_cell(tmp_path, study=1, trial=0, status="stopped", reason="tuner", summary={"samples": 500.0})
    cells = load(tmp_path)[0]
    found = gaps(tmp_path, cells)
    assert "1 stopped" in found.headline[0]
    assert any("1 stopped" in line and line.endswith("--states stopped") for line in found.lines)
    assert cells["samples"].sum() == 2 * 2000 + 2 * 500
    assert look(tmp_path).counts == {"done": 2, "stopped": 2}

"""A data file that has changed makes a result stale, without being read at every look."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from runner import load, run
from runner.cells.cell import Cell, folder_state
from runner.cells.survey import look
from runner.provenance import data_files
from runner.train.session import run_cell
from tests.small_cells import interrupted

ROWS = 60


def write(file: Path, seed: int) -> None:
    chance = random.Random(seed)
    rows = (f"{chance.choice([-1, 1])} 1:{chance.random():.3f} 2:{chance.random():.3f}" for _ in range(ROWS))
    file.write_text("\n".join(rows) + "\n")


def overrides(tmp_path: Path, file: Path, *more: str) -> list[str]:
    return [
        "workload=logreg", f"workload.file={file}", "workload.test_file=null", "workload.budget_samples=256",
        "log=none", "name=exp", f"results_dir={tmp_path / 'results'}", *more,
    ]  # fmt: skip


def test_other_rows_make_a_cell_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, experiment = tmp_path / "wine.svm", tmp_path / "results" / "exp"
    write(file, 0)
    assert run(overrides(tmp_path, file), inline=True)["status"] == "done"
    cell = Cell.from_overrides(overrides(tmp_path, file))
    made_by = cell.folder.manifest()["files"]
    assert list(made_by) == [str(file)]

    with monkeypatch.context() as unread:
        unread.setattr(data_files, "_checksum", lambda *_: pytest.fail("read, though nothing has changed"))
        assert cell.state() == folder_state(cell.folder) == "done" and look(experiment).counts == {"done": 1}
    os.utime(file)  # touched, and the same
    assert cell.state() == folder_state(cell.folder) == "done" and look(experiment).counts == {"done": 1}

    before = load(experiment)[0]["data_checksum"][0]
    write(file, 1)
    assert cell.state() == folder_state(cell.folder) == "stale" and look(experiment).counts == {"stale": 1}
    assert run(overrides(tmp_path, file), inline=True)["status"] == "done" and cell.state() == "done"
    assert load(experiment)[0]["data_checksum"][0] != before
    assert len(list((experiment / "superseded").iterdir())) == 1
    file.unlink()  # of a results folder that was moved to another machine nothing is known
    assert folder_state(cell.folder) == "done" and look(experiment).counts == {"done": 1}


def test_a_checkpoint_on_other_rows_is_not_gone_on_from(tmp_path: Path) -> None:
    file = tmp_path / "wine.svm"
    write(file, 0)
    cell = Cell.from_overrides(overrides(tmp_path, file, "workload.eval_every=64"))
    assert cell.submit() and interrupted(cell.folder.path)["status"] == "preempted"
    write(file, 1)
    assert run_cell(cell.folder.path)["status"] == "done"
    assert "its data differs" in cell.folder.manifest()["started_over"]

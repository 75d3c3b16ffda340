"""Two settings never end as one: in a label, a folder or a place on the board."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.base.errors import UserError
from runner.cells.cell import Cell
from runner.launch.display import Display
from runner.launch.grid import Grid
from runner.launch.local import Inline
from runner.launch.start import run_grid

TINY = ("log=none", "workload.target=null", "workload.budget_samples=64", "workload.eval_every=64")
Capture = pytest.CaptureFixture[str]


def planned(results: Path, *jobs: list[str], dry_run: bool = True) -> int:
    return run_grid([[f"results_dir={results}", *TINY, *job] for job in jobs], Inline(), dry_run=dry_run)


def cell(results: Path, *overrides: str) -> Cell:
    return Cell.from_overrides([f"results_dir={results}", *TINY, *overrides])


TWINS = [
    (["label=mine", "algorithm.optimizer.lr=0.1"], ["label=mine", "algorithm.optimizer.lr=0.2"]),
    (["algorithm=lion"], ["algorithm=adamw", "label=lion"]),
    (["stop_at_target=true"], ["stop_at_target=false"]),  # in the cell, not in the label
    (["workload=digits"], ["workload=breast_cancer", "workload.name=digits"]),
]


@pytest.mark.parametrize(("one", "other"), TWINS, ids=str)
def test_two_settings_of_one_name_are_refused_before_anything_trains(
    one: list[str], other: list[str], tmp_path: Path, capsys: Capture
) -> None:
    assert planned(tmp_path, one, other, dry_run=False) == 2
    said = capsys.readouterr().err
    assert "names two different cells" in said and other[-1] in said and "label=" in said
    assert not list(tmp_path.rglob("evals.jsonl"))


@pytest.mark.parametrize(("one", "other"), [("a/b", "a_b"), ("Mine", "mine"), ("x" * 70, "x" * 71)])
def test_two_labels_of_one_folder_are_refused(one: str, other: str, tmp_path: Path, capsys: Capture) -> None:
    assert planned(tmp_path, [f"label={one}"], [f"label={other}"]) == 2
    assert "would share the folder" in capsys.readouterr().err


def test_two_labels_of_one_folder_are_refused_in_a_later_launch_too(tmp_path: Path) -> None:
    cell(tmp_path, "label=a/b").submit()
    assert cell(tmp_path, "label=a/b").state() == "pending"
    with pytest.raises(UserError, match=r"is the folder of digits.* · a/b; it cannot also hold .* · a_b"):
        cell(tmp_path, "label=a_b").state()


def test_other_settings_of_a_label_are_told_that_they_stand_there_already(
    tmp_path: Path, capsys: Capture
) -> None:
    before = cell(tmp_path, "label=mine")
    before.submit()
    before.folder.set_status("done")
    job = [f"results_dir={tmp_path}", *TINY, "label=mine", "algorithm.optimizer.lr=0.1"]
    assert len(list(Grid([job], Inline(), Display()).todo())) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert f"already exists with a different config (cells/{before.folder.path.name})" in said


def test_one_setting_however_it_is_spelled_is_one_cell(tmp_path: Path, capsys: Capture) -> None:
    ways = [["algorithm=lion"], ["algorithm=lion.yaml"], ["algorithm=/lion"]]
    ways += [["algorithm=lion", "workload=digits.yaml", "targets=v1.yaml"]]
    assert planned(tmp_path, *ways) == 0
    assert "1 cell: 1 missing" in capsys.readouterr().out
    same = [["algorithm.optimizer.weight_decay=1"], ["algorithm.optimizer.weight_decay=1.0"]]
    same += [["algorithm.optimizer.betas=[0,1e-1]"], ["algorithm.optimizer.betas=[0.0,0.1]"]]
    assert planned(tmp_path, *same) == 0
    assert "2 cells: 2 missing" in capsys.readouterr().out

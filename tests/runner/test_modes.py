"""Optimizers with train and eval modes are evaluated as they want to be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from algorithms.wrappers.mechanic import Mechanic
from runner.cells.cell import Cell
from runner.parts.guards import clash
from runner.parts.modes import has_modes
from runner.train.session import run_cell
from tests.doubles.keepers import TwoModes
from tests.small_cells import evaluations, interrupted, submitted
from tests.tasks import make_info

CHANCE = 0.2  # a linear model of zeros says one class of ten


def test_they_are_switched_around_every_evaluation_but_the_first(tmp_path: Path) -> None:
    whole, cut = (submitted(tmp_path, f"name={name}", optimizer="TwoModes") for name in ("whole", "cut"))
    assert run_cell(whole.folder.path)["status"] == "done"
    rows = whole.folder.evals()
    assert all(row["validation/accuracy"] < CHANCE for row in rows[1:])
    assert rows[-1]["train/loss"] < rows[1]["train/loss"]  # what trains was not set to zero
    assert interrupted(cut.folder.path)["status"] == "preempted"
    assert run_cell(cut.folder.path)["status"] == "done"
    assert evaluations(cut.folder.path) == evaluations(whole.folder.path)


def test_an_average_stands_in_for_them(tmp_path: Path) -> None:
    cell = submitted(tmp_path, optimizer="TwoModes", average="Present")
    assert run_cell(cell.folder.path)["status"] == "done"
    assert cell.folder.evals()[-1]["validation/accuracy"] > CHANCE


def test_an_optimizer_of_ours_is_switched_by_its_own_hooks_alone(tmp_path: Path) -> None:
    cell = Cell.from_overrides([f"results_dir={tmp_path}", "algorithm=schedule_free_adamw"])
    from hydra.utils import get_class

    assert not has_modes(get_class(cell.config["algorithm"]["optimizer"]["_target_"]))


def test_they_go_with_no_other_part_that_swaps() -> None:
    class Swaps:
        def swap_in(self, task: Any) -> None: ...

    assert clash({"optimizer": TwoModes, "average": Swaps}, make_info()) is None
    said = clash({"optimizer": TwoModes, "estimator": Swaps}, make_info())
    assert said is not None and "each evaluate weights of their own" in said


def test_a_wrapper_that_moves_their_weights_refuses_them() -> None:
    import torch

    with pytest.raises(ValueError, match="must evaluate the weights it trains, got TwoModes"):
        Mechanic(TwoModes([torch.zeros(1, requires_grad=True)]))

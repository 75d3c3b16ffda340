"""Nothing happens for the first time while the clock runs: no kernel, no shape that one is chosen by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner.cells.cell import Cell
from runner.compose.config import algorithm_names
from runner.train.clock import CHARGED, Clock
from runner.train.session import run_cell
from tests.doubles.first_times import FirstTimes, Key

SAMPLE = ("adamw", "ema", "mesa", "quadratic", "refined_schedule", "rho_loss", "schedule_free_adamw")
PAIRS = [
    (name, workload)
    if workload == "breast_cancer" and name in SAMPLE
    else pytest.param(name, workload, marks=pytest.mark.slow)
    for name in algorithm_names()
    for workload in ("breast_cancer", "digits")
]
SMALL_CELL = (
    "workload=breast_cancer", "workload.target=null", "workload.batch_size=16", "log=none",
    "workload.budget_samples=1600", "workload.eval_every=800", "diagnostics=none",
)  # fmt: skip
LATE = "tests.doubles.late.Late"
# Their sizes are found out on the way: from gradients, from the rows' clusters.
SIZES_FROM_DATA = ("batch_norm_test", "useful_upsample")


def trained(cell: Cell) -> tuple[dict[Key, str], dict[str, Any]]:
    """What a charged account was the first to ask for -> the line that did; the cell's status."""
    assert cell.submit()
    with pytest.MonkeyPatch.context() as patch, FirstTimes(patch) as first:
        status = run_cell(cell.folder.path)
    return first.charged, status


@pytest.mark.parametrize(("name", "workload"), PAIRS)
def test_nothing_is_new_to_the_clock(name: str, workload: str, tmp_path: Path) -> None:
    chosen = (f"algorithm={name}", f"workload={workload}")
    charged, status = trained(Cell.from_overrides([f"results_dir={tmp_path}", *SMALL_CELL, *chosen]))
    if "cannot train workload" in status.get("error", ""):
        pytest.skip("refuses the workload")
    assert status["status"] in ("done", "diverged"), status
    if name in SIZES_FROM_DATA:
        charged = {key: where for key, where in charged.items() if not key.shapes}
    assert charged == {}


@pytest.mark.parametrize(("steps", "new"), [(3, set()), (0, {"erfinv", "i0"})])
def test_a_later_phase_and_the_first_swap_are_warmed_up(tmp_path: Path, steps: int, new: set[str]) -> None:
    config = Cell.from_overrides([f"results_dir={tmp_path}", *SMALL_CELL, f"warmup_steps={steps}"]).config
    parts = {"optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1}, "transform": {"_target_": LATE}}
    config |= {"algorithm": {"_target_": "runner.parts.composed.Composed", **parts}, "label": "late"}
    charged, status = trained(Cell.from_config({key: config[key] for key in config if key != "id"}))
    assert status["status"] == "done"
    assert {"erfinv", "i0"} & {key.name for key in charged} == new
    assert bool(new) == any(key.shapes for key in charged)


@pytest.mark.slow
def test_nothing_is_compiled_on_the_clock(tmp_path: Path) -> None:
    from torch._dynamo.utils import counters

    accounts: dict[str, int] = {}
    switch, account, before = Clock.switch, "warmup", 0

    def told(clock: Clock, to: str) -> str:
        nonlocal account, before
        now = counters["stats"]["unique_graphs"]
        accounts[account] = accounts.get(account, 0) + now - before
        account, before = to, now
        return switch(clock, to)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Clock, "switch", told)
        overrides = (
            "algorithm=ema",
            "workload=digits",
            "workload.compile=true",
            "workload.budget_samples=1600",
        )
        cell = Cell.from_overrides(
            [f"results_dir={tmp_path}", "log=none", "workload.target=null", *overrides]
        )
        assert cell.submit() and run_cell(cell.folder.path)["status"] == "done"
    assert accounts["warmup"] > 0
    assert {name: count for name, count in accounts.items() if name in CHARGED and count} == {}

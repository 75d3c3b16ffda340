"""Cells small enough to be trained in a test, on doubles of parts, and what they evaluated to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runner.cells.cell import Cell
from runner.contract.records import CellFolder
from runner.train.loop import Alarm
from runner.train.session import run_cell

TIMES = ("seconds", "seconds_to_target")
ARGS = ("log=none", "workload.target=null", "workload.budget_samples=3200", "workload.eval_every=640")


def submitted(results: Path, *overrides: str, **algorithm: Any) -> Cell:
    """A small cell on digits, its parts as given by name."""
    config = Cell.from_overrides([f"results_dir={results}", *ARGS, *overrides]).config
    if algorithm:
        parts: dict[str, Any] = {
            kind: {"_target_": f"tests.doubles.keepers.{name}"} for kind, name in algorithm.items()
        }
        parts.setdefault("optimizer", {"_target_": "torch.optim.SGD", "lr": 0.1})
        config |= {"algorithm": {"_target_": "runner.parts.composed.Composed", **parts}, "label": "double"}
    cell = Cell.from_config({key: value for key, value in config.items() if key != "id"})
    assert cell.submit()
    return cell


def interrupted(path: Path, after: int = 2) -> dict[str, Any]:
    """Train until the cell has that many evaluations, then ask it to checkpoint and stop."""
    alarm, rows = Alarm(), iter(range(1, 100))

    def told(event: dict[str, Any]) -> None:
        if event["event"] == "row" and next(rows) == after:
            alarm.ring()

    return run_cell(path, told, alarm)


def evaluations(path: Path) -> list[dict[str, Any]]:
    rows = CellFolder(path).evals()
    return [{k: v for k, v in row.items() if k not in TIMES and "clock" not in k} for row in rows]

"""Backends on this machine: worker processes on its devices, or this very process."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.base.errors import UserError
from runner.cells.cell import Cell
from runner.cells.survey import duration
from runner.launch.display import Display, plural
from runner.launch.grid import Grid, Planned
from runner.launch.scheduler import Job, Scheduler
from runner.machine import gpus
from runner.machine.slots import Slots


@dataclass
class Local:
    """One worker process a device slot.

    Attributes:
        workers: cells at once; None: cores divided by threads a cell, or one a GPU.
        per_gpu: cells at once on a GPU; above 1 they count as contended.
        warm: keep workers between cells; False: one process per cell.
    """

    workers: int | None = None
    per_gpu: int = 1
    warm: bool = True
    name = "local"

    def options(self) -> dict[str, Any]:
        """For the launch's record."""
        return dataclasses.asdict(self)

    def admit(self, cell: Cell) -> None:
        """Refuse a cell that wants a GPU where torch has none."""
        need_gpu(cell)

    def describe(self, cells: Sequence[Planned]) -> str:
        """Minutes, and the workers they are shared by."""
        slots = Slots.here(self.workers, self.per_gpu)
        minutes: dict[int, float] = {}
        for cell in cells:
            at_once = slots.count(cell.device, cell.threads)
            minutes[at_once] = minutes.get(at_once, 0.0) + cell.needs.minutes
        total = sum(spent / at_once for at_once, spent in minutes.items())
        longest = max(cell.needs.minutes for cell in cells)
        workers = " to ".join(plural(n, "worker") for n in sorted({min(minutes), max(minutes)}))
        return f"about {duration(60 * max(total, longest))} on {workers}"

    def run(self, grid: Grid, display: Display) -> bool:
        """Run the grid's cells; False when a signal stopped it."""
        with Scheduler(Slots.here(self.workers, self.per_gpu), display, self.warm) as scheduler:
            scheduler.warm_up()
            return scheduler.run(job for job, _ in grid.todo())


def checked(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of :class:`Local`, as they are.

    Raises:
        UserError: for a bad value.
    """
    for key, value in options.items():
        if key == "warm" and not isinstance(value, bool):
            raise UserError(f"{key}: got {value!r}, expected true or false")
        if key == "workers" and value is None:
            continue
        if key in ("workers", "per_gpu") and not (type(value) is int and value > 0):
            raise UserError(f"{key}: got {value!r}, expected an integer of at least 1")
    return dict(options)


@dataclass
class Inline:
    """One cell after the other in this process: for debuggers."""

    name = "inline"

    def options(self) -> dict[str, Any]:
        """None."""
        return {}

    def admit(self, cell: Cell) -> None:
        """Refuse a cell that wants a GPU where torch has none."""
        need_gpu(cell)

    def describe(self, cells: Sequence[Planned]) -> str:
        """All minutes together."""
        return f"about {duration(60 * sum(cell.needs.minutes for cell in cells))}, one at a time"

    def run(self, grid: Grid, display: Display) -> bool:
        """Run the grid's cells; False when a signal stopped it."""
        from runner.train.session import run_cell

        return all(run_here(job, display, run_cell) for job in _jobs(grid))


def need_gpu(cell: Cell) -> None:
    """Raise a UserError where a cell wants a GPU and torch has none."""
    if cell.config["device"] != "cpu":
        gpus.required()


def run_here(job: Job, display: Display, run_cell: Any) -> bool:
    """Train a cell in this process; False when a signal stopped it."""
    display.started(job)
    status = run_cell(job.path, lambda event: display.event(job, event))
    display.ended(job, status)
    if "left" in status:
        display.notice(f"{job.title}: did not restore {status['left']}, which affects later cells")
    return status["status"] != "preempted"


def _jobs(grid: Grid) -> Iterator[Job]:
    return (job for job, _ in grid.todo())

"""``hydra/launcher=slurm``: composes the grid here, queues what is missing, and leaves or watches."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from runner.base.errors import UserError
from runner.cells import slurm_queue
from runner.cells.cell import Cell, experiment_folder
from runner.cells.launches import launches
from runner.cells.survey import duration
from runner.compose.commands import command
from runner.compose.resources import estimate, recorded_minutes
from runner.launch.display import Display, plural
from runner.launch.grid import Grid, Planned
from runner.launch.scheduler import Job
from runner.launch.slurm.options import SlurmOptions
from runner.launch.slurm.pack import CellSpec, arrays
from runner.launch.slurm.submit import max_tasks, submit
from runner.launch.slurm.watch import watch

Chosen = list[tuple[Job, Cell]]


class Slurm:
    """A SLURM cluster, as this machine sees it.

    Raises:
        UserError: for bad options.
    """

    name = "slurm"

    def __init__(self, **options: Any) -> None:
        self._options = SlurmOptions.of(options)

    def options(self) -> dict[str, Any]:
        """For the launch's record."""
        return dataclasses.asdict(self._options)

    def admit(self, cell: Cell) -> None:
        """Its job will see what the node has."""

    def describe(self, cells: Sequence[Planned]) -> str:
        """Minutes of computing, and the tasks that they are packed into."""
        packed = arrays([CellSpec(cell.name, cell.needs) for cell in cells], self._options, max_tasks())
        tasks = sum(len(array.tasks) for array in packed)
        spent = duration(60 * sum(cell.needs.minutes for cell in cells))
        limit = duration(60 * max(array.minutes for array in packed))
        return (
            f"about {spent} of computing, in {plural(tasks, 'task')} of {plural(len(packed), 'array')} "
            f"(time limit: {limit} at most)"
        )

    def run(self, grid: Grid, display: Display) -> bool:
        """Queue the grid's cells; with ``wait``, stay until they have ended.

        Returns:
            True; Ctrl-C while watching leaves the jobs alone, and goes on to the caller.

        Raises:
            UserError: where there is no SLURM, or it refuses a job.
        """
        if shutil.which("sbatch") is None:
            raise UserError(
                "hydra/launcher=slurm: this machine has no sbatch; launch from the cluster's login node"
            )
        chosen: dict[Path, Chosen] = {}
        for number, (job, cell) in enumerate(grid.todo(), 1):
            if number % 500 == 0:
                display.say(f"{number:,} cells composed")
            chosen.setdefault(experiment_folder(cell.config), []).append((job, cell))
        for experiment, cells in chosen.items():
            self._queue(experiment, cells, grid, display)
        for experiment, cells in chosen.items():
            jobs = [job for job, _ in cells]
            if self._options.wait:
                watch(launches(experiment), jobs, display, self._options.poll)
            else:
                display.statuses |= {job.path: {"status": "queued"} for job in jobs}
        return True

    def _queue(self, experiment: Path, cells: Chosen, grid: Grid, display: Display) -> None:
        before = launches(experiment)
        asked = slurm_queue.ask(before)
        if asked.reason is not None:  # cells would be queued twice
            raise UserError(f"SLURM does not report its queue: {asked.reason}")
        here = slurm_queue.by_cell(before, asked)
        missing = [(job, cell) for job, cell in cells if job.path.name not in here]
        if len(missing) < len(cells):
            display.notice(f"{len(cells) - len(missing)} of {len(cells)} cells are already queued")
        if not missing:
            return
        launch = grid.launch(experiment)
        ids = submit(experiment, list(_specs(experiment, missing)), self._options, launch)
        tasks = sum(len(array["tasks"]) for array in launch.record["arrays"])
        what = f"{plural(len(missing), 'cell')} in {plural(tasks, 'task')}"
        how = command("runner.status", experiment)
        display.notice(f"{what}: job {', '.join(ids)}; progress: {how}")


def _specs(experiment: Path, cells: Chosen) -> Iterable[CellSpec]:
    recorded = recorded_minutes(experiment)
    return (CellSpec(job.path.name, estimate(cell.config, recorded)) for job, cell in cells)

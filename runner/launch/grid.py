"""A grid of cells: composed as a stream, what is done skipped, the rest handed to a backend."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from runner.base.errors import one_line
from runner.cells.cell import Cell, ensure_writable, experiment_folder
from runner.cells.launches import Launch
from runner.cells.places import Places
from runner.compose.resources import Resources
from runner.contract.records import ENDED
from runner.launch.display import Display
from runner.launch.scheduler import Job
from runner.provenance.source import UNAVAILABLE, not_here

AGAIN = {
    "stale": "rerun: source or data has changed",
    "damaged": "rerun: its evaluations are damaged",
}
CHECKED_AHEAD = 64  # override lists that are composed before the first cell is drawn


@dataclass(frozen=True)
class Planned:
    """A cell of a grid, as a dry run shows it.

    Attributes:
        name: of its folder.
        workload, label: its row of the table.
        column: one of :data:`runner.launch.plan.COLUMNS`.
        needs: estimated.
        device, threads: what it runs on.
    """

    name: str
    workload: str
    label: str
    column: str
    needs: Resources
    device: str
    threads: int


class Backend(Protocol):
    """Where cells run."""

    name: str

    def options(self) -> dict[str, Any]:
        """What the launch's record says about how it ran."""
        ...

    def admit(self, cell: Cell) -> None:
        """Raise a UserError for a cell that cannot run there, before anything of it is written."""
        ...

    def describe(self, cells: Sequence[Planned]) -> str:
        """How long these cells would take, and on what, for a dry run."""
        ...

    def run(self, grid: Grid, display: Display) -> bool:
        """Bring every cell of ``grid.todo()`` on its way; False when a signal stopped it before."""
        ...


@dataclass
class Grid:
    """The cells of one launch.

    Attributes:
        jobs: override lists, before rulesets and ``grid:`` expand them.
        display: is told what is skipped.
        left_alone: states of cells that do not run.
    """

    jobs: Sequence[Sequence[str]]
    backend: Backend
    display: Display
    config_dirs: Sequence[Path] = ()
    launches: dict[Path, Launch] = field(default_factory=dict)
    experiments: list[Path] = field(default_factory=list)
    left_alone: Sequence[str] = ENDED
    _size: int | None = None
    _names: dict[Path, list[str]] = field(default_factory=dict)
    _places: Places = field(default_factory=Places)

    def cells(self) -> Iterator[Cell]:
        """Every cell once, as it is composed.

        Mistakes show early: one list for each override that has not been seen yet is composed before anything
        trains.

        Raises:
            UserError: for bad input, and where two settings would end as one name.
        """
        from runner.compose.expand import expand_all

        first, *rest = lists = list(expand_all(self.jobs, self.config_dirs))
        self._size = len(lists)
        self.display.expects(self._size)
        cell = self._composed(first)
        for overrides in itertools.islice(_corners(first, rest), CHECKED_AHEAD):
            self._composed(overrides)
        yield cell
        seen = {cell.folder.path}
        for overrides in rest:
            cell = self._composed(overrides)
            if cell.folder.path not in seen:
                seen.add(cell.folder.path)
                yield cell

    def todo(self) -> Iterator[tuple[Job, Cell]]:
        """The cells that have to run, their folders written; the others are shown as skipped."""
        for cell in self.cells():
            experiment = self._experiment(cell)
            self._note(experiment, cell)
            try:
                job = self._taken_up(cell, experiment)
            except OSError as error:
                failed = {"status": "failed", "error": one_line(f"its folder cannot be used: {error}")}
                self.display.ended(job_of(cell), failed)
                continue
            if job is not None:
                yield job, cell
        for experiment in self.launches:
            self._note(experiment)
            with contextlib.suppress(OSError):  # a full disk
                self.launches[experiment].update(composed=True)

    def _taken_up(self, cell: Cell, experiment: Path) -> Job | None:
        """The cell as the backend wants it, its folder written; None where it is not to run."""
        state = cell.state()
        job = job_of(cell, state)
        if state in self.left_alone:
            with contextlib.suppress(OSError):
                cell.tidy()
            self.display.skipped(job, cell.folder.status())
            return None
        if state == UNAVAILABLE:
            self.display.ended(job, {"status": "failed", "error": not_here(cell.unreachable())})
            return None
        self.backend.admit(cell)
        self._warn(cell)
        cell.submit()
        self.launch(experiment)
        return job

    def launch(self, experiment: Path) -> Launch:
        """The record of this launch in an experiment's folder."""
        if experiment not in self.launches:
            launch = Launch.create(experiment, self.backend.name, self.backend.options())
            self.launches[experiment] = launch
            if self._size is not None:
                launch.update(grid=self._size)
        return self.launches[experiment]

    def end(self) -> None:
        """Say in the launches' records that they are over."""
        for launch in self.launches.values():
            with contextlib.suppress(OSError):  # a full disk
                launch.update(ended=time.time())

    def _note(self, experiment: Path, cell: Cell | None = None) -> None:
        """What this launch is about, which tells later what of it is missing. No cell fails for its sake."""
        names = self._names.setdefault(experiment, [])
        if cell is not None:
            names.append(cell.folder.path.name)
        if names and experiment in self.launches:
            with contextlib.suppress(OSError):
                self.launches[experiment].add(names)
                names.clear()

    def _composed(self, overrides: Sequence[str]) -> Cell:
        cell = Cell.from_overrides(overrides, self.config_dirs)
        self._places.claim(cell, overrides)
        return cell

    def _experiment(self, cell: Cell) -> Path:
        experiment = experiment_folder(cell.config)
        if experiment not in self.experiments:
            ensure_writable(experiment)
            self.experiments.append(experiment)
        return experiment

    def _warn(self, cell: Cell) -> None:
        for name in self._places.namesakes(cell):
            self.display.notice(
                f"{cell.title} already exists with a different config (cells/{name}), and a leaderboard "
                "rejects duplicates: move that folder away, or set label=NAME or name=EXPERIMENT"
            )
        workload = cell.config["workload"]
        if workload.get("data_id") and workload["target"] is None:
            self.display.notice(
                f"{cell.config['workload_label']}: conf/targets has no target for this installation's data "
                f"({workload['data_id']}); training for the whole budget"
            )


def job_of(cell: Cell, state: str = "pending") -> Job:
    """What the scheduler has to know about a cell."""
    note = "from its checkpoint" if cell.can_resume() else AGAIN.get(state, "")
    return Job.of(cell.folder.path, cell.config, cell.title, note=note, sources=cell.sources)


def _corners(first: Sequence[str], rest: Iterable[Sequence[str]]) -> Iterator[Sequence[str]]:
    seen = set(first)
    for overrides in rest:
        # Counts are right or wrong together.
        telling = {o for o in overrides if not o.startswith(("study=", "trial="))}
        if not seen.issuperset(telling):
            seen.update(telling)
            yield overrides

"""The runner from Python: for notebooks, Optuna, SMAC."""

from __future__ import annotations

import atexit
import functools
import importlib
import itertools
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.base.errors import UserError
from runner.base.paths import expanded, own_folders
from runner.cells.cell import Cell, ensure_writable, experiment_folder
from runner.compose.config import explained, hydra_ready
from runner.compose.expand import expand
from runner.compose.overrides import as_hydra, name_of
from runner.contract.records import ENDED, FINISHED
from runner.launch.grid import job_of
from runner.launch.scheduler import Judge, Scheduler, Silent
from runner.machine.slots import Slots
from runner.provenance import source

if TYPE_CHECKING:
    import pandas as pd

_GRID = "run() trains one cell, but this is a grid: set study= and trial=, or use python -m runner"


def run(
    overrides: Sequence[str] | str,
    config_dirs: Sequence[str | Path] = (),
    inline: bool = False,
    callback: Callable[[dict[str, Any]], bool | None] | None = None,
    promote: bool = False,
) -> pd.Series:
    """Train the cell that ``overrides`` describe, or take it as it is when it is done.

    The cell trains in a worker process that stays warm between calls. Where another process is training it,
    this waits.

    Args:
        overrides: as on the command line; one text is taken apart as a shell does it.
        config_dirs: folders beside ``conf/``.
        inline: train in this process: for debuggers.
        callback: gets every evaluation as it is made, a row of the ``evals`` table; True stops the cell
            there, which keeps its checkpoint and has ``status`` ``"stopped"`` and ``reason`` ``"callback"``.
            Training and its clock wait meanwhile. What it raises reaches the caller, once the cell has
            written its checkpoint.
        promote: go on with a cell that was stopped; otherwise it is taken as it is.

    Returns:
        The cell's row, as in the ``cells`` table of :func:`runner.cells.tables.load`: ``status``, ``hit``,
        ``samples_to_target``, ``seconds_to_target``, …; infinite where the target was missed. A cell that
        failed has ``status`` ``"failed"`` and its ``error``.

    Files are looked at anew at each call: after an edit, a cell trains in a fresh worker, and the result of
    the old code moves to ``superseded/``.

    Raises:
        UserError: for an unknown name or key, a bad value, or a grid, as this trains one cell; where the
            cell's algorithm cannot be imported, or its new code cannot start, and so its old result stays;
            with ``inline``, after an edit.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once the cell has written its checkpoint.
    """
    from runner.cells.tables import cell_row

    importlib.invalidate_caches()  # modules that were written since
    folders = [*own_folders(), *map(expanded, config_dirs)]
    given = shlex.split(overrides) if isinstance(overrides, str) else list(overrides)
    cell = Cell.from_overrides(_of_one_cell(given, folders), folders)
    ensure_writable(experiment_folder(cell.config))
    state = cell.state()
    if state == source.UNAVAILABLE:
        raise UserError(f"{cell.title}: {source.not_here(cell.unreachable())}")
    if state not in (FINISHED if promote else ENDED):
        status = _trained(cell, inline, _judge(callback))
        if status["status"] == "failed" and cell.folder.status()["status"] in FINISHED:
            raise UserError(f"{cell.title}: {status['error']}")
    return cell_row(cell.folder.path)


def _of_one_cell(overrides: list[str], config_dirs: Sequence[Path]) -> list[str]:
    with explained(config_dirs, overrides), hydra_ready(config_dirs) as using:
        shaped = any(name_of(o) == "experiment" for o in overrides)
        swept = shaped and using.launch_config([*map(as_hydra, overrides)]).hydra.sweeper.params
        cells = list(itertools.islice(expand(overrides, config_dirs), 2))
    if swept or len(cells) != 1:
        raise UserError(_GRID)
    return cells[0]


def _trained(cell: Cell, inline: bool, judge: Judge | None) -> dict[str, Any]:
    """The status with which the cell's training has ended."""
    edited = source.edited_since_loaded(cell.config) if inline else []
    if edited:
        raise UserError(
            f"{', '.join(edited)} was edited after this process imported it: do not use inline, or restart"
        )
    cell.submit()
    return train_here(cell, judge) if inline else _train(cell, judge)


def train_here(cell: Cell, judge: Judge | None = None) -> dict[str, Any]:
    """Train in this process; returns the status record."""
    from runner.train.session import run_cell

    status = run_cell(cell.folder.path, ask=judge or (lambda _row: None))
    if "left" in status:
        print(f"{cell.title}: did not restore {status['left']} in this process", file=sys.stderr)
    return status


def _judge(callback: Callable[[dict[str, Any]], bool | None] | None) -> Judge | None:
    return None if callback is None else lambda row: "callback" if callback(row) else None


def _train(cell: Cell, judge: Judge | None) -> dict[str, Any]:
    scheduler, observer = _scheduler()
    scheduler.stopped, scheduler.judge = 0, judge
    if not scheduler.run([job_of(cell)]):
        raise KeyboardInterrupt
    return observer.statuses.pop(cell.folder.path)


@functools.lru_cache(maxsize=1)
def _scheduler() -> tuple[Scheduler, Silent]:
    observer = Silent()
    scheduler = Scheduler(Slots.here(workers=1), observer)
    atexit.register(scheduler.close)
    return scheduler, observer

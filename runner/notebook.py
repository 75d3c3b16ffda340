"""The runner from Python: for notebooks, Optuna, SMAC."""

from __future__ import annotations

import atexit
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runner.cell import Cell, ensure_writable, experiment_folder
from runner.grid import run_here
from runner.pool import Worker
from runner.records import FINISHED

if TYPE_CHECKING:
    import pandas as pd


def run(overrides: Sequence[str], config_dirs: Sequence[Path] = ()) -> pd.Series:
    """Train the cell that ``overrides`` describe, or take it as it is when it is done.

    The cell trains in a worker process that stays warm between calls (``isolate=false``: in this one).

    Returns:
        The cell's row, as in the ``cells`` table of :func:`runner.tables.load`: ``status``, ``hit``,
        ``samples_to_target``, ``seconds_to_target``, …; infinite where the target was missed. A cell that
        failed has ``status`` ``"failed"`` and its ``error``.

    Raises:
        UserError: for an unknown name or key, or a bad value.
    """
    from runner.tables import cell_row

    cell = Cell.from_overrides(overrides, config_dirs)
    ensure_writable(experiment_folder(cell.config))
    if cell.state() not in FINISHED:
        cell.submit()
        if cell.config["isolate"]:
            _worker().run(cell.folder)
        else:
            run_here(cell, lambda _event: None)
    return cell_row(cell.folder.path)


@functools.lru_cache(maxsize=1)
def _worker() -> Worker:
    worker = Worker()
    atexit.register(worker.close)
    return worker

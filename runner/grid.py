"""Run cells one after the other on this machine, skipping what is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from runner.cell import Cell, ensure_writable, experiment_folder
from runner.display import Display
from runner.errors import UserError
from runner.pool import Worker
from runner.records import FINISHED

INTERRUPTED = 130  # what a shell reports for a process that Ctrl-C ended


def run_grid(grid: Sequence[Sequence[str]], config_dirs: Sequence[Path] = ()) -> int:
    """Run the cell of every override list; returns the exit code.

    Every list is composed, and so checked, before the first cell starts.

    Returns:
        0 when every cell is done or diverged, 1 when one failed, 2 for bad input, 130 after Ctrl-C.
    """
    try:
        cells = [Cell.from_overrides(overrides, config_dirs) for overrides in grid]
        for folder in {experiment_folder(cell.config) for cell in cells}:
            ensure_writable(folder)
    except UserError as error:
        Display.error(str(error))
        return 2
    with Display(len(cells)) as display:
        try:
            statuses = [run_one(cell, display, worker) for worker, cell in _with_worker(cells)]
        except KeyboardInterrupt:
            display.interrupted()
            return INTERRUPTED
    return display.summary(statuses)


def run_one(cell: Cell, display: Display, worker: Worker) -> dict[str, Any]:
    """Bring one cell to its end, unless it is there already; returns its status record."""
    state = cell.state()
    if state in FINISHED:
        display.skipped(cell)
        return cell.folder.status()
    display.started(cell, resumes=cell.folder.checkpoint_file.exists(), stale=state == "stale")
    cell.submit()
    if cell.config["isolate"]:
        status = worker.run(cell.folder, display.event)
    else:
        status = run_here(cell, display.event)
    display.ended(cell, status)
    return status


def run_here(cell: Cell, notify: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Train in this process (``isolate=false``): for debuggers, and where processes are not to be had."""
    from runner.execute import run_cell

    return run_cell(cell.folder.path, notify)


def _with_worker(cells: Iterable[Cell]) -> Iterable[tuple[Worker, Cell]]:
    worker = Worker()
    try:
        for cell in cells:
            yield worker, cell
    finally:
        worker.close()

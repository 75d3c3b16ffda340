"""``dry_run=true``: what a grid would do, and how long that would take. Writes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from runner.base.terminal import Console
from runner.cells.cell import Cell, experiment_folder
from runner.cells.launches import launches
from runner.cells.survey import DOUBTED, FAILED, can_ask_slurm
from runner.compose.resources import Recorded, estimate, recorded_minutes
from runner.contract.records import FINISHED
from runner.launch.display import plural
from runner.launch.grid import Backend, Grid, Planned
from runner.provenance.source import UNAVAILABLE

COLUMNS = ("done", "stopped", "missing", "to resume", "failed", *DOUBTED, UNAVAILABLE, "elsewhere")
# At an end, or in the hands of somebody else.
LEFT_ALONE = ("done", "stopped", UNAVAILABLE, "elsewhere")


def show(grid: Grid) -> int:
    """Compose every cell of a grid and print how it stands and what is to be done.

    Returns:
        0 where every cell can be used.

    Raises:
        UserError: for bad input.
    """
    cells = list(_planned(grid))
    console = Console(highlight=False)
    console.print(table(cells, console.is_terminal))
    counts = Counter(cell.column for cell in cells)
    words = ", ".join(f"{counts[name]:,} {name}" for name in COLUMNS if counts[name])
    console.print(f"{plural(len(cells), 'cell')}: {words}", soft_wrap=True)
    console.print(
        to_do([cell for cell in cells if cell.column not in LEFT_ALONE], grid.backend), soft_wrap=True
    )
    return grid.display.failures()


def table(cells: Iterable[Planned], pretty: bool = False) -> Table:
    """Cells of a workload and a label by how they stand; empty columns are left out."""
    rows: dict[tuple[str, str], Counter[str]] = {}
    for cell in cells:
        rows.setdefault((cell.workload, cell.label), Counter())[cell.column] += 1
    shown = [name for name in COLUMNS if any(row[name] for row in rows.values())]
    made = Table(box=box.SIMPLE_HEAD if pretty else box.ASCII2, pad_edge=False)
    for name in ("workload", "algorithm"):
        made.add_column(name, overflow="fold", min_width=9)
    for name in shown:
        made.add_column(name, justify="right", no_wrap=True)
    for (workload, label), row in rows.items():
        made.add_row(
            escape(workload), escape(label), *(f"{row[name]:,}" if row[name] else "" for name in shown)
        )
    return made


def to_do(cells: Sequence[Planned], backend: Backend) -> str:
    """``to run: 12 cells, about 2 h 10 min on 4 workers``."""
    if not cells:
        return "nothing to run"
    return f"to run: {plural(len(cells), 'cell')}, {backend.describe(cells)} (dry run: nothing was started)"


# -- the cells ---------------------------------------------------------------------------------------


def _planned(grid: Grid) -> Iterator[Planned]:
    recorded: dict[Path, dict[tuple[str, str], Recorded]] = {}
    queued: dict[Path, set[str]] = {}
    for cell in _counted(grid):
        experiment = experiment_folder(cell.config)
        if experiment not in recorded:
            recorded[experiment] = recorded_minutes(experiment)
            queued[experiment] = _queued(experiment)
        config, name = cell.config, cell.folder.path.name
        needs = estimate(config, recorded[experiment])
        column = _column(cell, name in queued[experiment])
        facts = config["workload_label"], config["label"], column, needs, config["device"], config["threads"]
        yield Planned(name, *facts)


def _counted(grid: Grid) -> Iterator[Cell]:
    """The grid's cells, with a bar on a terminal: composing takes 10 to 40 ms a cell."""
    columns = TextColumn("composing"), MofNCompleteColumn(), TimeRemainingColumn()
    console = grid.display.console
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=None)
        for cell in grid.cells():
            progress.update(bar, advance=1, total=grid.display.total)
            yield cell


def _column(cell: Cell, queued: bool) -> str:
    state = cell.state()
    if state in FINISHED:
        return "done"
    if state == "running" or queued:
        return "elsewhere"
    if state in FAILED:
        return "failed"
    if state in (*DOUBTED, UNAVAILABLE, "stopped"):
        return state
    return "to resume" if cell.can_resume() else "missing"


def _queued(experiment: Path) -> set[str]:
    ours = [launch for launch in launches(experiment) if launch.record.get("launcher") == "slurm"]
    if not ours or not can_ask_slurm():
        return set()
    from runner.cells.slurm_queue import alive

    return alive(ours)

"""``python -m runner.status results/<name>``: an experiment's progress and failures.

Read-only, from any machine that sees the folder. On a terminal the table updates until nothing is running.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from runner.base.cli import add_json, leave, print_json
from runner.base.errors import UserError, one_line
from runner.base.paths import expanded
from runner.base.terminal import Console
from runner.cells.launches import Launch
from runner.cells.survey import DOUBTED, FAILED, Seen, View, duration, experiments, look, place
from runner.compose.commands import command
from runner.contract.records import ENDED, CellFolder
from runner.launch.display import outcome, plural
from runner.logs import afterwards
from runner.provenance import trust
from runner.provenance.source import UNAVAILABLE

REFRESH = 2.0  # seconds between two looks; more where a look takes long
SHARE = 5  # of the time at most this part is spent looking: others use the file system, too
SHOWN = 20  # failures, and running cells, that are listed without --cells
BROKEN = (*FAILED, "damaged")
LAUNCHES = 3  # ended launches that are listed
COLOURS = {
    **dict.fromkeys(("done", "diverged"), "green"),
    **dict.fromkeys(("running", "queued"), "cyan"),
    **dict.fromkeys(("killed", "preempted", "stale", UNAVAILABLE), "yellow"),
    **dict.fromkeys(BROKEN, "red"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Show the experiment; 2 for bad input."""
    options = _parser().parse_args(argv)
    console = Console(highlight=False)
    try:
        trust.allow(options.allow)
        if not (options.folder / "cells").is_dir() and (found := experiments(options.folder)):
            _show_all(options.folder, found, options.json, console)
        else:
            _show(options, console)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runner.status",
        description="Show an experiment's progress and failures. Changes nothing.",
    )
    parser.add_argument("folder", type=expanded, help="results/<name>; plain results lists all experiments")
    parser.add_argument("--once", action="store_true", help="print once and exit, even on a terminal")
    parser.add_argument("--watch", type=_seconds, metavar="SECONDS", help="refresh at this interval")
    add_json(parser)
    parser.add_argument(
        "--check", action="store_true", help="read all evaluations and checkpoints, and report damage"
    )
    parser.add_argument("--cells", action="store_true", help="list every cell with the reason for its state")
    trust.add_option(parser)
    return parser


def _seconds(text: str) -> float:
    if not float(text) > 0:
        raise ValueError
    return float(text)


def _show(options: argparse.Namespace, console: Console) -> None:
    experiment, only = place(options.folder)

    def now() -> View:
        view = look(experiment, check=options.check)
        if only is not None:
            view.cells = [cell for cell in view.cells if cell.name == only]
        if options.check:
            view.notices += damaged_checkpoints(view.cells)
        return view

    if options.json:
        print_json(as_json(now()))
    elif options.once or not (console.is_terminal or options.watch):
        console.print(render(now(), options.cells), soft_wrap=not console.is_terminal)
    elif console.is_terminal:
        _live(now, options, console)
    else:
        for view in _looks(now, options.watch):
            console.print(render(view, options.cells), "", soft_wrap=True)


def _show_all(results: Path, found: Sequence[Path], as_json: bool, console: Console) -> None:
    """The experiments of a folder, each in a line."""
    if as_json:
        print_json([{"experiment": str(path), "counts": look(path).counts} for path in found])
    else:
        console.print(_overview(results, found))


def damaged_checkpoints(cells: Iterable[Seen]) -> Iterator[str]:
    """One line per checkpoint that cannot be resumed from; its cell would start over."""
    from runner.train import checkpoint

    for cell in cells:
        file = CellFolder(cell.path).checkpoint_file
        if file.exists() and (damage := checkpoint.damage(file)) is not None:
            yield f"{cell.title}: checkpoint.pt is damaged ({damage})"


def _live(now: Callable[[], View], options: argparse.Namespace, console: Console) -> None:
    """A table that updates in place, followed by the full final state."""
    from rich.live import Live

    view = None
    try:
        with Live(console=console, transient=True, auto_refresh=False) as live:
            for view in _looks(now, options.watch or REFRESH):
                live.update(render(view, options.cells), refresh=True)
    finally:
        if view is not None:
            console.print(render(view, options.cells))


def _looks(now: Callable[[], View], pause: float) -> Iterator[View]:
    """Repeated views, until no cell is running or waiting."""
    while True:
        began = time.monotonic()
        view = now()
        yield view
        if not any(cell.coming for cell in view.cells):
            return
        time.sleep(max(pause, (SHARE - 1) * (time.monotonic() - began)))


# -- what is shown -----------------------------------------------------------------------------------


def render(view: View, every: bool = False) -> RenderableType:
    """The experiment's counts, launches, running cells, failures, and unfinished cells without a worker.

    Args:
        view: the experiment.
        every: list all cells.
    """
    limit = len(view.cells) if every else SHOWN
    parts: list[RenderableType] = [_counts(view)]
    parts += [_line(notice, "yellow") for notice in view.notices[:limit]]
    parts += _launches(view)
    parts += _running([cell for cell in view.cells if cell.lock is not None], limit)
    broken = [cell for cell in view.cells if cell.state in BROKEN]
    parts += _failures(broken, view.experiment, limit)
    parts += _others(view.cells) if every else []
    parts += _advice(view)
    return Group(*parts)


def as_json(view: View) -> dict[str, Any]:
    """The same as JSON-compatible data; times are in seconds since 1970."""
    return {
        "experiment": str(view.experiment),
        "counts": view.counts,
        "launches": [
            {"folder": launch.path.name, "state": view.state_of(launch), **launch.record}
            for launch in view.launched
        ],
        "cells": [
            {"folder": cell.name, "title": cell.title, "state": cell.state, "coming": cell.coming,
             "status": cell.status, "progress": progress(cell)}
            for cell in view.cells
        ],
        "notices": view.notices,
    }  # fmt: skip


def progress(cell: Seen) -> dict[str, float | None] | None:
    """Progress of a running cell: ``steps``, ``share`` of the budget, ``steps_per_second``, and
    ``seconds_left`` at most (it may hit its target earlier); None before training starts.
    """
    lock = cell.lock or {}
    steps, drawn, budget = (lock.get(key) for key in ("steps", "drawn", "budget"))
    if steps is None or drawn is None or not budget:
        return None
    elapsed = lock.get("beat", 0.0) - lock.get("since", lock.get("started", 0.0))
    new = drawn - lock.get("drawn_at_start", 0)
    rate = new / elapsed if elapsed > 0 and new > 0 else None
    return {
        "steps": steps,
        "share": min(drawn / budget, 1.0),
        "steps_per_second": None if rate is None or not drawn else rate * steps / drawn,
        "seconds_left": None if rate is None else max(budget - drawn, 0) / rate,
    }


def _counts(view: View) -> Text:
    text = Text.assemble((str(view.experiment), "bold"), f": {plural(len(view.cells), 'cell')}")
    for place_, (state, count) in enumerate(view.counts.items()):
        text.append(": " if place_ == 0 else ", ").append(f"{count:,} {state}", COLOURS.get(state, ""))
    return text


def _launches(view: View) -> Iterator[RenderableType]:
    states = [(launch, view.state_of(launch)) for launch in view.launched]
    over = [launch for launch, state in states if state in ("ended", "gone")]
    hidden = over[:-LAUNCHES]
    if hidden:
        yield _line(f"earlier launches that have ended, not shown: {len(hidden)}", "dim")
    for launch, state in states:
        if launch not in hidden:
            yield _line(_launch(launch, state), "dim" if launch in over else "")


def _launch(launch: Launch, state: str) -> str:
    record = launch.record
    ago = duration(max(0.0, time.time() - launch.submitted))
    where = record.get("host", "?")
    arrays = [str(array["id"]) for array in record.get("arrays") or []]
    if arrays:
        where += f", job {', '.join(arrays[:4])}{', …' if len(arrays) > 4 else ''}"
    elif state == "running":
        where += f", process {record.get('pid')}"
    said = "process is gone without having recorded an end" if state == "gone" else state
    return f"launch {launch.path.name}: {record.get('launcher', '?')} on {where}, {ago} ago: {said}"


def _running(cells: Sequence[Seen], limit: int) -> Iterator[RenderableType]:
    if not cells:
        return
    table = Table(box=None, pad_edge=False, title_justify="left", padding=(0, 2, 0, 0))
    table.add_column("running", overflow="fold", min_width=24, header_style="cyan")
    for name in ("step", "done", "steps/s", "left"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("host", overflow="ellipsis", no_wrap=True, max_width=14)
    for cell in cells[:limit]:
        lock = cell.lock or {}
        host = " ".join(str(lock[key]) for key in ("host", "job") if lock.get(key))
        table.add_row(Text(cell.title), *_progress(cell), Text(host))
    yield Text()
    yield table
    if len(cells) > limit:
        yield _line(f"and {len(cells) - limit:,} more", "dim")


def _progress(cell: Seen) -> list[str]:
    now = progress(cell)
    if now is None:
        return ["starting", "", "", ""]
    rate, left = now["steps_per_second"], now["seconds_left"]
    return [
        f"{now['steps']:,}",
        f"{now['share']:.0%}",
        "" if rate is None else f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}",
        "" if left is None else f"≤ {duration(left)}",
    ]


def _failures(cells: Sequence[Seen], experiment: Path, limit: int) -> Iterator[RenderableType]:
    if not cells:
        return
    yield Text()
    for cell in cells[:limit]:
        yield _line(f"{cell.title}: {cell.state}: {one_line(_why(cell), 160)}", "red")
        yield _line(f"  {experiment / 'cells' / cell.name}", "dim")
    if len(cells) > limit:
        yield _line(f"and {len(cells) - limit:,} more (--cells lists all)", "red")


def _why(cell: Seen) -> str:
    return CellFolder(cell.path).damage() or cell.status.get("error", "")


def _others(cells: Iterable[Seen]) -> Iterator[RenderableType]:
    """Every cell not already listed as running or failed, with its state and the reason."""
    others = [cell for cell in cells if cell.lock is None and cell.state not in BROKEN]
    if others:
        yield Text()
    for cell in others:
        said = cell.reason or (outcome(cell.status) if cell.status["status"] in ENDED else "")
        words = ": ".join(filter(None, [cell.title, cell.state, said]))
        yield _line(words, COLOURS.get(cell.state, ""))


def _advice(view: View) -> Iterator[RenderableType]:
    """Cells that no worker will finish, and the command that runs them."""
    left = [cell for cell in view.cells if cell.left_behind]
    again = [cell for cell in view.cells if cell.state in (*FAILED, *DOUBTED)]
    if left or again:
        yield Text()
    if left:
        yield _line(f"unfinished, with no worker or job assigned: {_by_state(left)}", "yellow")
        yield from (
            _line(f"  last line of a job's log: {said}", "yellow") for said in _last_words(view, left)
        )
    if again:
        yield _line(f"need to be run again: {_by_state(again)}", "yellow")
    if left or again:
        yield _line(f"  {command('runner.retry', view.experiment)}")
    for reason, count in Counter(cell.reason for cell in view.cells if cell.state == UNAVAILABLE).items():
        yield _line(f"{plural(count, 'finished cell')}: {reason}", "yellow")
    if not any(cell.coming for cell in view.cells):
        yield from map(_line, afterwards(view.experiment))


def _last_words(view: View, left: Sequence[Seen]) -> list[str]:
    """The last lines that these cells' batch jobs printed, without repeats."""
    from runner.cells import slurm_queue

    said = dict.fromkeys(slurm_queue.last_words(view.launched, cell.name) for cell in left[:SHOWN])
    return [words for words in said if words]


def _by_state(cells: Iterable[Seen]) -> str:
    counts: dict[str, int] = {}
    for cell in cells:
        counts[cell.state] = counts.get(cell.state, 0) + 1
    return ", ".join(f"{count:,} {state}" for state, count in counts.items())


def _overview(results: Path, found: Sequence[Path]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("experiment", overflow="fold", min_width=12)
    table.add_column("cells", justify="right")
    table.add_column("by state", overflow="fold")
    for experiment in found:
        view = look(experiment)
        counts = ", ".join(f"{count:,} {state}" for state, count in view.counts.items())
        name = experiment.relative_to(results).as_posix()
        table.add_row(escape(name), f"{len(view.cells):,}", counts)
    return table


def _line(text: str, style: str = "") -> Text:
    return Text(text, style)


if __name__ == "__main__":
    leave(main, tidies=True)

"""What a person sees while cells run: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from runner.cell import Cell
from runner.records import FINISHED

QUIET_SECONDS = 15.0  # between two plain progress lines


class Display:
    """Progress of a grid of ``total`` cells; a context manager."""

    def __init__(self, total: int) -> None:
        self.total, self.seen = total, 0
        self.console = Console(stderr=True, highlight=False)
        self.bars: Progress | None = None
        self._grid = self._cell = None
        self._spoke = 0.0
        self._title = ""
        self._said: set[str] = set()

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            text = "{task.description}", "{task.percentage:>3.0f}%", "{task.fields[note]}"
            name, share, note = (TextColumn(t) for t in text)
            columns = name, BarColumn(bar_width=18), share, note, TimeElapsedColumn(), TimeRemainingColumn()
            self.bars = Progress(*columns, console=self.console, transient=True)
            self.bars.start()
            if self.total > 1:
                self._grid = self.bars.add_task("grid", total=self.total, note="")
        return self

    def __exit__(self, *_: object) -> None:
        if self.bars is not None:
            self.bars.stop()

    @staticmethod
    def error(message: str) -> None:
        """One line for bad input."""
        print(f"error: {message}", file=sys.stderr)

    def skipped(self, cell: Cell) -> None:
        """The cell was finished before."""
        self._count()
        self._line(f"[dim]{self._mark()}{escape(cell.title)}: {outcome(cell.folder.status())} (before)[/dim]")

    def started(self, cell: Cell, resumes: bool, stale: bool) -> None:
        """The cell begins, or goes on from its checkpoint."""
        self._title = cell.title
        if cell.config["workload"].get("data_id") and cell.config["workload"]["target"] is None:
            self._once(f"[yellow]{escape(no_target(cell))}[/yellow]")
        how = " from its checkpoint" if resumes else " again: the source has changed" if stale else ""
        if self.bars is not None:
            self._cell = self.bars.add_task(escape(short(cell)), total=None, note="starting" + how)
        elif how:
            self._line(f"{escape(cell.title)}: starts{how}")
        self._spoke = time.monotonic()

    def event(self, event: dict[str, Any]) -> None:
        """A message from the worker."""
        if event["event"] == "interrupted":
            self._line("[yellow]interrupted: saving a checkpoint (Ctrl-C again to stop at once)[/yellow]")
        elif event["event"] in ("row", "heartbeat"):
            self._progress(event)

    def ended(self, cell: Cell, status: dict[str, Any]) -> None:
        """The cell has ended, one way or the other."""
        self._count()
        if self.bars is not None and self._cell is not None:
            self.bars.remove_task(self._cell)
            self._cell = None
        good = status["status"] in FINISHED
        text = escape(f"{cell.title}: {outcome(status)}")
        self._line(f"{self._mark()}{text if good else f'[red]{text}[/red]'}")
        if not good:
            self._line(f"  [dim]{escape(str(cell.folder.error_file))}[/dim]")

    def interrupted(self) -> None:
        """Ctrl-C: say that nothing is lost."""
        self._line("[yellow]stopped; the same command goes on from the checkpoint[/yellow]")

    def summary(self, statuses: list[dict[str, Any]]) -> int:
        """A last line for a grid; returns the exit code."""
        bad = [status for status in statuses if status["status"] not in FINISHED]
        if self.total > 1:
            counts = Counter(status["status"] for status in statuses)
            text = ", ".join(f"{n} {status}" for status, n in sorted(counts.items()))
            self._line(f"{self.total} cells: {text}")
        if not bad:
            return 0
        return 2 if all(status.get("user_error") for status in bad) else 1

    # -- inside ------------------------------------------------------------------------------------

    def _progress(self, event: dict[str, Any]) -> None:
        note = f"{event['metric']} {event['value']:.4g}" if event["event"] == "row" else None
        if self.bars is not None and self._cell is not None:
            done, budget = min(event["drawn"], event["budget"]), event["budget"]
            self.bars.update(self._cell, completed=done, total=budget)
            if note is not None:
                self.bars.update(self._cell, note=note)
        elif note is not None and time.monotonic() - self._spoke > QUIET_SECONDS:
            self._spoke = time.monotonic()
            self._line(f"{escape(self._title)}: {event['drawn'] / event['budget']:.0%}, {note}")

    def _count(self) -> None:
        self.seen += 1
        if self.bars is not None and self._grid is not None:
            self.bars.update(self._grid, completed=self.seen)

    def _mark(self) -> str:
        return f"[{self.seen}/{self.total}] ".replace("[", r"\[") if self.total > 1 else ""

    def _once(self, markup: str) -> None:
        if markup not in self._said:
            self._said.add(markup)
            self._line(markup)

    def _line(self, markup: str) -> None:
        self.console.print(markup, soft_wrap=True)


def short(cell: Cell) -> str:
    """The cell's title cut to what a line of 80 columns has room for."""
    config = cell.config
    text = f"{config['workload_label']} {config['label']} s{config['study']}t{config['trial']}"
    return text if len(text) <= 28 else text[:27] + "…"


def no_target(cell: Cell) -> str:
    """Why a workload whose data differs between installations has no target here."""
    workload = cell.config["workload"]
    return (
        f"{cell.config['workload_label']}: conf/targets has no target for this installation's data "
        f"({workload['data_id']}); training to the end of the budget"
    )


def outcome(status: dict[str, Any]) -> str:
    """``hit accuracy 0.97 at 9,600 samples, 1.2 s (12.3 s in all)`` and the like."""
    if status["status"] not in FINISHED:
        return f"{status['status']}: {status.get('error', '')}".rstrip(": ")
    s = status["summary"]
    spent = f"{s['samples']:,.0f} samples, {s['seconds']:.1f} s"
    if status["status"] == "diverged":
        return f"diverged after {spent}"
    if s["target"] is None:
        return f"done, no target set; {spent}"
    sign = "≤" if s["minimize"] else "≥"
    goal = f"{s['metric']} {sign} {s['target']:g}"
    if not s["hit"]:
        return f"missed {goal} in {spent}"
    return f"hit {goal} at {s['samples_to_target']:,.0f} samples, {s['seconds_to_target']:.1f} s"

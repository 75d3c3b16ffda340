"""What a person sees while cells run: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from runner.base.files import exists
from runner.base.paths import shown
from runner.base.terminal import Console
from runner.compose.commands import command
from runner.contract.records import ENDED, FINISHED, CellFolder
from runner.launch.scheduler import Job

QUIET_SECONDS = 15.0  # between two plain progress lines
BARS = "▁▂▃▄▅▆▇█"
MANY = 20  # cells above which those that were done before are counted, not listed


LIKE = 20  # letters that two reasons to wait begin with if they are about one device


class Display:
    """Progress of a grid; a context manager, and the scheduler's observer.

    Attributes:
        total: cells of the grid; may be set later.
        stays: whether their folders are there afterwards, to look into and to go on with.
        statuses: folder of a cell -> its final status record.
    """

    def __init__(self, total: int = 1, stays: bool = True) -> None:
        self.total, self.stays, self.before = total, stays, 0
        self.statuses: dict[Path, dict[str, Any]] = {}
        self.console = Console(stderr=True, highlight=False)
        self.bars: Progress | None = None
        self._grid: TaskID | None = None
        self._cells: dict[Path, TaskID] = {}
        self._spoke: dict[Path, float] = {}
        self._said: set[str] = set()
        self._failures: list[tuple[Job, dict[str, Any]]] = []

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            text = "{task.description}", "{task.percentage:>3.0f}%", "{task.fields[note]}"
            name, share, note = (TextColumn(t) for t in text)
            columns = name, BarColumn(bar_width=14), share, note, TimeElapsedColumn(), TimeRemainingColumn()
            self.bars = Progress(*columns, console=self.console, transient=True)
            self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bars is not None:
            self.bars.stop()

    @staticmethod
    def error(message: str) -> None:
        """One line for bad input."""
        print(f"error: {message}", file=sys.stderr)

    # -- before the cells --------------------------------------------------------------------------

    def expects(self, total: int) -> None:
        """The grid has ``total`` cells."""
        self.total = total
        if self.bars is not None and total > 1:
            if self._grid is None:
                self._grid = self.bars.add_task("grid", total=total, note="")
            self.bars.update(self._grid, total=total)

    def skipped(self, job: Job, status: dict[str, Any]) -> None:
        """The cell was finished before."""
        self.statuses[job.path] = status
        self.before += 1
        self._count()
        if self.total <= MANY:
            self._line(f"[dim]{self._mark()}{escape(job.title)}: {outcome(status)} (before)[/dim]")

    def say(self, text: str) -> None:
        """One line."""
        self._line(escape(text))

    def notice(self, text: str, key: str | None = None) -> None:
        """One line, said once; ``key``: what makes it the same, where that is not all of it."""
        if (key or text) not in self._said:
            self._said.add(key or text)
            self._line(f"[yellow]{escape(text)}[/yellow]")

    # -- the scheduler's observer ------------------------------------------------------------------

    def started(self, job: Job) -> None:
        """The cell begins, or goes on from its checkpoint."""
        if self.bars is not None:
            note = f"starting{job.note and ' ' + job.note}"
            self._cells[job.path] = self.bars.add_task(escape(short(job)), total=None, note=note)
            self._count()
        elif job.note:
            self._line(f"{escape(job.title)}: starts {job.note}")
        self._spoke[job.path] = time.monotonic()

    def event(self, job: Job, event: dict[str, Any]) -> None:
        """An evaluation, a heartbeat, or a line to be read."""
        if event["event"] == "within":  # for whoever could end it
            return
        if event["event"] == "notice":
            self.notice(f"{job.title}: {event['text']}")
            return
        if event["event"] == "left":
            what = f"did not restore {event['what']}, so the next cell gets a new process"
            self.notice(f"{job.title}: {what}", key=what)
            return
        note = f"{event['metric']} {event['value']:.4g}" if event["event"] == "row" else None
        bar = self._cells.get(job.path)
        if self.bars is not None and bar is not None:
            self.bars.update(bar, completed=min(event["drawn"], event["budget"]), total=event["budget"])
            if note is not None:
                self.bars.update(bar, note=note)
        elif note is not None and time.monotonic() - self._spoke.get(job.path, 0) > QUIET_SECONDS:
            self._spoke[job.path] = time.monotonic()
            self._line(f"{escape(job.title)}: {event['drawn'] / event['budget']:.0%}, {note}")

    def ended(self, job: Job, status: dict[str, Any]) -> None:
        """The cell has ended, one way or the other."""
        self.statuses[job.path] = status
        self._remove_bar(job)
        self._count()
        if status["status"] in ENDED:
            self._line(f"{self._mark()}{escape(f'{job.title}: {outcome(status)}')}")
        elif status["status"] == "preempted":
            self._line(f"{self._mark()}[yellow]{escape(job.title)}: stopped[/yellow]")
        else:
            self._failures.append((job, status))
            if self.total > 1:  # why, and where to look, is said at the end
                self._line(f"{self._mark()}[red]{escape(job.title)}: {status['status']}[/red]")

    def again(self, job: Job, reason: str) -> None:
        """The cell's worker has died; it goes on in another."""
        self._remove_bar(job)
        self._line(f"[yellow]{escape(job.title)}: {escape(reason)}; trying again[/yellow]")

    def waiting(self, jobs: Sequence[Job]) -> None:
        """Nothing is left to do but to wait."""
        self.notice(f"waiting for {plural(len(jobs), 'cell')} that other processes are training")

    def lacking(self, reason: str) -> None:
        """A cell cannot start for that reason: said once."""
        if (kind := reason[:LIKE]) not in self._said:
            self._said.add(kind)
            self.notice(reason)

    def stopping(self, jobs: Sequence[Job]) -> None:
        """A signal has come."""
        named = "; ".join(escape(job.title) for job in jobs[:3]) + (
            f"; {len(jobs) - 3} more" * (len(jobs) > 3)
        )
        after = f"waiting for {named} to finish the current step, then saving" if jobs else "saving"
        self._line(f"[yellow]interrupted: {after} (Ctrl-C again to stop immediately)[/yellow]")

    # -- after the cells ---------------------------------------------------------------------------

    def interrupted(self) -> None:
        """Ctrl-C: say what becomes of the cells."""
        how = "the same command resumes from the checkpoint" if self.stays else "nothing was saved"
        self._line(f"[yellow]stopped; {how}[/yellow]")

    def summary(self) -> int:
        """Last lines for a grid: counts, then what failed and where its log is; returns the exit code."""
        statuses = list(self.statuses.values())
        if self.total > 1:
            counts = Counter(status["status"] for status in statuses)
            text = ", ".join(f"{n} {status}" for status, n in sorted(counts.items()))
            before = f" ({self.before} before)" if self.before else ""
            self._line(f"{plural(len(statuses), 'cell')}: {text or 'none'}{before}")
        elif self.stays and statuses and statuses[0]["status"] in FINISHED:
            for line in about(next(iter(self.statuses))):
                self.say(f"  {line}")
        return self.failures()

    def failures(self) -> int:
        """What failed and where its log is; returns the exit code."""
        for job, status in self._failures:
            self._line(f"[red]{escape(f'{job.title}: {outcome(status)}')}[/red]")
            if self.stays:
                log = job.path / "error.txt"
                self._line(f"  [dim]{escape(str(shown(log if exists(log) else job.path)))}[/dim]")
        if self._failures and self.total > 1 and self.stays:
            again = command("runner.retry", experiment_of(self._failures[0][0]))
            self._line(escape(f"run them again: {again}"))
        bad = [s for s in self.statuses.values() if s["status"] not in (*ENDED, "queued")]
        if not bad:
            return 0
        return 2 if all(status.get("user_error") for status in bad) else 1

    # -- inside ------------------------------------------------------------------------------------

    def _remove_bar(self, job: Job) -> None:
        bar = self._cells.pop(job.path, None)
        if self.bars is not None and bar is not None:
            self.bars.remove_task(bar)

    def _count(self) -> None:
        if self.bars is not None and self._grid is not None:
            note = f"{len(self.statuses)}/{self.total}, {len(self._cells)} running"
            if self._failures:
                note += f", {len(self._failures)} failed"
            self.bars.update(self._grid, completed=len(self.statuses), note=note)

    def _mark(self) -> str:
        return rf"\[{len(self.statuses)}/{self.total}] " if self.total > 1 else ""

    def _line(self, markup: str) -> None:
        self.console.print(markup, soft_wrap=True)


def short(job: Job) -> str:
    """The cell's title cut to what a line of 80 columns has room for."""
    text = job.title.replace(" · ", " ").replace("study ", "s").replace(" trial ", "t")
    return text if len(text) <= 28 else text[:27] + "…"


def plural(count: int, thing: str) -> str:
    """``1 cell``, ``1,200 cells``."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def experiment_of(job: Job) -> Path:
    """The folder of the experiment that a cell belongs to."""
    return job.path.parent.parent


def about(cell: Path) -> Iterator[str]:
    """A finished cell's lines: ``best validation accuracy 0.983, ▁▃▆██``, and its folder."""
    folder = CellFolder(cell)
    summary = folder.status().get("summary", {})
    key = f"validation/{summary.get('metric')}"
    values = [math.nan if row.get(key) is None else float(row[key]) for row in folder.evals()]
    sound = [value for value in values if math.isfinite(value)]
    if sound:
        best = min(sound) if summary["minimize"] else max(sound)
        yield f"best validation {summary['metric']} {best:.4g}, {curve(values)}"
    yield str(shown(cell))


def curve(values: Sequence[float], width: int = 40) -> str:
    """A line of bars, from the smallest value to the largest; what is no number is left blank."""
    picked = [
        values[place * len(values) // min(width, len(values))] for place in range(min(width, len(values)))
    ]
    sound = [value for value in picked if math.isfinite(value)]
    low, high = min(sound, default=0.0), max(sound, default=0.0)
    steps = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((v - low) * steps)] if math.isfinite(v) else " " for v in picked)


def outcome(status: dict[str, Any]) -> str:
    """``hit accuracy 0.97 at 9,600 samples, 1.2 s (12.3 s in all)`` and the like."""
    if status["status"] == "stopped":
        return f"stopped on purpose ({status.get('reason')}); resume with runner.retry --stopped"
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
        past = s.get("rows_past_budget")
        return f"missed {goal} in {spent}" + (
            f"; {past:,} rows beyond the budget, where hits do not count" if past else ""
        )
    return f"hit {goal} at {s['samples_to_target']:,.0f} samples, {s['seconds_to_target']:.1f} s"

"""Watch cells that SLURM runs. Their folders say how they do; the queue only, whether to go on hoping."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from runner.cells import slurm_queue
from runner.cells.cell import folder_state
from runner.cells.lock import holder
from runner.compose.commands import command
from runner.contract.records import ENDED, CellFolder
from runner.launch.display import experiment_of
from runner.launch.scheduler import Job

AT_AN_END = (*ENDED, "failed", "oom", "timeout")
LOOKS = 2  # without a job before a cell counts as given up: shared file systems lag behind


class Display(Protocol):
    """Who is told."""

    def started(self, job: Job) -> None:
        """A task has got the cell."""

    def event(self, job: Job, event: dict[str, Any]) -> None:
        """Progress."""

    def ended(self, job: Job, status: dict[str, Any]) -> None:
        """The cell has ended, or has no job any more."""

    def notice(self, text: str) -> None:
        """A line, said once."""


def watch(
    launched: Sequence[slurm_queue.Launch],
    jobs: Sequence[Job],
    display: Display,
    poll: float = 10.0,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Stay until every cell is at its end or has no job any more, and the follow-up jobs have ended.

    Args:
        launched: the experiment's launches.
        jobs: the cells.
        display: is told.
        poll: seconds between two looks.
        sleep: for tests.
    """
    watcher = _Watcher(launched, {job.path: job for job in jobs}, display)
    try:
        while not watcher.look():
            sleep(poll)
    except KeyboardInterrupt:
        experiments = dict.fromkeys(experiment_of(job) for job in jobs)
        ends = "; ".join(command("runner.cancel", experiment) for experiment in experiments)
        display.notice(f"the jobs keep running; to cancel them: {ends}")
        raise


class _Watcher:
    def __init__(
        self, launched: Sequence[slurm_queue.Launch], left: dict[Path, Job], display: Display
    ) -> None:
        self._launched, self._left, self._display = launched, left, display
        self._running: set[Path] = set()
        self._absent: Counter[Path] = Counter()

    def look(self) -> bool:
        """One look at the queue, then at the folders: what ends in between is seen as ended."""
        queued = slurm_queue.ask(self._launched)
        if queued.reason is not None:
            self._display.notice(f"SLURM does not answer: {queued.reason}")
        where = slurm_queue.by_cell(self._launched, queued)
        for path, job in list(self._left.items()):
            if where.get(path.name) != "PENDING":  # those can be ten thousand folders
                self._look_at(path, job, path.name in where or queued.reason is not None)
        follow_ups = {
            f"{launch.record['then']['id']}_0" for launch in self._launched if launch.record.get("then")
        }
        return not self._left and not follow_ups & set(queued.states)

    def _look_at(self, path: Path, job: Job, has_job: bool) -> None:
        status, working = CellFolder(path).status(), holder(path)
        if working is not None:
            self._progress(path, job, working)
        elif status["status"] in AT_AN_END:
            self._end(path, job, status)
        elif has_job:
            self._absent[path] = 0
        else:
            self._absent[path] += 1
            if self._absent[path] >= LOOKS:
                state = folder_state(CellFolder(path))
                said = slurm_queue.last_words(self._launched, path.name)
                reason = f"its job is gone{said and f'; its log ends: {said}'}"
                self._end(path, job, {**status, "status": state, "error": reason})

    def _progress(self, path: Path, job: Job, working: dict[str, Any]) -> None:
        if path not in self._running:
            self._running.add(path)
            self._display.started(job)
        if working.get("budget"):
            counts = {key: working.get(key, 0) for key in ("steps", "drawn", "budget")}
            self._display.event(job, {"event": "heartbeat", **counts})

    def _end(self, path: Path, job: Job, status: dict[str, Any]) -> None:
        del self._left[path]
        self._display.ended(job, status)

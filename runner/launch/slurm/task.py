"""What a SLURM task runs: its cells, in warm workers, through preemptions and time limits.

SIGUSR2 comes before the time limit (and before a preemption, where the cluster is set up so): the cells save
themselves, and the task puts itself back into the queue. SIGTERM comes when a task is cancelled, preempted or
requeued from outside: the cells save themselves, and the rest is SLURM's. A task that runs again skips what
is done and goes on from the checkpoints.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.cells import slurm_queue
from runner.cells.lock import holder
from runner.contract.records import CellFolder
from runner.launch.slurm.signals import Requeues, Signals

if TYPE_CHECKING:
    from runner.launch.scheduler import Job

TO_RUN = ("pending", "running", "preempted")  # what failed in this launch stays failed
PATIENCE = 5.0  # seconds for a cell that somebody else holds


@dataclass(frozen=True)
class Task:
    """Train these cells; submitit calls it on the node, again after every requeue.

    It has no ``checkpoint`` method on purpose: submitit's own requeueing takes every job of less than ten
    minutes for timed out.

    Attributes:
        experiment: its folder.
        names: of the cells' folders.
        folder: of the launch's jobs, for the count of requeues.
        minutes: time limit.
        max_requeues: times that it may requeue itself.
    """

    experiment: str
    names: list[str]
    folder: str
    minutes: int
    max_requeues: int = 100

    def __call__(self) -> dict[str, str]:
        """The cells' statuses; leaves the process where they are not all to their end."""
        signals = Signals(self.minutes * 60).listen()
        self._train(signals)
        statuses = {name: CellFolder(path).status()["status"] for name, path in self._paths()}
        if signals.asked:
            raise SystemExit(self._leave(signals))
        return statuses

    def cells(self) -> list[Path]:
        """The folders of the cells that are not at their end."""
        return [path for _, path in self._paths() if CellFolder(path).status()["status"] in TO_RUN]

    def _train(self, signals: Signals) -> None:
        left, tried = self.cells(), dict[Path, float]()
        while left and not signals.asked:
            tried |= {path: _updated(path) for path in left}
            left = self._given_back(run(left, signals), signals) or self._submitted_again(tried)

    def _submitted_again(self, tried: dict[Path, float]) -> list[Path]:
        """Cells that failed in this task, and that somebody has reset meanwhile for it to try once more."""
        pending = [path for path in self.cells() if CellFolder(path).status()["status"] == "pending"]
        return [path for path in pending if _updated(path) != tried.get(path)]

    def _given_back(self, cells: list[Path], signals: Signals) -> list[Path]:
        """Of cells that somebody else held: those that are free after a moment.

        A launcher that looks at a cell holds it for an instant. Our own last run holds its cells until they
        go stale, if its node was lost: these are worth waiting for. What another launch trains is not.
        """
        end = time.monotonic() + PATIENCE

        def worth_waiting(path: Path) -> bool:
            record = holder(path)
            return record is not None and (time.monotonic() < end or record.get("job") == job_id())

        while any(map(worth_waiting, cells)) and not signals.asked:
            time.sleep(0.5)
        return [path for path in cells if holder(path) is None]

    def _paths(self) -> list[tuple[str, Path]]:
        cells = Path(self.experiment) / "cells"
        return [(name, cells / name) for name in self.names]

    def _leave(self, signals: Signals) -> int:
        """Back into the queue, if that is for us to do; returns the exit code."""
        if not self.cells():
            return 0
        if not signals.requeue:
            say("stopped; SLURM or the same command will resume from the checkpoints")
            return 1
        count = Requeues(Path(self.folder), job_id())
        if count.read() >= self.max_requeues:
            self._time_out(count.read())
            return 1
        count.add()
        problem = slurm_queue.requeue(job_id())
        say(f"requeue {count.read()}: {problem or 'done'}")
        return 0 if problem is None else 1

    def _time_out(self, requeues: int) -> None:
        """The cells that were running have had their time."""
        reason = f"its task has requeued itself {requeues} times (hydra.launcher.max_requeues)"
        for path in self.cells():
            folder = CellFolder(path)
            status = folder.status()
            if status["status"] != "pending" and holder(path) is None:
                folder.set_status("timeout", **{**_facts(status), "error": reason})


@dataclass(frozen=True)
class FollowUp:
    """``python -m <module> <experiment>``, on a node."""

    module: str
    experiment: str

    def __call__(self) -> None:
        """Leaves the process with the command's exit code, if it is not 0."""
        ended = subprocess.run([sys.executable, "-m", self.module, self.experiment])
        if ended.returncode:
            raise SystemExit(ended.returncode)


def _updated(path: Path) -> float:
    return CellFolder(path).status().get("updated", 0.0)


def _facts(status: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in status.items() if key not in ("status", "updated")}


def job_id() -> str:
    """This task as ``squeue`` names it."""
    import submitit

    return submitit.JobEnvironment().job_id


def run(cells: Sequence[Path], signals: Signals) -> list[Path]:
    """Train cells, side by side where the task has cores or GPUs for several.

    Returns:
        The cells that other processes hold.
    """
    from runner.launch.scheduler import Scheduler
    from runner.machine.slots import Slots

    log = Log()
    with Scheduler(Slots.here(), log, wait=False, signals=()) as scheduler:
        signals.tell(scheduler.stop)
        scheduler.run(map(job, cells))
    return log.elsewhere


def job(path: Path) -> Job:
    """A cell as the scheduler wants it."""
    from runner.launch.scheduler import Job

    return Job.of(path, CellFolder(path).config(), path.name)


class Log:
    """Tells the task's log what the scheduler does.

    Attributes:
        elsewhere: cells that other processes hold.
    """

    def __init__(self) -> None:
        self.elsewhere: list[Path] = []
        self._lacking: str | None = None

    def started(self, job: Job) -> None:
        """A worker has got the cell."""
        say(f"{job.title}: starts")

    def event(self, job: Job, event: dict[str, Any]) -> None:
        """What a cell has left behind; progress is in its own folder."""
        if event["event"] == "left":
            say(f"{job.title}: did not restore {event['what']}, so the next cell gets a new process")

    def ended(self, job: Job, status: dict[str, Any]) -> None:
        """The cell has ended, one way or the other."""
        if status.get("elsewhere"):
            self.elsewhere.append(job.path)
        say(f"{job.title}: {status['status']} {status.get('error', '')}".rstrip())

    def again(self, job: Job, reason: str) -> None:
        """The cell's worker has died; it goes on in another."""
        say(f"{job.title}: again, {reason}")

    def waiting(self, jobs: Sequence[Job]) -> None:
        """Tasks do not wait for cells that other launches work on."""

    def lacking(self, reason: str) -> None:
        """A cell cannot start for that reason."""
        if reason != self._lacking:
            say(reason)
        self._lacking = reason

    def stopping(self, jobs: Sequence[Job]) -> None:
        """Signals are reported as they come."""


def say(text: str) -> None:
    """A line in the task's log."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

"""Run cells on the slots there are: warm workers, one a slot; a death costs what came after a checkpoint.

One thread, one loop: hand ready cells to free slots, hear what workers say, draw the next cell. Cells are
drawn one by one, so the first starts at once, however long the list.
"""

from __future__ import annotations

import contextlib
import selectors
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from runner.base.files import trim
from runner.cells.lock import holder
from runner.contract.records import ENDED, CellFolder
from runner.launch import ahead
from runner.launch.pool import Event, Worker, out_of_memory_kills, record_death, record_silence
from runner.machine.slots import Slot, Slots

ATTEMPTS = 2  # how often a cell may take its worker down with it
AHEAD = 16  # cells that are composed before there is a slot for them
LOOK = 1.0  # seconds between two looks at what sends no events: other processes' cells and devices
GONE_LOOKS = 60  # at a cell without a config before it counts as gone


@dataclass(frozen=True)
class Job:
    """A submitted cell: where it is, what it needs, and its source: module -> hash, where that is known."""

    path: Path
    device: str = "cpu"
    threads: int = 1
    title: str = ""
    note: str = ""  # how it begins, where that is not from nothing
    sources: Mapping[str, str] = field(default_factory=dict)
    gpu_memory_gb: float = 0.0  # that a GPU has to have free for it

    @classmethod
    def of(cls, path: Path, config: Mapping[str, Any], title: str, **more: Any) -> Job:
        """The cell of a config, in its folder."""
        need = config["resources"].get("gpu_memory_gb", 0.0)
        return cls(path, config["device"], config["threads"], title, gpu_memory_gb=need, **more)


Judge = Callable[[dict[str, Any]], str | None]


class Observer(Protocol):
    """What the scheduler tells."""

    def started(self, job: Job) -> None:
        """A worker has got the cell."""
        ...

    def event(self, job: Job, event: Event) -> None:
        """Progress: an evaluation, a heartbeat, or a line that a person should read."""
        ...

    def ended(self, job: Job, status: dict[str, Any]) -> None:
        """The cell has ended, one way or the other."""
        ...

    def again(self, job: Job, reason: str) -> None:
        """The cell's worker has died; it goes on in another."""
        ...

    def waiting(self, jobs: Sequence[Job]) -> None:
        """Nothing is left to do but to wait for cells that other processes work on."""
        ...

    def lacking(self, reason: str) -> None:
        """A cell cannot start for that reason, which is told again and again."""
        ...

    def stopping(self, jobs: Sequence[Job]) -> None:
        """A signal has come: these cells end their step and write their checkpoints."""
        ...


class Silent:
    """An observer that shows nothing.

    Attributes:
        statuses: folder of a cell -> its final status record.
    """

    def __init__(self) -> None:
        self.statuses: dict[Path, dict[str, Any]] = {}

    def ended(self, job: Job, status: dict[str, Any]) -> None:
        """Keep the status."""
        self.statuses[job.path] = status

    def started(self, job: Job) -> None:
        """Nothing."""

    def event(self, job: Job, event: Event) -> None:
        """Nothing."""

    def again(self, job: Job, reason: str) -> None:
        """Nothing."""

    def waiting(self, jobs: Sequence[Job]) -> None:
        """Nothing."""

    def lacking(self, reason: str) -> None:
        """Nothing."""

    def stopping(self, jobs: Sequence[Job]) -> None:
        """Nothing."""


class Scheduler:
    """Keeps the workers of one process.

    Args:
        slots: the devices.
        observer: is told.
        warm: keep workers between cells; False: one process per cell.
        wait: stay until cells that other processes work on are finished, too; take over where they are not.
        signals: which ask for checkpoints and a stop; a second one kills.
    """

    def __init__(
        self,
        slots: Slots,
        observer: Observer,
        warm: bool = True,
        wait: bool = True,
        signals: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM),
    ) -> None:
        self.slots, self.observer, self.warm, self.wait, self.signals = slots, observer, warm, wait, signals
        self.stopped = 0  # signals so far
        self.judge: Judge | None = None  # asked at every evaluation
        self._ready: deque[Job] = deque()
        self._elsewhere: list[Job] = []
        self._idle: list[Worker] = []
        self._leaving: list[Worker] = []
        self._busy: dict[Worker, tuple[Job, Slot]] = {}
        self._deaths: Counter[Path] = Counter()
        self._looks: Counter[Path] = Counter()
        self._selector = selectors.DefaultSelector()
        self._oom_kills = out_of_memory_kills()
        self._heard_at = time.monotonic()

    def run(self, jobs: Iterable[Job]) -> bool:
        """Bring every cell to its end; returns False when a signal stopped it before.

        Exceptions raised while jobs are drawn stop the running cells, then go on to the caller.
        """
        source: Iterator[Job] | None = iter(jobs)
        self._ready.clear()
        self._elsewhere.clear()
        self._deaths.clear()
        with self._listening():
            try:
                while True:
                    self._feed()
                    if self.stopped or (source is None and not self._ready):
                        if not self._busy and (self.stopped or not self._elsewhere):
                            return not self.stopped
                        self._hear(LOOK)
                        self._look_elsewhere()
                    else:
                        # No further ahead than is needed: composing takes time from the cells that run.
                        more = source is not None and len(self._ready) < AHEAD
                        self._hear(0 if more else LOOK)
                        source = self._draw(source) if more else source
            except BaseException:
                told, self.observer = self.observer, Silent()  # what went wrong is all that is to be said
                self.stop()
                self._drain()
                self.observer = told
                raise

    def warm_up(self) -> None:
        """Start a worker now: it imports torch while the first cell is being composed."""
        if not self._idle:
            self._idle.append(self._new_worker())

    def stop(self) -> None:
        """Ask the running cells to checkpoint and stop; the second time, kill them."""
        self.stopped += 1
        for worker in self._busy:
            worker.interrupt() if self.stopped == 1 else worker.kill()

    def close(self) -> None:
        """End the workers."""
        for worker in [*self._idle, *self._busy]:
            self._dismiss(worker)
        for worker in self._leaving:
            worker.close()
        self._idle.clear()
        self._leaving.clear()

    def __enter__(self) -> Scheduler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the loop ----------------------------------------------------------------------------------

    def _draw(self, source: Iterator[Job] | None) -> Iterator[Job] | None:
        if source is not None:
            job = next(source, None)
            if job is None:
                return None
            self._ready.append(job)
        return source

    def _feed(self) -> None:
        """Start the first cells in line for each device; one that needs many cores is not overtaken."""
        full: set[str] = set()
        for job in list(self._ready):
            if self.stopped:
                return
            slot = None if job.device in full else self._take(job)
            if slot is None:
                full.add(job.device)
                continue
            self._ready.remove(job)
            worker = self._worker_for(slot, job)
            self._busy[worker] = job, slot
            worker.begin(job.path, slot, job.sources, asks=self.judge is not None)
            if self.stopped:  # by a signal that came just now, and missed this worker
                worker.interrupt()
            self.observer.started(job)

    def _take(self, job: Job) -> Slot | None:
        slot = self.slots.take(job.device, job.threads, job.gpu_memory_gb)
        if self.slots.lacking is not None:
            self.observer.lacking(self.slots.lacking)
        return slot

    def _hear(self, timeout: float | None) -> None:
        for key, _ in self._selector.select(timeout):
            worker: Worker = key.fileobj  # pyright: ignore[reportAssignmentType]
            for event in worker.events():
                self._on(worker, event)
        for worker in [worker for worker in self._busy if not worker.alive()]:
            # Its end of the pipe may live on in a process that it has forked.
            for event in [*worker.events(), {"event": "died"}]:
                if worker in self._busy:
                    self._on(worker, event)
        self._watch()

    def _watch(self) -> None:
        """Cut logs; end workers that hang. While this process did not run, either, there was no silence."""
        passed = min(time.monotonic() - self._heard_at, 2 * LOOK)
        self._heard_at = time.monotonic()
        for worker, (job, _) in self._busy.items():
            trim(CellFolder(job.path).log_file)
            worker.silent += passed
            if worker.silent > worker.limit:
                worker.kill()

    def _on(self, worker: Worker, event: Event) -> None:
        if worker not in self._busy:
            if event["event"] == "died" and worker in self._idle:
                self._idle.remove(worker)
                self._forget(worker)
            return
        job, slot = self._busy[worker]
        if event["event"] != "died":
            worker.silent = 0.0
        if event["event"] == "within":
            worker.limit = event["seconds"]
        elif event["event"] in ("row", "heartbeat", "notice"):
            self.observer.event(job, event)
        elif event["event"] == "ask":
            self._answer(worker, event["row"])
            self._heard_at = time.monotonic()
        elif event["event"] in ("end", "died"):
            del self._busy[worker]
            self.slots.give(slot)
            trim(CellFolder(job.path).log_file)
            self._died(worker, job) if event["event"] == "died" else self._ended(worker, job, event["status"])

    def _answer(self, worker: Worker, row: dict[str, Any]) -> None:
        try:
            reason = None if self.judge is None else self.judge(row)
        except BaseException:
            self.judge = None
            worker.answer(None)  # it waits, whatever the judge does
            raise
        worker.answer(reason)

    def _ended(self, worker: Worker, job: Job, status: dict[str, Any]) -> None:
        # What failed may have left the process in a bad way: a CUDA error stays for good.
        sound = status["status"] in (*ENDED, "running") or status.get("user_error")
        if "left" in status:  # what it has started or changed goes with it
            self.observer.event(job, {"event": "left", "what": status["left"]})
            self._dismiss(worker)
            worker.kill()
        elif self.warm and sound:
            self._idle.append(worker)
        else:
            self._dismiss(worker)
        if status.get("elsewhere"):
            self._elsewhere.append(job)
            if not self.wait:
                self.observer.ended(job, status)
        elif status["status"] == "preempted" and not self.stopped and self._may_go_on(job):
            self.observer.again(job, "its worker was told to stop")
        else:
            self.observer.ended(job, status)

    def _died(self, worker: Worker, job: Job) -> None:
        code = self._forget(worker)
        if worker.silent > worker.limit:
            self.observer.ended(job, record_silence(job.path, worker.silent))
            return
        if self.stopped:
            self.observer.ended(job, {"status": "preempted", "error": "stopped at once"})
            return
        kills, before = out_of_memory_kills(), self._oom_kills
        self._oom_kills = kills
        if self._may_go_on(job):
            self.observer.again(job, f"its worker ended with exit code {code}")
        else:
            self.observer.ended(job, record_death(job.path, code, out_of_memory=kills > before))

    def _may_go_on(self, job: Job) -> bool:
        self._deaths[job.path] += 1
        if self._deaths[job.path] >= ATTEMPTS:
            return False
        self._ready.appendleft(job)
        return True

    def _look_elsewhere(self) -> None:
        """Cells that others worked on: finished by now, or left behind and ours to go on with."""
        if self.stopped or not self._elsewhere or self._busy or not self.wait:
            if not self.wait:
                self._elsewhere.clear()
            return
        self.observer.waiting(self._elsewhere)
        for job in list(self._elsewhere):
            status = CellFolder(job.path).status()
            if holder(job.path) is not None:
                continue
            self._looks[job.path] += 1
            gone = not (job.path / "config.yaml").exists()
            if gone and self._looks[job.path] < GONE_LOOKS:  # being moved or made by another launcher
                continue
            if gone:
                status = {"status": "failed", "error": "its folder no longer exists"}
            if status["status"] in (*ENDED, "failed", "oom", "timeout"):
                self.observer.ended(job, status)
            else:
                self._ready.append(job)
            self._elsewhere.remove(job)

    def _drain(self) -> None:
        while self._busy:
            self._hear(None)

    # -- workers -----------------------------------------------------------------------------------

    def _worker_for(self, slot: Slot, job: Job) -> Worker:
        for worker in [worker for worker in self._idle if worker.fits(slot)]:
            self._idle.remove(worker)
            if not worker.alive():  # it has died between two cells: nothing is lost
                self._forget(worker)
            elif not worker.runs(job.sources):  # a file was edited: Python does not import it again
                self._dismiss(worker)
            else:
                return worker
        return self._new_worker()

    def _new_worker(self) -> Worker:
        gone = [worker for worker in self._leaving if not worker.alive()]
        self._leaving = [worker for worker in self._leaving if worker not in gone]
        for worker in gone:
            worker.close()
        worker = ahead.worker()
        self._selector.register(worker, selectors.EVENT_READ)
        return worker

    def _dismiss(self, worker: Worker) -> None:
        """Let it end in its own time."""
        self._selector.unregister(worker)
        worker.dismiss()
        self._leaving.append(worker)

    def _forget(self, worker: Worker) -> int:
        """Reap a worker that has died; returns its exit code."""
        self._selector.unregister(worker)
        return worker.close()

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        def handle(_number: int, _frame: object) -> None:
            # A handler rather than an exception: nothing that is being read or written breaks off half-way.
            self.stop()
            if self.stopped == 1:
                self.observer.stopping([job for job, _ in self._busy.values()])

        before: dict[int, Any] = {}
        with contextlib.suppress(ValueError):  # not the main thread: signals are not ours to handle
            before = {number: signal.signal(number, handle) for number in self.signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

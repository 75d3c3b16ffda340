"""The signals that SLURM sends a task, and how often the task has queued itself again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from runner.base.files import read_json, write_json

LIMIT_SLACK = 60.0  # seconds: SLURM looks at time limits now and then


@dataclass(frozen=True)
class Requeues:
    """How often a task has requeued itself: a small file, since SLURM counts its own requeues only."""

    folder: Path
    task: str

    @property
    def _file(self) -> Path:
        return self.folder / f"requeues.{self.task}.json"

    def read(self) -> int:
        """The count so far."""
        return int((read_json(self._file) or {}).get("count", 0))

    def add(self) -> None:
        """One more."""
        write_json(self._file, {"count": self.read() + 1, "last": time.time()})


@dataclass
class Signals:
    """Listens while cells run; submitit's own handlers are put aside.

    Attributes:
        limit: seconds that the task has.
        received: signals so far.
    """

    limit: float
    received: list[int] = field(default_factory=list)
    _started: float = field(default_factory=time.monotonic)
    _stop: Callable[[], None] = lambda: None

    @property
    def asked(self) -> bool:
        """Whether to stop."""
        return bool(self.received)

    @property
    def requeue(self) -> bool:
        """Whether to go back into the queue ourselves.

        A SIGTERM behind the SIGUSR2 is somebody who cancels the task, and requeueing would revive it; unless
        the time is simply up.
        """
        if signal.SIGUSR2 not in self.received:
            return False
        time_is_up = time.monotonic() - self._started > self.limit - LIMIT_SLACK
        return self.received[-1] == signal.SIGUSR2 or time_is_up

    def listen(self) -> Signals:
        """From here to the end of the process: nothing between the last cell and the requeue may kill it."""
        for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)
        signal.signal(signal.SIGCONT, signal.SIG_DFL)
        return self

    def tell(self, stop: Callable[[], None]) -> None:
        """Whom to tell at the first signal, which may have been; a second one finds the cells saving."""
        self._stop = stop
        if self.asked:
            stop()

    def _receive(self, number: int, _frame: object) -> None:
        self.received.append(number)
        os.write(1, f"{signal.Signals(number).name}\n".encode())  # print may not be re-entered
        if len(self.received) == 1:
            self._stop()

"""The launcher's end of a worker process: start it, hand it a cell, hear from it, notice when it dies."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runner.base.errors import one_line
from runner.base.files import read_tail
from runner.cells.lock import Lock
from runner.cells.superseded import kept
from runner.contract.records import FINISHED, CellFolder
from runner.machine.slots import Slot
from runner.provenance import allowances

Event = dict[str, Any]
# cuBLAS looks at it once, when first called: a deterministic cell may come after another that is not.
EVERY_WORKER = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
STOP_SECONDS = 120.0  # how long a worker may take to end
# SIGUSR2 is what batch systems send through submitit before a time limit, to every process of a job.
STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Worker:
    """A process that trains one cell at a time and stays warm between them.

    It may start before its first cell is known, whose slot it then keeps to: CUDA looks only once which GPUs
    it may see.
    """

    def __init__(self) -> None:
        self.silent, self.limit = 0.0, float("inf")  # seconds without a word, and how many are too many
        self._env: dict[str, str] | None = None
        self._imported: dict[str, str] = {}
        read, write = os.pipe()
        with signals_later():
            self._process = subprocess.Popen(
                [sys.executable, "-m", "runner.launch.worker", str(write)],
                stdin=subprocess.PIPE,
                pass_fds=(write,),
                env={**os.environ, **EVERY_WORKER},
                # Ctrl-C in the terminal reaches the launcher alone, which passes it on.
                start_new_session=True,
            )
        os.close(write)
        os.set_blocking(read, False)
        self._events, self._buffer, self._used = read, b"", False

    def fileno(self) -> int:
        """What to wait on for :meth:`events`."""
        return self._events

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    def fits(self, slot: Slot) -> bool:
        """Whether it sees the GPU of a slot, or has not looked yet."""
        return self._env is None or self._env == slot.env

    def runs(self, sources: Mapping[str, str]) -> bool:
        """Whether what it has imported for earlier cells is the source that a cell wants: module -> hash."""
        return all(self._imported.get(name, wanted) == wanted for name, wanted in sources.items())

    def begin(self, cell: Path, slot: Slot, sources: Mapping[str, str], asks: bool = False) -> None:
        """Hand over a cell of this source; a worker that has died says so through :meth:`events`.

        With ``asks`` it waits for an :meth:`answer` at every evaluation.
        """
        self._imported.update(sources)
        self._env = slot.env
        self.silent, self.limit = 0.0, float("inf")
        command = {
            "folder": str(cell.resolve()),
            "cores": slot.cores if slot.pinned else None,
            "env": slot.env,
            "shared": slot.shared,
            "asks": asks,
            "allow": sorted(allowances.handed_over()),
        }
        self._used = True
        self._tell(command)

    def answer(self, reason: str | None) -> None:
        """Why the cell is to stop at the evaluation that it asked about; None: it goes on."""
        self._tell(reason)

    def _tell(self, value: Any) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(value).encode() + b"\n")
            self._process.stdin.flush()

    def events(self) -> Iterator[Event]:
        """What the worker has said since the last call; ``{"event": "died"}`` is its last word."""
        try:
            data = os.read(self._events, 1 << 16)
        except BlockingIOError:
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        yield from map(json.loads, lines)
        if not data:
            yield {"event": "died"}

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def interrupt(self) -> None:
        """Ask the cell to checkpoint and stop."""
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End the worker at once, and what it has started; its cell keeps its last checkpoint."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def dismiss(self) -> None:
        """Let the worker end after its cell, without waiting for it."""
        if not self._used:  # it may still be importing torch
            self._process.kill()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def close(self) -> int:
        """Let the worker end, kill it if it does not; returns its exit code."""
        self.dismiss()
        try:
            code = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        with contextlib.suppress(OSError):
            os.close(self._events)
        return code


@contextlib.contextmanager
def signals_later() -> Iterator[None]:
    """A process born in here gets signals once it listens, and not while Python is still starting."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def record_death(cell: Path, code: int, out_of_memory: bool) -> Event:
    """Write into the cell's folder that its process ended with exit code ``code``; returns the status."""
    reason = f"its process ended with exit code {code}"
    if code < 0:
        known = {number.value: number.name for number in signal.Signals}
        reason = f"its process was killed by {known.get(-code, f'signal {-code}')}"
        if -code == signal.SIGKILL and not out_of_memory:
            reason += " (out of memory?)"
    if out_of_memory:
        return _record(cell, "oom", f"out of memory: {reason}")
    return _record(cell, "failed", reason)


def record_silence(cell: Path, seconds: float) -> Event:
    """Write into the cell's folder that its process was ended, as it hung; returns the status."""
    return _record(
        cell,
        "timeout",
        f"no sign of life for {seconds:.0f} s, beyond max_seconds and RUNNER_PATIENCE: "
        "its process was killed",
    )


def _record(cell: Path, status: str, reason: str) -> Event:
    reason = one_line(reason)
    tail = read_tail(CellFolder(cell).log_file)
    try:
        lock = Lock.acquire(cell)
        if lock is not None:
            with lock:
                folder = CellFolder(cell, lock)
                if (last := folder.status())["status"] in FINISHED:  # it died between that word and its end
                    folder.tidy()
                    return last
                folder.fail(reason, f"{reason}\n\nThe end of what it printed:\n{tail}", status)
                return kept(folder, {"status": status, "error": reason})
    except OSError as error:
        reason += f" (and not recorded: {error})"
    return {"status": status, "error": reason}


def out_of_memory_kills() -> int:
    """How often the kernel has killed a process of this control group for memory; 0 where it does not say."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            base = "/sys/fs/cgroup/memory" if controllers == "memory" else "/sys/fs/cgroup"
            name = "memory.oom_control" if controllers == "memory" else "memory.events"
            file = Path(base + path) / name
            if controllers in ("", "memory") and file.exists():
                counts = dict(entry.split() for entry in file.read_text(encoding="utf-8").splitlines())
                return int(counts.get("oom_kill", 0))
    return 0

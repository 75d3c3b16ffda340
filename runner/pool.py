"""The launcher's end of a worker process: start it, hand it cells, notice when it dies."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import IO, Any

from runner.errors import one_line
from runner.records import CellFolder

Event = dict[str, Any]
STOP_SECONDS = 120.0  # how long a worker may take to write its checkpoint


class Worker:
    """A process that trains one cell at a time; it is started when first used, and again after a death.

    Args:
        env: environment variables on top of this process's own (devices, thread counts).
    """

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        self._env = dict(env or {})
        self._process: subprocess.Popen[str] | None = None
        self._events: IO[str] | None = None

    def run(
        self, folder: CellFolder, notify: Callable[[Event], None] = lambda _event: None
    ) -> dict[str, Any]:
        """Train the cell in ``folder``; returns its final status record.

        Raises:
            KeyboardInterrupt: after Ctrl-C or SIGTERM, once the worker has written its checkpoint.
        """
        process, events = self._started()
        assert process.stdin is not None
        with _Stop(process, notify) as stop:
            try:
                process.stdin.write(json.dumps({"folder": str(folder.path.resolve())}) + "\n")
                process.stdin.flush()
                ended = self._follow(events, notify)
            except BrokenPipeError:
                ended = False
        if stop.asked:
            if not ended:
                folder.set_status("preempted", error="stopped at once")
            self.close()
            raise KeyboardInterrupt
        return folder.status() if ended else self._died(folder)

    def close(self) -> None:
        """Let the worker end; kill it if it does not."""
        if self._process is None:
            return
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._forget()

    def kill(self) -> None:
        """End the worker at once; its cell keeps its last checkpoint."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._forget()

    def _started(self) -> tuple[subprocess.Popen[str], IO[str]]:
        if self._process is not None and self._process.poll() is None and self._events is not None:
            return self._process, self._events
        self._forget()
        read, write = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "runner.worker", str(write)],
            stdin=subprocess.PIPE,
            text=True,
            pass_fds=(write,),
            env={**os.environ, **self._env},
            start_new_session=True,  # Ctrl-C in the terminal reaches the launcher alone, which passes it on
        )
        os.close(write)
        self._events = os.fdopen(read)
        return self._process, self._events

    def _follow(self, events: IO[str], notify: Callable[[Event], None]) -> bool:
        """Pass events on until the cell ends; False when the process ended first."""
        while line := events.readline():
            event = json.loads(line)
            if event["event"] == "end":
                return True
            notify(event)
        return False

    def _died(self, folder: CellFolder) -> dict[str, Any]:
        assert self._process is not None
        code = self._process.wait()
        reason = f"its process ended with exit code {code}"
        if code < 0:
            reason = f"its process was killed by {signal.Signals(-code).name}"
            if -code == signal.SIGKILL:
                reason += " (out of memory?)"
        tail = folder.log_file.read_text(errors="replace")[-4000:] if folder.log_file.exists() else ""
        folder.fail(one_line(reason), f"{reason}\n\nThe end of what it printed:\n{tail}")
        self._forget()
        return folder.status()

    def _forget(self) -> None:
        if self._events is not None:
            self._events.close()
        self._process = self._events = None


class _Stop:
    """While a cell runs, SIGINT and SIGTERM go to the worker, which checkpoints; a second one kills it.

    A handler rather than an exception: nothing that is being read or written breaks off half-way.
    """

    def __init__(self, process: subprocess.Popen[str], notify: Callable[[Event], None]) -> None:
        self._process, self._notify = process, notify
        self._before: dict[int, Any] = {}
        self.asked = 0

    def __enter__(self) -> _Stop:
        with contextlib.suppress(ValueError):  # not the main thread: signals are not ours to handle
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, _number: int, _frame: object) -> None:
        self.asked += 1
        if self.asked == 1:
            self._notify({"event": "interrupted"})
            self._process.send_signal(signal.SIGINT)
        else:
            self._process.kill()

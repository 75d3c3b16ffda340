"""The process that trains: takes cells one by one, stays warm between them, reports as it goes.

Commands (``{"folder", "cores", "env", "shared", "asks", "allow"}``) and answers arrive as JSON lines on
standard input, events leave as JSON lines on the file descriptor named on the command line. What a cell
prints goes to its own ``log.txt``.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import json
import os
import select
import signal
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from runner.base.files import no_link
from runner.base.imports import lasting
from runner.launch.pool import STOP
from runner.provenance import allowances


def main() -> int:
    """Serve until standard input ends."""
    # A signal while torch is imported, or between two cells, is remembered.
    asked: list[int] = []
    for number in STOP:
        signal.signal(number, lambda number, _frame: asked.append(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP)
    _follow_parent()
    events = Events(int(sys.argv[1]))
    with lasting():
        import torch._dynamo  # noqa: F401 - the first optimizer would

        from runner.train.loop import Alarm
        from runner.train.session import run_cell

    alarm = Alarm()
    for number in STOP:
        signal.signal(number, lambda *_: alarm.ring())
    if asked:
        alarm.ring()
    for line in sys.stdin:
        command = json.loads(line)
        path = Path(command["folder"])
        if alarm.preempted:
            events.send({"event": "end", "status": {"status": "preempted"}})
            continue
        os.environ.update(command["env"])
        keep_to(command["cores"])
        allowances.hand_over(command["allow"])
        with own_output(path / "log.txt"):
            ask = partial(ask_launcher, events) if command["asks"] else lambda _row: None
            status = run_cell(path, events.send, alarm, command["shared"], ask)
            if "left" in status:
                print(f"the cell did not restore {status['left']}, so the next cell gets a new process")
        events.send({"event": "end", "status": status})
        let_go()
    return 0


def ask_launcher(events: Events, row: dict[str, Any]) -> str | None:
    """Show the launcher an evaluation and wait for its word; one that has gone has none."""
    events.send({"event": "ask", "row": row})
    answer = sys.stdin.readline()
    return json.loads(answer) if answer else None


def let_go() -> None:
    """Give a GPU's memory back, what hangs in reference cycles included, before the next cell."""
    import torch

    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


class Events:
    """The way to the launcher. One that has gone, or does not listen, is no reason to stop training."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def send(self, event: dict[str, Any]) -> None:
        """Send an event; but for questions and the last of a cell they are dropped rather than waited for."""
        data = json.dumps(event, default=str).encode() + b"\n"
        # Up to PIPE_BUF bytes are written whole or not at all.
        os.set_blocking(self._handle, event["event"] in ("ask", "end") or len(data) > select.PIPE_BUF)
        with contextlib.suppress(OSError):
            while data:
                data = data[os.write(self._handle, data) :]


def keep_to(cores: Sequence[int] | None) -> None:
    """Run every thread of this process on ``cores`` alone; None: on all that it was started with."""
    if not hasattr(os, "sched_setaffinity"):
        return
    wanted = ALL_CORES if cores is None else set(cores)
    for thread in os.listdir("/proc/self/task"):  # noqa: PTH208 - names are all that is wanted
        with contextlib.suppress(OSError):  # it has ended meanwhile
            os.sched_setaffinity(int(thread), wanted)


ALL_CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


@contextlib.contextmanager
def own_output(path: Path) -> Iterator[None]:
    """Send everything printed inside, by C code too, to ``path``; a crash leaves its stack there."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with open_or_null(path) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        faulthandler.enable(log)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            faulthandler.disable()
            for source, target in zip(kept, (1, 2), strict=True):
                os.dup2(source, target)
                os.close(source)


def open_or_null(path: Path) -> TextIO:
    """``path``, to append to; nowhere, where the disk does not let us."""
    try:
        return open(path, "a", 1, "utf-8", "backslashreplace", opener=no_link)
    except OSError:
        return Path(os.devnull).open("a", encoding="utf-8")


def _follow_parent() -> None:
    """Get SIGTERM when the launcher dies, so that the cell checkpoints and stops (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())

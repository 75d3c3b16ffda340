"""The process that trains: takes cells one by one, stays warm between them, reports as it goes.

Commands arrive as JSON lines on standard input (``{"folder": ...}``), events leave as JSON lines on the file
descriptor named on the command line. What a cell prints goes to its own ``log.txt``.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO


def main() -> int:
    """Serve until standard input ends."""
    _follow_parent()
    # A signal between two cells is the launcher's to act on; inside a cell the loop listens.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    events = os.fdopen(int(sys.argv[1]), "w", buffering=1)
    from runner.execute import run_cell

    send(events, {"event": "ready"})
    for line in sys.stdin:
        path = Path(json.loads(line)["folder"])
        with own_output(path / "log.txt"):
            status = run_cell(path, lambda event: send(events, event))
        send(events, {"event": "end", **status})
    return 0


def send(events: TextIO, event: dict[str, Any]) -> None:
    """One event; a launcher that has gone is no reason to stop training."""
    with contextlib.suppress(OSError):
        events.write(json.dumps(event, default=str) + "\n")
        events.flush()


@contextlib.contextmanager
def own_output(path: Path) -> Iterator[None]:
    """Send everything printed inside, by C code too, to ``path``; a crash leaves its stack there."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with path.open("a", buffering=1) as log:
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


def _follow_parent() -> None:
    """Get SIGTERM when the launcher dies, so that the cell checkpoints and stops (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())

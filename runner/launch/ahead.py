"""The first worker, started before the launcher imports anything of its own, so that both import at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from runner.launch.pool import Worker, signals_later

# What may ask for something else than training here; who says one of these waits a second longer.
ELSEWHERE = ("-", "+", "~", "dry_run", "experiment", "hydra")
_first: list[Worker] = []


@contextlib.contextmanager
def started(arguments: Sequence[str]) -> Iterator[None]:
    """Start a worker where a command line surely trains on this machine; one that nobody takes is ended."""
    try:
        if trains_here(arguments):
            with signals_later():  # between its birth and its place in the list
                _first.append(Worker())
        yield
    finally:
        while _first:
            _first.pop().close()


def trains_here(arguments: Sequence[str]) -> bool:
    """Whether overrides alone, or a plain ``-m``, are all there is to it."""
    return not any(word.startswith(ELSEWHERE) for word in arguments if word not in ("-m", "--multirun"))


def worker() -> Worker:
    """The one that was started ahead, the first time; else a new one."""
    return _first.pop() if _first else Worker()

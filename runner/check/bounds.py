"""Does the algorithm bear every value that its settings may have?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from runner.base.errors import Diverged, UserError, one_line
from runner.check.result import Result, failed, ok
from runner.check.subject import SHORT, Subject
from runner.compose.values import flatten

STEPS = 2


def check_bounds(subject: Subject) -> Result:
    """At the smallest and the largest value of each number, it trains, diverges, or refuses in one line.

    A value that ``compatible`` refuses is not set up, as in a run: it may ask for more memory than there
    is. The largest value of an integer is set up but not trained with: it may count passes.
    """
    others = [(path, value, subject.at(path, value), steps) for path, value, steps in ends(subject)]
    with subject.fresh():
        for path, value, other, steps in others:
            try:
                if other.refusal is None:
                    _try(other, steps)
            except (UserError, Diverged):
                continue
            except Exception as error:
                return failed(one_line(f"at {path}={value} {type(error).__name__}: {error}"))
    return ok()


def _try(subject: Subject, steps: int) -> None:
    pieces = subject.pieces(SHORT)  # whatever its cycle would be: that is found by steps
    for _ in range(steps):
        pieces.algorithm.step(pieces.task)
        pieces.task.cost.steps += 1


def ends(subject: Subject) -> Iterator[tuple[str, Any, int]]:
    """(setting, a value at an end of what it may be, steps to try with it)."""
    known = flatten(subject.algorithm)
    for path, (low, high) in subject.ends.items():
        counts = isinstance(known[path], int)
        if math.isfinite(low):
            yield path, _like(known[path], low), STEPS
        if math.isfinite(high):
            yield path, _like(known[path], high), 0 if counts else STEPS


def _like(default: Any, end: float) -> Any:
    """The end as a value of the default's kind: of a list in every place, of a count a count."""
    if isinstance(default, list):
        return [end] * len(default)
    return int(end) if isinstance(default, int) else float(end)

"""Wider search spaces: the overrides, and the command that searches there."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from runner.compose import values
from runner.compose.commands import command, places
from runner.stats.axes import Axis, numbers
from runner.stats.trials import floats

Side = Literal["min", "max"]
SIDES: tuple[Side, Side] = ("min", "max")
DECADE = 10.0  # at most, of a logarithmic range
CLOSER = 0.9  # of the way to a limit that cannot be reached
PLAIN = re.compile(r"[A-Za-z0-9_]+")


def overrides(axis: Axis, sides: Sequence[Side]) -> list[str]:
    """What widens a declared axis; empty where nothing lies beyond, or no space is known.

    A logarithmic range goes on for a decade (or for as long as it is, where that is less), a linear one for
    its length; choices by one more, in the ratio (or at the distance) of the last two. What a hyperparameter
    of that name can be (``runner.compose.values.RANGES``) is the limit, and so is 0 where the space begins.
    """
    if not axis.declared:
        return []
    parent, _, last = f"algorithm.{axis.key}".rpartition(".")
    space = f"{parent}.search_space.{last}"
    if axis.choices:
        more = [new for side in sides for new in [_next_choice(axis, side)] if new is not None]
        whole = ",".join([*axis.choices, *(f"{new:.6g}" for new in more)])
        return [f"{space}.choices=[{whole}]"] if more else []
    found = {side: _next_bound(axis, side) for side in sides}
    return [f"{space}.{side}={new:.6g}" for side, new in found.items() if new is not None]


def grid(
    label: str,
    cells: pd.DataFrame,
    wider: Sequence[str],
    made: Sequence[str] | None,
    experiment: str | Path | None,
) -> str:
    """The command that runs an algorithm's search once more in the wider space, as another label.

    Args:
        label: of the algorithm.
        cells: its trials: their workloads, studies and trials are run.
        wider: of :func:`overrides`.
        made: the words that make the algorithm; None: its label is its name.
        experiment: the folder that the cells go to; None: the default one.

    Returns:
        The command; empty where there is nothing wider, or a name is not plain.
    """
    workloads = sorted({str(name) for name in cells["workload"]})
    if made is None and PLAIN.fullmatch(label):
        made = [f"algorithm={label}"]
    if not wider or not made or not all(PLAIN.fullmatch(name) for name in workloads):
        return ""
    trials = floats(cells, "trial")
    parts = [
        *made,
        f"workload={','.join(workloads)}",
        f"ruleset={_ruleset(cells)}",
        f"ruleset.studies={len(cells['study'].unique())}",
        f"ruleset.trials={int(trials.max())}",
        *wider,
        f"label={re.sub(r'[^A-Za-z0-9_]+', '_', label)}_wide",
        *([] if experiment is None else places(Path(experiment))),
    ]
    return command("runner", "-m", *parts)


def _ruleset(cells: pd.DataFrame) -> str:
    names = {str(name) for name in cells["ruleset"].dropna()} if "ruleset" in cells else set()
    name = names.pop() if len(names) == 1 else ""
    return name if PLAIN.fullmatch(name) else "external_tuning"


def _next_bound(axis: Axis, side: Side) -> float | None:
    up = side == "max"
    if axis.log:
        factor = min(DECADE, axis.high / axis.low)
        return _within(axis.key, axis.high, axis.high * factor) if up else axis.low / factor
    length = axis.high - axis.low
    if up:
        return _within(axis.key, axis.high, axis.high + length)
    return _within(axis.key, axis.low, axis.low - length)


def _next_choice(axis: Axis, side: Side) -> float | None:
    order = sorted(numbers(axis.choices) or [])
    if len(order) < 2:
        return None
    if side == "min":
        order = order[::-1]
    before, last = order[-2:]
    if side == "max" and _limits(axis.key)[1] == values.BELOW_ONE and last >= 0.5:
        return None if last >= 1 else 1 - (1 - last) ** 2 / (1 - before)
    onward = last * last / before if before > 0 and last > 0 else last + (last - before)
    return _within(axis.key, last, onward)


def _within(key: str, bound: float, onward: float) -> float | None:
    """The value beyond ``bound`` to go on to, within what the hyperparameter can be."""
    low, high = _limits(key)
    if bound == 0 and onward < 0:
        return None
    if onward >= high and high == values.BELOW_ONE:
        onward = bound + CLOSER * (1 - bound)
    onward = min(max(onward, 0.0 if bound > 0 else low), high)
    return None if math.isclose(onward, bound) else onward


def _limits(key: str) -> tuple[float, float]:
    low, high, _ = values.RANGES.get(key.rpartition(".")[2], (-math.inf, math.inf, ""))
    return low, high

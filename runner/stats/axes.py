"""A hyperparameter as an axis: its range or its choices, from the search space or from what was tried."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from runner.stats.trials import HPARAM, Table

Space = Mapping[str, Mapping[str, Any]]
Spaces = Mapping[str, Space]
NO_SPACES: Spaces = {}
FIRST = ("lr", "weight_decay")  # what a reader looks at first
FEW = 5  # distinct numbers, each tried twice or more, that count as choices where no space says so
LOG_FROM = 10.0  # highest ÷ lowest from which a range that no space describes is logarithmic


@dataclass(frozen=True)
class Axis:
    """One hyperparameter: a range from ``low`` to ``high``, or ``choices``.

    Attributes:
        key: as in the search space, ``optimizer.lr``.
        low: lowest value of a range; NaN for choices.
        high: highest value of a range; NaN for choices.
        log: whether the range is logarithmic.
        choices: what may be chosen, as text; empty for a range.
        declared: whether the search space says so; otherwise it is read off what was tried.
    """

    key: str
    low: float = math.nan
    high: float = math.nan
    log: bool = False
    choices: tuple[str, ...] = ()
    declared: bool = False

    def unit(self, values: np.ndarray) -> np.ndarray:
        """Places of values on the scale of a range, 0 at its lowest and 1 at its highest; NaN for none."""
        if not self.log:
            return (values - self.low) / (self.high - self.low)
        positive = np.where(values > 0, values, np.nan)
        return np.log(positive / self.low) / math.log(self.high / self.low)

    def bound(self, side: str) -> float:
        """The lowest (``min``) or highest (``max``) value; NaN where choices have none."""
        ends = (numbers(self.choices) or [math.nan]) if self.choices else [self.low, self.high]
        return min(ends) if side == "min" else max(ends)


def axes(rows: Table, space: Space | None = None) -> list[Axis]:
    """The hyperparameters that vary over the rows of one algorithm: lr, weight decay, then the others.

    Args:
        rows: cells of one label.
        space: its search space, ``{key: {"min", "max", "scale"} | {"choices"}}``; without one the axes are
            those of what was tried.
    """
    found = []
    for name in (str(name) for name in rows if str(name).startswith(HPARAM)):
        key, (distinct, tries) = name.removeprefix(HPARAM), _tried(rows[name])
        if len(distinct) > 1:
            found.append(_declared(key, (space or {}).get(key)) or _observed(key, distinct, tries))
    return sorted(found, key=_place)


def texts(values: np.ndarray) -> np.ndarray:
    """Values as text, equal where the value is: 0.9 of a list of choices and 0.9 of a table alike."""
    return np.array([_text(value) for value in values.tolist()], dtype=object)


def numbers(texts: Sequence[str]) -> list[float] | None:
    """Choices as numbers; None where one of them is none."""
    try:
        parsed = [json.loads(text) for text in texts]
    except ValueError:
        return None
    plain = all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in parsed)
    return [float(one) for one in parsed] if plain and all(map(math.isfinite, parsed)) else None


def _declared(key: str, entry: Any) -> Axis | None:
    if not isinstance(entry, Mapping):
        return None
    if isinstance(entry.get("choices"), (list, tuple)):
        return Axis(key, choices=tuple(_text(one) for one in entry["choices"]), declared=True)
    try:
        low, high, log = float(entry["min"]), float(entry["max"]), entry.get("scale") == "log"
    except (KeyError, TypeError, ValueError):
        return None
    return Axis(key, low, high, log, declared=True) if low < high and (low > 0 or not log) else None


def _tried(values: Any) -> tuple[list[Any], int]:
    """The distinct values that are there, and how many rows have one."""
    there = [value for value in values.tolist() if not pd.isna(value)]
    return list(dict.fromkeys(there)), len(there)


def _observed(key: str, tried: Sequence[Any], tries: int) -> Axis:
    distinct = sorted({_text(value) for value in tried})
    values = numbers(distinct)
    if values is None or (len(values) <= FEW and tries >= 2 * len(values)):
        return Axis(key, choices=tuple(distinct if values is None else sorted(distinct, key=json.loads)))
    low, high = min(values), max(values)
    return Axis(key, low, high, low > 0 and high / low >= LOG_FROM)


def _place(axis: Axis) -> tuple[int, int]:
    last = axis.key.rpartition(".")[2]
    return (FIRST.index(last) if last in FIRST else len(FIRST), bool(axis.choices))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (int, float, np.number)):
        return f"{float(value):.12g}"
    return json.dumps(value, default=str)

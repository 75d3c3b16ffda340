"""Axes: from values to places, and the round values to mark."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
LIMIT = 1e100  # what is larger, or closer to 0 on a logarithmic axis, lies at the edge


@dataclass(frozen=True)
class Scale:
    """An axis from ``low`` to ``high``.

    Attributes:
        low, high: its ends; over 0 where it is logarithmic.
        log: whether it is.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        sound = math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high
        if not sound or (self.log and self.low <= 0):
            raise ValueError(f"no axis from {self.low} to {self.high}{', logarithmic' * self.log}")

    def unit(self, values: np.ndarray | float) -> np.ndarray:
        """Places of values: 0 at ``low``, 1 at ``high``; NaN for what has none."""
        values = np.asarray(values, dtype="float64")
        if not self.log:
            return (values - self.low) / (self.high - self.low)
        positive = np.where(values > 0, values, np.nan)
        return np.log(positive / self.low) / math.log(self.high / self.low)

    def ticks(self, about: int = 5) -> list[float]:
        """Round values within the ends, about so many."""
        return _log_ticks(self.low, self.high, about) if self.log else _ticks(self.low, self.high, about)


def covering(values: Iterable[float], log: bool = False, zero: bool = False, margin: float = 0.0) -> Scale:
    """The axis that holds all finite values (of a logarithmic one: those over 0).

    Args:
        values: what is drawn.
        log: a logarithmic axis, if any value is over 0.
        zero: from 0 on.
        margin: share of the axis to leave free at each end (but not below a ``zero``).
    """
    array = np.array([*values], dtype="float64")
    array = array[np.isfinite(array)].clip(-LIMIT, LIMIT)
    log = log and bool((array > 0).any())
    array = array[array > 0].clip(1 / LIMIT) if log else array
    low, high = (float(array.min()), float(array.max())) if len(array) else (0.0, 1.0)
    low = min(0.0, low) if zero and not log else low
    if log:
        low, high = (low / 2, high * 2) if low == high else (low, high)
        factor = (high / low) ** margin
        return Scale(low / factor, high * factor, True)
    if low == high:
        low, high = (low, high + (abs(high) or 1.0)) if zero else (low - _half(low), high + _half(high))
    room = margin * (high - low)
    return Scale(low if zero and low == 0 else low - room, high + room)


def tick_text(value: float) -> str:
    """A short number: ``0.98``, ``25k``, ``1.5M``, ``1e-05``."""
    size = abs(value)
    for unit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if unit <= size < 1e12:
            return f"{value / unit:.4g}{suffix}"
    return f"{value:.4g}"


def _half(value: float) -> float:
    return abs(value) / 2 or 1.0


def _ticks(low: float, high: float, about: int) -> list[float]:
    rough = (high - low) / max(1, about)
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * min(STEPS, key=lambda size: abs(math.log(size * power / rough)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [0.0 if place == 0 else float(f"{place * step:.12g}") for place in range(first, last + 1)]


def _log_ticks(low: float, high: float, about: int) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, round((last - first) / max(1, about)))
    if every > 1:
        return [
            10.0**power for power in range(first, last + 1) if power % every == 0 and _in(low, power, high)
        ]
    for parts in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0)):
        ticks = [float(f"{part * 10.0**power:.12g}") for power in range(first, last + 1) for part in parts]
        inside = [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
        if len(inside) >= 3:
            return inside
    return _ticks(low, high, about)


def _in(low: float, power: int, high: float) -> bool:
    return low * (1 - 1e-9) <= 10.0**power <= high * (1 + 1e-9)

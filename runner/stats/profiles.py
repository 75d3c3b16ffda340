"""Performance profiles and their integral (Dahl et al. 2023, arXiv 2306.07179; AlgoPerf's rules)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import numpy as np
import pandas as pd

from runner.base.errors import UserError

Integral = Literal["exact", "trapezoid"]
POINTS = 100  # of AlgoPerf's grid
NO_VARIANTS: Mapping[str, str] = MappingProxyType({})


def scores(
    times: pd.DataFrame,
    tau_max: float = 4.0,
    integral: Integral = "exact",
    variants: Mapping[str, str] = NO_VARIANTS,
) -> pd.Series:
    """The score of each algorithm: the integral of its performance profile over 1 ≤ τ ≤ ``tau_max``.

    Args:
        times: label × workload, the table of :func:`runner.stats.medians`, in any unit; NaN is a miss.
        tau_max: times beyond ``tau_max`` × the lowest of their workload are misses (exactly that survives).
        integral: ``exact``, or AlgoPerf's ``trapezoid`` rule on 100 points.
        variants: held-out variant -> its base. Both must be hit, and bases alone enter the average.

    Returns:
        label -> score, 0 (nothing hit) to 1 (the fastest everywhere), in the order of ``times``.

    Raises:
        UserError: for no workload, a variant without its base, or ``tau_max`` of 1 or less.
    """
    values = score(times.to_numpy("float64"), Rule(times.columns, tau_max, integral, variants))
    return pd.Series(values, index=times.index, name="score")


def profile(
    times: pd.DataFrame,
    taus: Sequence[float] | np.ndarray,
    tau_max: float = 4.0,
    variants: Mapping[str, str] = NO_VARIANTS,
) -> pd.DataFrame:
    """The performance profile: share of workloads on which an algorithm is within τ of the fastest.

    Args:
        times: label × workload, as for :func:`scores`.
        taus: where to evaluate it.
        tau_max: as for :func:`scores`.
        variants: as for :func:`scores`.

    Returns:
        label × τ.
    """
    rule = Rule(times.columns, tau_max, "exact", variants)
    within = rule.ratios(times.to_numpy("float64"))[:, :, None] <= np.asarray(taus, dtype="float64")
    return pd.DataFrame(within.mean(axis=1), index=times.index, columns=pd.Index(taus, name="tau"))


class Rule:
    """How times become credits, for given columns: arrays in, arrays out, any number of leading axes."""

    def __init__(
        self, workloads: Iterable[str], tau_max: float, integral: Integral, variants: Mapping[str, str]
    ) -> None:
        names = [str(name) for name in workloads]
        if not tau_max > 1:
            raise UserError(f"tau_max is {tau_max:g}: it must be over 1")
        if integral not in ("exact", "trapezoid"):
            raise UserError(f"no integral is called {integral}: exact or trapezoid")
        self.tau_max, self.integral = tau_max, integral
        self.pairs = [(names.index(v), _base(v, variants, names)) for v in names if v in variants]
        self.bases = [place for place, name in enumerate(names) if name not in variants]
        if not self.bases:
            raise UserError("no workload to score")

    def ratios(self, times: np.ndarray) -> np.ndarray:
        """Time ÷ the lowest of its workload, infinite for a miss; base workloads alone."""
        times = np.where(np.isnan(times), np.inf, times)
        self._miss(times, [(base, variant) for variant, base in self.pairs])
        times[times > self.tau_max * times.min(axis=-2, keepdims=True)] = np.inf
        self._miss(times, self.pairs)
        times = times[..., self.bases]
        best = times.min(axis=-2, keepdims=True)
        hit = np.isfinite(times)
        # All that is left beside a lowest time of zero is zero as well: a tie.
        return np.divide(times, best, where=hit & (best > 0), out=np.where(hit, 1.0, np.inf))

    def credits(self, ratios: np.ndarray) -> np.ndarray:
        """The normalised integral of the step that each ratio contributes to a profile."""
        if self.integral == "exact":
            return np.maximum(0.0, self.tau_max - ratios) / (self.tau_max - 1)
        grid = np.linspace(1.0, self.tau_max, POINTS)
        weights = np.full(POINTS, grid[1] - grid[0])
        weights[[0, -1]] /= 2
        # A ratio earns the points of the grid from the first that is not below it.
        tails = np.append(np.cumsum(weights[::-1])[::-1], 0.0) / (self.tau_max - 1)
        return tails[np.searchsorted(grid, ratios)]

    @staticmethod
    def _miss(times: np.ndarray, pairs: Iterable[tuple[int, int]]) -> None:
        """Whoever misses the first of a pair misses the second, in place."""
        for given, then in pairs:
            column = times[..., then]
            column[np.isinf(times[..., given])] = np.inf


def score(times: np.ndarray, rule: Rule) -> np.ndarray:
    """Scores (…, algorithms) from times (…, algorithms, workloads)."""
    return rule.credits(rule.ratios(times)).mean(axis=-1)


def _base(variant: str, variants: Mapping[str, str], names: Sequence[str]) -> int:
    base = variants[variant]
    if base in variants:
        raise UserError(f"{variant} is a variant of {base}, which is itself a variant")
    if base not in names:
        raise UserError(f"{variant} cannot be scored without its base workload {base}")
    return names.index(base)

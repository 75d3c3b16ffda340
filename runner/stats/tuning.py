"""Tuning curves: the chance to hit after k trials of a search, from the trials that were run.

All studies' trials are one pool where each has a point of its own, as under external tuning. Where every
study runs the same points (as submissions to AlgoPerf do that list theirs), a study is a pool, pools are
averaged, and only distinct points count towards how sure a figure is.

The chance is the hypergeometric expectation over all subsets of k trials, where Sivaprasad et al. 2020
(arXiv 1910.11758) draw 1,000 subsets at random.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from runner.base.errors import UserError
from runner.stats.rows import Rows
from runner.stats.times import counted, medians, place, study_times
from runner.stats.trials import (
    ONLY_DEFAULTS,
    PAIR,
    Columns,
    Pair,
    check_level,
    finished_trials,
    floats,
    grouped,
    joined,
    named,
    refused,
    share_interval,
    shared,
    untuned,
)

CURVE = [*PAIR, "at", "time", "k", "probability", "low", "high", "trials", "hits", "points", "reason"]
COST = [
    *PAIR, "trials", "hits", "chance", "low", "high", "expected_trials", "expected_cost", "reason",
]  # fmt: skip


# -- the chance to hit -------------------------------------------------------------------------------


def hit_probability(
    cells: pd.DataFrame,
    times: Mapping[str, Mapping[str, float]] | None = None,
    trials: Sequence[int] | None = None,
    by: str = "samples",
    level: float = 0.95,
) -> pd.DataFrame:
    """The chance that one of k trials hits within t, as a function of k.

    1 − C(n − h, k) / C(n, k), with h of n trials within t: exact over all subsets, and unbiased for k new
    trials. The band is that of the chance p of one trial (Clopper and Pearson 1934, exact for independent
    trials), carried over by 1 − (1 − p)^k, and widened where need be to hold the estimate; it is pointwise.

    Args:
        cells: the ``cells`` table.
        times: workload -> {name: t}; :func:`marks` makes some. By default ``budget``, an infinite t.
        trials: values of k; by default 1 to the number of trials.
        by: ``samples``, ``seconds`` or ``steps``.
        level: of the band.

    Returns:
        ``workload, label, at`` (the name of t), ``time`` (t), ``k``, ``probability, low, high``, ``trials``
        (n), ``hits`` (h), ``points`` (distinct settings that the band counts), ``reason`` (empty, or why
        there is no figure).

    Raises:
        UserError: when a column is missing, or the level is none.
    """
    frames = [
        pool.curve(np.array(list(own.values()), dtype="float64"), list(own), trials, level)
        for pool in pools(cells, by)
        for own in [{"budget": math.inf} if times is None else dict(times.get(pool.workload, {}))]
    ]
    return joined(frames, CURVE)


def hit_curves(
    cells: pd.DataFrame, trials: Sequence[int] = (1, 3, 5), by: str = "samples", level: float = 0.95
) -> pd.DataFrame:
    """The chance that one of k trials hits within t, as a function of t: steps at the times of the hits.

    Args:
        cells: the ``cells`` table.
        trials: values of k; those beyond the trials that were run are left out.
        by: ``samples``, ``seconds`` or ``steps``.
        level: of the bands.

    Returns:
        As :func:`hit_probability`; ``at`` is empty, and before the first ``time`` the chance is 0. A pair
        without a hit has one row, at an infinite time.
    """
    frames = []
    for pool in pools(cells, by):
        hits = np.unique(pool.times[np.isfinite(pool.times)])
        ts = hits if len(hits) else np.array([math.inf])
        frames.append(pool.curve(ts, [""] * len(ts), trials, level))
    return joined(frames, CURVE)


def marks(
    cells: pd.DataFrame, baseline: str | None = None, by: str = "samples"
) -> dict[str, dict[str, float]]:
    """Times worth a tuning curve: the budget, a median time to target, and twice that.

    Args:
        cells: the ``cells`` table.
        baseline: the label whose median is taken; by default that of the lowest on each workload.
        by: ``samples``, ``seconds`` or ``steps``.

    Returns:
        workload -> {name: t}; ``budget`` is an infinite t (within the budget, whenever), and the others are
        there where that median is finite.

    Raises:
        UserError: when no algorithm is called ``baseline``.
    """
    table = medians(study_times(cells, by))
    row = None if baseline is None else place(baseline, table.index)
    found: dict[str, dict[str, float]] = {}
    for name, column in table.items():
        own = found[str(name)] = {"budget": math.inf}
        best = int(np.argmin(column.fillna(math.inf).to_numpy())) if row is None else row
        if math.isfinite(column.iloc[best]):
            own[f"median of {table.index[best]}"] = float(column.iloc[best])
            own[f"2 × median of {table.index[best]}"] = 2 * float(column.iloc[best])
    return found


def tuning_cost(cells: pd.DataFrame, by: str = "samples", level: float = 0.95) -> pd.DataFrame:
    """What the first hit costs when the trials are run one after the other, in any order.

    Over all orders of n trials with h hits the first hit is number (n + 1) / (h + 1) on average, so
    (n − h) / (h + 1) misses are paid for before it.

    Args:
        cells: the ``cells`` table; its column ``by`` says what a cell spent.
        by: ``samples``, ``seconds`` or ``steps``.
        level: of the interval of the chance (Clopper and Pearson).

    Returns:
        ``workload, label, trials, hits``; ``chance`` that a trial hits, with ``low`` and ``high``;
        ``expected_trials`` and ``expected_cost`` up to the first hit, the hit included; ``reason``.
    """
    return joined([pool.cost(level) for pool in pools(cells, by)], COST)


def subset_cdf(
    below: np.ndarray, n: int, k: np.ndarray | Sequence[int], replacement: bool = False
) -> np.ndarray:
    """The chance that all of k drawn from n are among given ``below`` ones: C(below, k) / C(n, k).

    Args:
        below: counts, 0 to n, of any shape.
        n: how many there are.
        k: how many are drawn, each 1 to n.
        replacement: draw with replacement: (below / n)^k.

    Returns:
        Of shape (len(k), *below.shape).
    """
    below, sizes = np.asarray(below, dtype="float64"), np.asarray(k, dtype=int)
    if replacement:
        return (below / n) ** sizes.reshape(-1, *[1] * below.ndim)
    drawn = np.arange(sizes.max(initial=0)).reshape(-1, *[1] * below.ndim)
    return np.cumprod(np.maximum(below - drawn, 0.0) / (n - drawn), axis=0)[sizes - 1]


class Pool(NamedTuple):
    """The trials of one algorithm on one workload, by ascending time."""

    workload: str
    label: str
    times: np.ndarray  # infinite for a miss
    spent: np.ndarray  # of each, in the same unit; NaN where unknown
    part: np.ndarray  # of each, the pool within which subsets are drawn: 0, 1, …
    points: int  # distinct settings

    def curve(
        self, ts: np.ndarray, names: Sequence[str], trials: Sequence[int] | None, level: float
    ) -> Columns:
        """Rows of :func:`hit_probability` for every t and k."""
        check_level(level)
        if not len(self.times):
            return refused((self.workload, self.label), ONLY_DEFAULTS)
        ks = sizes(trials, np.bincount(self.part).min())
        within = self.times <= ts[:, None]
        within &= np.isfinite(self.times)
        parts = [within[:, self.part == part] for part in range(self.part.max() + 1)]
        missed = [subset_cdf((~own).sum(axis=1), own.shape[1], ks) for own in parts]
        estimate = 1 - np.mean(missed, axis=0).T
        edges = share_interval(within.mean(axis=1), self.points, level)
        low, high = (1 - (1 - edge[:, None]) ** ks for edge in edges)
        frame = {
            "at": np.repeat(names, len(ks)),
            "time": np.repeat(ts, len(ks)),
            "k": np.tile(ks, len(ts)),
            "probability": estimate.ravel(),
            "low": np.minimum(low, estimate).ravel(),
            "high": np.maximum(high, estimate).ravel(),
            "trials": len(self.times),
            "hits": np.repeat(within.sum(axis=1), len(ks)),
            "points": self.points,
            "reason": "",
        }
        return named((self.workload, self.label), frame)

    def cost(self, level: float) -> Columns:
        """The row of :func:`tuning_cost`."""
        check_level(level)
        hit = np.isfinite(self.times)
        n, h = len(hit), int(hit.sum())
        if not n:
            return refused((self.workload, self.label), ONLY_DEFAULTS)
        low, high = share_interval(np.array([h / n]), self.points, level)
        missed = self.spent[~hit].mean() if h < n else 0.0
        known = h > 0 and not math.isnan(missed)
        frame = {
            "trials": [n],
            "hits": h,
            "chance": h / n,
            "low": low,
            "high": high,
            "expected_trials": (n + 1) / (h + 1) if h else math.nan,
            "expected_cost": (n - h) / (h + 1) * missed + self.times[hit].mean() if known else math.nan,
            "reason": "" if known else "no trial hit" if not h else "what the misses spent is not known",
        }
        return named((self.workload, self.label), frame)


def pools(cells: pd.DataFrame, by: str = "samples") -> Iterator[Pool]:
    """The finished trials of each algorithm on each workload; empty where only the defaults were run."""
    rows, tried = counted(cells, by), finished_trials(cells, by)
    tried = tried.assign(spent=floats(tried, by)).sort_values("time", kind="stable")
    empty = np.empty(0)
    found = {name: _pool(name, own) for name, own in grouped(tried)}
    found |= {name: Pool(*name, empty, empty, empty.astype(int), 0) for name in untuned(rows, tried)}
    for name in sorted(found):
        yield found[name]


def sizes(wanted: Sequence[int] | None, largest: int) -> np.ndarray:
    """The values of k asked for, ascending, as far as there are that many trials.

    Raises:
        UserError: for a k under 1.
    """
    if wanted is None:
        return np.arange(1, largest + 1)
    if any(k < 1 for k in wanted):
        raise UserError(f"{min(wanted)} trials: at least one")
    return np.array(sorted({int(k) for k in wanted if k <= largest}), dtype=int)


def _pool(name: Pair, own: Rows) -> Pool:
    same = shared(own)
    part = pd.factorize(own["study"])[0] if same else np.zeros(len(own), dtype=int)
    points = len(np.unique(own["setting"])) if same else len(own)
    return Pool(*name, own["time"], own["spent"], part, points)

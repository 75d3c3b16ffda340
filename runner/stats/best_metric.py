"""The best validation metric after k trials of a search, from runs that went to their end.

Sources: without replacement, the exact expectation over all subsets; with replacement, "Show Your Work"
(Dodge et al. 2019, arXiv 1909.03004, section 3); the spread over subsets, Sivaprasad et al. 2020 (arXiv
1910.11758), who draw 1,000 of them; the interval of the median, by order statistics as in Lourie, Cho and He
2023 (arXiv 2311.09480).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from runner.cells.tables import UNITS
from runner.contract.records import FINISHED
from runner.stats.rows import Rows
from runner.stats.trials import (
    ONLY_DEFAULTS,
    PAIR,
    Columns,
    Pair,
    Table,
    check_level,
    floats,
    grouped,
    joined,
    named,
    refused,
    require,
    shared,
    untuned,
)
from runner.stats.tuning import sizes, subset_cdf

BEST = [*PAIR, "k", "expected", "sd", "median", "low", "high", "metric", "trials", "points", "reason"]


def expected_best(
    cells: pd.DataFrame,
    trials: Sequence[int] | None = None,
    level: float = 0.95,
    *,
    replacement: bool = False,
) -> pd.DataFrame:
    """The best validation metric after k trials, from runs that went to their end.

    A run that stopped at the target says nothing of how far it would have come: where there is one, the pair
    is refused. A diverged run counts as the worst value of the workload.

    Args:
        cells: the ``cells`` table.
        trials: values of k; by default 1 to the number of trials.
        level: of the interval of the median.
        replacement: False: exact over all subsets, unbiased. True: subsets drawn with replacement, as in
            "Show Your Work"; biased towards the worse.

    Returns:
        ``workload, label, k``; ``expected`` and ``sd`` (spread over subsets: what another k trials would
        give; 0 where k is all of them); ``median`` of the best of k with its interval ``low`` to ``high``
        from order statistics, exact for independent trials and infinite on the side that so few trials
        cannot bound; ``metric, trials, points, reason``. A pair that is refused has one row without k.
    """
    check_level(level)
    require(cells, [*PAIR, "study", "trial", "status", "best_metric", "minimize"])
    rows = cells.loc[cells["status"].isin(list(FINISHED))]
    worst = {name: _worst(own) for name, own in rows.groupby("workload")}
    tried = rows.loc[floats(rows, "trial") > 0]
    frames = [_best_of(name, own, worst[name[0]], trials, level, replacement) for name, own in grouped(tried)]
    frames += [refused(name, ONLY_DEFAULTS) for name in untuned(rows, tried)]
    return joined(frames, BEST)


def _best_of(
    name: Pair, own: Rows, worst: float, trials: Sequence[int] | None, level: float, replacement: bool
) -> Columns:
    reason = "no evaluation of a finished run" if math.isnan(worst) else cut(own)
    if reason:
        return refused(name, reason)
    sign = -1.0 if _minimized(own) else 1.0
    values = floats(own, "best_metric")
    values = sign * np.where(np.isnan(values) | _diverged(own), worst, values)
    same = shared(own)
    part = own["study"] if same else np.zeros(len(own))
    parts = [np.sort(values[part == one]) for one in pd.unique(part)]
    ks = sizes(trials, min(map(len, parts)))
    mean, variance, middle = np.mean([_moments(one, ks, replacement) for one in parts], axis=0)
    low, high = np.full((2, len(ks)), math.nan) if same else _median_interval(parts[0], ks, level)
    frame = {
        "k": ks,
        "expected": sign * mean,
        "sd": np.sqrt(np.maximum(variance, 0.0)),
        "median": sign * middle,
        "low": low if sign > 0 else -high,
        "high": high if sign > 0 else -low,
        "metric": own["metric"][0] if "metric" in own else None,
        "trials": len(own),
        "points": len(np.unique(own["setting"])) if same else len(own),
        "reason": "studies share their points: no interval" if same else "",
    }
    return named(name, frame)


def cut(own: Rows) -> str:
    """Why the best metrics of these runs cannot be compared; empty where all went to their end."""
    hit = _hit(own)
    if not hit.any():
        return ""
    ended = (own["ended"] if "ended" in own else np.full(len(own), None))[hit]
    if unknown := int(pd.isna(ended).sum()):
        return f"{unknown} of {len(own)} runs hit, but how they ended is not recorded"
    if stopped := int((ended == "target").sum()):
        return f"{stopped} of {len(own)} runs stopped at the target: run with stop_at_target=false"
    return ""


def losses(own: Table) -> np.ndarray:
    """The best metrics, made such that lower is better; infinite for a diverged run, or without a metric."""
    values = np.where(floats(own, "minimize") == 1, 1.0, -1.0) * floats(own, "best_metric")
    return np.where(np.isnan(values) | _diverged(own), np.inf, values)


def _diverged(own: Table) -> np.ndarray:
    return np.asarray(own["status"] == "diverged", dtype=bool)


def _hit(own: Rows) -> np.ndarray:
    hit = floats(own, "hit") == 1
    for unit in UNITS:
        hit |= np.isfinite(floats(own, f"{unit}_to_target"))
    return hit


def _minimized(rows: Table) -> bool:
    return bool((floats(rows, "minimize") == 1).any())


def _moments(ascending: np.ndarray, ks: np.ndarray, replacement: bool) -> np.ndarray:
    """Mean, variance and median of the largest of k, (3, len(ks))."""
    n, centre = len(ascending), ascending.mean()
    cdf = subset_cdf(np.arange(n + 1), n, ks, replacement)
    # About the mean, so that a small spread beside a large mean keeps its digits.
    weight, about = np.diff(cdf, axis=1), ascending - centre
    mean = weight @ about
    middle = ascending[np.argmax(cdf[:, 1:] >= 0.5 - 1e-12, axis=1)]
    return np.stack([mean + centre, weight @ about**2 - mean**2, middle])


def _median_interval(ascending: np.ndarray, ks: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Order statistics round the quantile 0.5^(1/k), which is the median of the largest of k."""
    padded = np.concatenate([[-math.inf], ascending, [math.inf]])
    low, high = _ranks(len(ascending), tuple(ks.tolist()), level)
    return padded[low], padded[high]


@functools.lru_cache(maxsize=256)
def _ranks(n: int, ks: tuple[int, ...], level: float) -> tuple[np.ndarray, np.ndarray]:
    """The order statistics, 0 (none) to n + 1 (none), between which that quantile lies."""
    from scipy.stats import binom

    quantile = 0.5 ** (1 / np.array(ks))
    low, high = (binom.ppf(tail, n, quantile).astype(int) for tail in ((1 - level) / 2, (1 + level) / 2))
    return low, high + 1


def _worst(rows: pd.DataFrame) -> float:
    values = floats(rows, "best_metric")
    values = values[np.isfinite(values)]
    if not len(values):
        return math.nan
    return float(values.max() if _minimized(rows) else values.min())

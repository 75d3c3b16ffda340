"""Wilcoxon's signed-rank test on log ratios, misses and ties included; arrays in, numbers out.

A log ratio is +inf where the first of a pair missed, -inf where the second did, NaN where both did. Its null
hypothesis: swapping the two of a pair changes nothing. The test flips signs, given the sizes of the
differences (Wilcoxon 1945, Biometrics Bulletin 1(6); Lehmann 1975, Nonparametrics, ch. 3), so it is exact
with any number of pairs, ties and misses; misses rank above every finite ratio.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtrit
from scipy.stats import nct

EXACT = 200  # pairs up to which the distribution is computed, and beyond which it is taken as normal
GAPS = 4000  # shifts that an interval looks at
MOST = 1000  # studies that a forecast looks at
SLACK = 1e-9  # of a probability: 1 - 0.95 is not 0.05


def informative(logs: np.ndarray) -> np.ndarray:
    """The log ratios that say who was faster: neither ties nor pairs in which both missed."""
    return logs[~np.isnan(logs) & (logs != 0)]


def signed_ranks(logs: np.ndarray) -> np.ndarray:
    """Twice the rank of each size among the informative ones, with its sign; whole numbers.

    Args:
        logs: (…, pairs); ties share the mean of their ranks; what is not informative has 0.
    """
    kept = ~np.isnan(logs) & (logs != 0)
    sizes = np.where(kept, np.abs(logs), -1.0)
    order = np.argsort(sizes, axis=-1, kind="stable")
    ascending = np.take_along_axis(sizes, order, axis=-1)
    places = np.broadcast_to(np.arange(1, sizes.shape[-1] + 1), sizes.shape)
    new = np.ones(sizes.shape, bool)
    new[..., 1:] = ascending[..., 1:] != ascending[..., :-1]
    last = np.ones(sizes.shape, bool)
    last[..., :-1] = new[..., 1:]
    first = np.maximum.accumulate(np.where(new, places, 0), axis=-1)
    end = np.minimum.accumulate(np.where(last, places, places.shape[-1])[..., ::-1], axis=-1)[..., ::-1]
    ranks = np.empty(sizes.shape)
    np.put_along_axis(ranks, order, (first + end).astype(float), axis=-1)
    ranks -= 2.0 * (~kept).sum(axis=-1, keepdims=True)
    return np.where(kept, ranks * np.sign(np.where(kept, logs, 0.0)), 0.0)


def p_value(signed: np.ndarray) -> float:
    """Two-sided p of flipping each sign by itself; 1 where nothing is informative."""
    own = np.abs(signed[signed != 0])
    return float(_two_sided(np.array([signed[signed > 0].sum()]), own)[0]) if len(own) else 1.0


def p_by_study(signed: np.ndarray, study: np.ndarray) -> float:
    """Two-sided p of a t-test on the sums of signed normal scores over each study.

    Normal scores (van der Waerden 1952), not the ranks themselves, whose sums make a t-test reject too often
    where a study's workloads agree with each other.
    What a study's pairs have in common, as the luck of its tuning points, then counts once and not once a
    workload (few clusters: Ibragimov and Müller 2010, J. Bus. Econ. Stat. 28(4)). 1 with fewer than two
    studies.
    """
    return float(_t_test(_sums(signed, study)))


def needed(level: float) -> int:
    """The fewest informative pairs with which the test can reach the level: 6 for 0.95."""
    return 1 + math.ceil(math.log2(1 / (1 - level)) - SLACK)


def attainable(count: int, level: float) -> float:
    """The level that ``count`` pairs reach where all agree, or ``level`` where that is lower."""
    return min(level, 1 - 2.0 ** (1 - count)) if count else 0.0


def interval(logs: np.ndarray, level: float, study: np.ndarray | None = None) -> tuple[float, float, float]:
    """The shifts that the test does not reject (Lehmann 1975, ch. 4), and the level of that.

    It is about the finite log ratios. With too few of them for the level, the highest that they allow is
    used: the interval then spans all of them.

    Args:
        logs: (pairs,); what is not finite is left out.
        level: wanted.
        study: of each pair; shifts that :func:`p_by_study` does not reject then belong to the interval too.

    Returns:
        low, high and the level; NaN, NaN, 0 with fewer than two.
    """
    own = np.isfinite(logs)
    logs = logs[own]
    if len(logs) < 2:
        return math.nan, math.nan, 0.0
    attained = attainable(len(logs), level)
    edges = _edges(logs)
    signed = signed_ranks(logs - _between(edges)[:, None])
    untied = 2.0 * np.arange(1, len(logs) + 1)  # a little conservative where there are ties
    p = _two_sided(np.where(signed > 0, signed, 0).sum(axis=-1), untied)
    if study is not None:
        p = np.maximum(p, _t_test(_sums(signed, study[own])))
    kept = np.flatnonzero(p > 1 - attained + SLACK)
    if not len(kept):  # the level is so low that only the middle is left
        return float(np.median(logs)), float(np.median(logs)), attained
    bounds = np.concatenate([[-np.inf], edges, [np.inf]])
    return float(bounds[kept[0]]), float(bounds[kept[-1] + 1]), attained


def pairs_needed(logs: np.ndarray, level: float, power: float) -> float:
    """Informative pairs with which a difference like the one seen would be separated with that power.

    Noether's formula (1987, JASA 82(398)) with the share of couples of pairs that agree on the
    sign of their sum, as seen. Infinite where that is a half; NaN with fewer than two informative pairs.
    """
    own = informative(logs)
    if len(own) < 2:
        return math.nan
    one, other = np.triu_indices(len(own), 1)
    with np.errstate(invalid="ignore"):
        share = 0.5 + 0.5 * np.mean(np.sign(np.nan_to_num(own[one] + own[other], nan=0.0)))
    if abs(share - 0.5) < SLACK:
        return math.inf
    found = (ndtri((1 + level) / 2) + ndtri(power)) ** 2 / (3 * (share - 0.5) ** 2)
    return max(float(needed(level)), math.ceil(found))


def studies_needed(signed: np.ndarray, study: np.ndarray, level: float, power: float) -> float:
    """Studies with which :func:`p_by_study` would reach the level with that power, by the noncentral t."""
    sums = _sums(signed, study)
    if len(sums) < 2:
        return math.nan
    mean, spread = abs(float(sums.mean())), float(sums.std(ddof=1))
    if mean == 0:
        return math.inf
    if spread == 0:
        return 2.0
    counts = np.arange(2, MOST + 1)
    critical = stdtrit(counts - 1, (1 + level) / 2)
    enough = np.flatnonzero(nct.sf(critical, counts - 1, mean / spread * np.sqrt(counts)) >= power)
    return float(counts[enough[0]]) if len(enough) else math.inf


# -- distributions -----------------------------------------------------------------------------------


def _two_sided(sums: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """P of sums of (doubled) ranks with a positive sign that are as far from the middle as ``sums``."""
    total = ranks.sum()
    high = np.maximum(sums, total - sums)
    if len(ranks) > EXACT:
        return 2 * ndtr(-np.maximum(0, high - total / 2 - 1) / (np.sqrt((ranks**2).sum()) / 2))
    tail = _tail(tuple(np.sort(ranks).astype(int).tolist()))
    return np.minimum(1.0, 2 * tail[np.ceil(high - SLACK).astype(int)])


@functools.lru_cache(maxsize=256)
def _tail(ranks: tuple[int, ...]) -> np.ndarray:
    """P(sum ≥ s) for s = 0, 1, …, of ranks that are each in or out with probability ½."""
    chances = np.ones(1)
    for rank in ranks:
        wider = np.zeros(len(chances) + rank)
        wider[: len(chances)] = chances / 2
        wider[rank:] += chances / 2
        chances = wider
    return chances[::-1].cumsum()[::-1]


def _sums(signed: np.ndarray, study: np.ndarray) -> np.ndarray:
    """Normal scores of signed ranks, summed over each study: (…, pairs) -> (…, studies)."""
    names, place = np.unique(study, return_inverse=True)
    count = (signed != 0).sum(axis=-1, keepdims=True)
    scores = np.sign(signed) * ndtri(0.5 + np.abs(signed) / (4 * (count + 1)))
    return scores @ np.eye(len(names))[place]


def _t_test(sums: np.ndarray) -> np.ndarray:
    count = sums.shape[-1]
    if count < 2:
        return np.ones(sums.shape[:-1])
    mean, error = np.abs(sums.mean(axis=-1)), sums.std(axis=-1, ddof=1) / math.sqrt(count)
    t = np.divide(mean, error, out=np.where(mean > 0, np.inf, 0.0), where=error > SLACK)
    return 2 * stdtr(count - 1, -t)


def _between(edges: np.ndarray) -> np.ndarray:
    """A shift in each gap that ``edges`` leave, the two outer ones included."""
    return np.concatenate([[edges[0] - 1], (edges[1:] + edges[:-1]) / 2, [edges[-1] + 1]])


def _edges(logs: np.ndarray) -> np.ndarray:
    """Where the statistic jumps: the means of all couples of log ratios, thinned where many."""
    one, other = np.triu_indices(len(logs))
    edges = np.unique((logs[one] + logs[other]) / 2)
    if len(edges) <= GAPS:
        return edges
    return edges[np.linspace(0, len(edges) - 1, GAPS).astype(int)]

"""Which hyperparameters matter: the share of the times' variance that each explains alone.

Settings that were run in several studies count once, with their median time; misses are infinite, rank last
and are all equal. The defaults (``trial`` 0) are left out.
"""

from __future__ import annotations

import zlib
from typing import Literal

import numpy as np
import pandas as pd

from runner.base.errors import UserError
from runner.stats.axes import NO_SPACES, Axis, Spaces, axes, texts
from runner.stats.best_metric import cut, losses
from runner.stats.rows import Rows
from runner.stats.sensitivity import NOTHING_VARIES
from runner.stats.trials import (
    HPARAM,
    PAIR,
    as_floats,
    check_level,
    finished_trials,
    gathered,
    grouped,
    joined,
    median_times,
    named,
    no_hit,
    refused,
)

Response = Literal["time", "metric"]
IMPORTANCE = [
    *PAIR,
    "hyperparameter",
    "share",
    "p",
    "matters",
    "confounded",
    "groups",
    "settings",
    "hits",
    "reason",
]
ENOUGH = 10  # settings
GROUP = 5  # settings in a group, about
MOST_GROUPS = 5
SHUFFLES = 999
CONFOUNDED = 0.5  # ε² of where one hyperparameter was tried, given another


def importance(
    cells: pd.DataFrame,
    spaces: Spaces = NO_SPACES,
    by: str = "samples",
    level: float = 0.95,
    seed: int = 0,
    *,
    of: Response = "time",
) -> pd.DataFrame:
    """The share of the variance that each hyperparameter explains alone, per workload and algorithm.

    The first-order variance share (the main effect of functional ANOVA; Hutter, Hoos and Leyton-Brown 2014)
    estimated from the points at hand, without a model (Plischke, Borgonovo and Smith 2013): settings are put
    in groups of about 5 along the hyperparameter, and the variance between groups is compared with the
    whole, of *ranks* of the times, so that units do not matter and misses are all last. It is the effect size
    of Kruskal and Wallis's test with Kelley's correction for chance, ε² = 1 − (1 − η²)(n − 1) / (n − groups).
    What the shares leave over is interactions, noise and what varies within a group.

    Args:
        cells: the ``cells`` table.
        spaces: label -> its search space, which says what is a choice.
        by: ``samples``, ``seconds`` or ``steps``.
        level: ``matters`` is p ≤ (1 − level) ÷ the number of the algorithm's hyperparameters.
        seed: of the permutations; what is drawn depends on it and the two names alone.
        of: ``time``, or ``metric``: the best validation metric, where no run stopped at the target.

    Returns:
        ``workload, label, hyperparameter, share`` (0 where chance explains as much), ``p`` (from 999
        permutations), ``matters``, ``confounded`` (hyperparameters that were varied together with it, so that
        what one explains may be the other's), ``groups, settings, hits`` (settings with a time, or a
        metric), ``reason`` (why there is no share).

    Raises:
        UserError: when a column is missing, or for a level or an ``of`` that is none.
    """
    check_level(level)
    if of not in ("time", "metric"):
        raise UserError(f"importance of {of}: time or metric")
    frames = []
    for name, runs in grouped(finished_trials(cells, by)):
        stopped = cut(runs) if of == "metric" else ""
        runs = runs if of == "time" else runs.assign(time=losses(runs))
        own = median_times(runs)
        found, hits = axes(own, spaces.get(name[1])), int(np.isfinite(own["time"]).sum())
        if reason := stopped or _why_not(len(own), "" if hits else no_hit(runs), bool(found)):
            frames.append(refused(name, reason, settings=len(own), hits=hits))
            continue
        rows = _effects(own, found, level, zlib.crc32(repr((seed, *name)).encode()))
        frames.append(named(name, {**gathered(rows), "settings": len(own), "hits": hits}))
    return joined(frames, IMPORTANCE)


def _why_not(settings: int, missed: str, varies: bool) -> str:
    if not varies:
        return NOTHING_VARIES
    return f"{settings} settings: {ENOUGH} are needed" if settings < ENOUGH else missed


def _effects(own: Rows, found: list[Axis], level: float, seed: int) -> list[dict[str, object]]:
    ranks = pd.Series(own["time"]).rank().to_numpy("float64")
    shuffled = np.random.default_rng(seed).permuted(np.tile(ranks, (SHUFFLES, 1)), axis=1)
    limit = (1 - level) / len(found)
    tried = [own[HPARAM + axis.key] for axis in found]
    groups = [_groups(axis, values) for axis, values in zip(found, tried, strict=True)]
    twins = _confounded(found, tried, groups)
    return [
        {"hyperparameter": axis.key, "confounded": twin, **_effect(group, ranks, shuffled, limit)}
        for axis, group, twin in zip(found, groups, twins, strict=True)
    ]


def _effect(group: np.ndarray, ranks: np.ndarray, shuffled: np.ndarray, limit: float) -> dict[str, object]:
    count = int(group.max()) + 1
    if np.ptp(ranks) == 0:
        return {"groups": count, "reason": "all times are equal"}
    if not 2 <= count < len(ranks):
        return {
            "groups": count,
            "reason": "only one value was tried" if count < 2 else "no value was tried twice",
        }
    explained = _explained(ranks[None], group)[0]
    p = (1 + np.count_nonzero(_explained(shuffled, group) >= explained - 1e-12)) / (1 + len(shuffled))
    share = float(_corrected(explained, len(ranks), count))
    return {"groups": count, "share": share, "p": p, "matters": bool(p <= limit), "reason": ""}


def _confounded(found: list[Axis], tried: list[np.ndarray], groups: list[np.ndarray]) -> list[str]:
    """For each hyperparameter the others that explain half of where it was tried, or it of theirs."""
    places = [
        group.astype("float64") if axis.choices else _order(as_floats(values))
        for axis, values, group in zip(found, tried, groups, strict=True)
    ]
    n, tied = len(tried[0]), np.zeros((len(found), len(found)), dtype=bool)
    for k, group in enumerate(groups):
        count = int(group.max()) + 1
        if 2 <= count < n:
            tied[k] = _corrected(_explained(np.stack(places), group), n, count) >= CONFOUNDED
    tied |= tied.T
    return [
        ", ".join(other.key for k, other in enumerate(found) if tied[j, k] and k != j)
        for j in range(len(found))
    ]


def _groups(axis: Axis, tried: np.ndarray) -> np.ndarray:
    """The group of each setting along the hyperparameter: its choice, or its stretch of about 5 settings."""
    if axis.choices:
        return pd.factorize(texts(tried))[0]
    n = len(tried)
    count = min(max(round(n / GROUP), 2), MOST_GROUPS)
    stretch = np.floor(_order(as_floats(tried)) * count / n)
    return np.unique(stretch, return_inverse=True)[1]


def _order(values: np.ndarray) -> np.ndarray:
    """How many are smaller, so that equal values stay together; what is no number comes first."""
    values = np.where(np.isnan(values), -np.inf, values)
    return np.searchsorted(np.sort(values), values).astype("float64")


def _explained(ranks: np.ndarray, group: np.ndarray) -> np.ndarray:
    """η², the variance between groups ÷ the whole; of each row of ``ranks``."""
    member = np.eye(group.max() + 1)[group]
    means = ranks @ member / member.sum(axis=0)
    between = ((means - ranks.mean(axis=1, keepdims=True)) ** 2) @ member.sum(axis=0)
    whole = ranks.var(axis=1) * ranks.shape[1]
    return np.divide(between, whole, where=whole > 0, out=np.zeros_like(whole))


def _corrected(explained: np.ndarray, n: int, count: int) -> np.ndarray:
    """ε², which is 0 on average where the groups mean nothing; not below 0."""
    return np.maximum(0.0, 1 - (1 - explained) * (n - 1) / (n - count))

"""How sensitive an algorithm is to its hyperparameters: maps, and the width of the good region.

Trials are scattered points of a search space (``trial`` ≥ 1; the defaults are no draw from it, and are on
maps alone). A setting that was run in several studies counts once, with its median time. Misses are
infinite: they rank last, all equal.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from runner.base.errors import UserError, nearest
from runner.stats.axes import NO_SPACES, Axis, Spaces, axes, texts
from runner.stats.times import counted
from runner.stats.trials import (
    HPARAM,
    PAIR,
    as_floats,
    check_level,
    finished_trials,
    floats,
    gathered,
    grouped,
    joined,
    median_times,
    named,
    no_hit,
    refused,
    share_interval,
)

MAP = [*PAIR, "study", "trial", "x", "y", "time", "missed"]
REGION = [
    *PAIR, "hyperparameter", "kind", "scale", "declared", "range_low", "range_high", "best", "settings",
    "good", "share", "share_low", "share_high", "low", "high", "inside", "width", "width_low", "width_high",
    "reason",
]  # fmt: skip
NOTHING_VARIES = "no hyperparameter is recorded, or none varies"
ENOUGH_GOOD = 3  # good settings, for a width


def sensitivity_map(
    cells: pd.DataFrame, x: str, y: str, by: str = "samples", label: str | None = None
) -> pd.DataFrame:
    """Time to target over two hyperparameters, one row per finished cell, misses and defaults included.

    Args:
        cells: the ``cells`` table.
        x: a hyperparameter, ``optimizer.lr``.
        y: another, ``optimizer.weight_decay``.
        by: ``samples``, ``seconds`` or ``steps``.
        label: one algorithm alone; by default all that have both.

    Returns:
        ``workload, label, study, trial, x, y, time`` (infinite for a miss), ``missed``.

    Raises:
        UserError: when there is no such hyperparameter, or a column is missing.
    """
    known = [str(name).removeprefix(HPARAM) for name in cells if str(name).startswith(HPARAM)]
    for key in (x, y):
        if key not in known:
            raise UserError(f"no hyperparameter {key} in the table: {nearest(key, known)}")
    rows = counted(cells, by)
    rows = rows.assign(x=rows[HPARAM + x], y=rows[HPARAM + y], missed=np.isinf(rows["time"].to_numpy()))
    rows = rows.loc[rows["x"].notna() & rows["y"].notna()]
    rows = rows if label is None else rows.loc[rows["label"] == label]
    columns = [name for name in MAP if name in rows]
    return rows[columns].sort_values(columns[:-4], ignore_index=True)


def map_axes(cells: pd.DataFrame, spaces: Spaces = NO_SPACES) -> dict[str, list[Axis]]:
    """By label: the hyperparameters that its trials vary, those to show first in front."""
    trials = floats(cells, "trial") > 0
    return {str(name): axes(own, spaces.get(str(name))) for name, own in cells.loc[trials].groupby("label")}


# -- the good region ---------------------------------------------------------------------------------


def good_region(
    cells: pd.DataFrame,
    spaces: Spaces = NO_SPACES,
    factor: float = 2.0,
    by: str = "samples",
    level: float = 0.95,
) -> pd.DataFrame:
    """How wide the settings reach that hit within ``factor`` × the best time of the algorithm.

    ``share`` is the volume of the good region: the share of the settings that are good. It is one number for
    all hyperparameters together: weighting points by the gaps between them on one axis would estimate the
    same volume again. ``width`` is the extent on one axis: the range of the good settings there, from
    ``low`` to ``high``, as a share of the whole range on its scale, times (m + 1) / (m − 1) for the m good
    ones, since the outermost of m fall short of the ends. Its interval takes the good settings as uniform
    between those ends, where range ÷ width follows Beta(m − 1, 2); where the region thins out towards them,
    width is on the low side. ``inside`` is the share of good ones among the settings from ``low`` to
    ``high``: what is missing to 1 is due to the other hyperparameters, and to luck. Of choices, ``width`` is
    the share in which some setting is good.

    Args:
        cells: the ``cells`` table.
        spaces: label -> its search space; where there is none, the range of what was tried.
        factor: how many times the best is good.
        by: ``samples``, ``seconds`` or ``steps``.
        level: of the intervals.

    Returns:
        ``workload, label, hyperparameter, kind`` (range, choices), ``scale`` (log, linear), ``declared``
        (by a space), ``range_low, range_high, best`` (time), ``settings, good`` (counts), ``share`` with
        ``share_low, share_high`` (Clopper and Pearson; the best is always good, so high by about
        1 / settings), ``low, high, inside, width, width_low, width_high``, ``reason`` (why there is none).

    Raises:
        UserError: when a column is missing, or for a factor under 1 or a level that is none.
    """
    check_level(level)
    if not factor >= 1:
        raise UserError(f"factor is {factor:g}: at least 1")
    frames = []
    for name, runs in grouped(finished_trials(cells, by)):
        own = median_times(runs)
        found, times = axes(own, spaces.get(name[1])), own["time"]
        if not found or not np.isfinite(times).any():
            reason = no_hit(runs) if found else NOTHING_VARIES
            frames.append(refused(name, reason, settings=len(own), good=0))
            continue
        good = times <= factor * times.min()
        low, high = (float(edge) for edge in share_interval(np.array(good.mean()), len(good), level))
        whole = {"best": times.min(), "settings": len(good), "good": int(good.sum()), "share": good.mean()}
        rows = [_region(axis, own[HPARAM + axis.key], good, level) for axis in found]
        frames.append(named(name, {**gathered(rows), **whole, "share_low": low, "share_high": high}))
    return joined(frames, REGION)


def _region(axis: Axis, tried: np.ndarray, good: np.ndarray, level: float) -> dict[str, object]:
    row = {"hyperparameter": axis.key, "declared": axis.declared}
    if axis.choices:
        worked = set(texts(tried)[good]) & set(axis.choices)
        return {**row, "kind": "choices", "width": len(worked) / len(axis.choices), "reason": ""}
    values = as_floats(tried)
    row |= {
        "kind": "range",
        "scale": "log" if axis.log else "linear",
        "range_low": axis.low,
        "range_high": axis.high,
        "low": values[good].min(),
        "high": values[good].max(),
        "inside": good[(values >= values[good].min()) & (values <= values[good].max())].mean(),
    }
    unit = axis.unit(values)[good]
    count, extent = len(unit), float(unit.max() - unit.min())
    if count < ENOUGH_GOOD:
        return {**row, "reason": f"{count} good: {ENOUGH_GOOD} are needed for a width"}
    return {**row, **_width(count, extent, level), "reason": ""}


def _width(count: int, extent: float, level: float) -> dict[str, float]:
    """The length of an interval, in which ``count`` uniform points reach over ``extent``."""
    from scipy.special import betaincinv

    low, high = betaincinv(count - 1, 2, [(1 + level) / 2, (1 - level) / 2])
    return {
        "width": min(1.0, extent * (count + 1) / (count - 1)),
        "width_low": min(1.0, extent / low),
        "width_high": min(1.0, extent / high),
    }

"""Searches that end where they should go on: the best trial lies on the border of its search space."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from runner.stats.axes import NO_SPACES, Axis, Spaces, axes, numbers, texts
from runner.stats.best_metric import losses
from runner.stats.rows import Rows
from runner.stats.trials import (
    HPARAM,
    PAIR,
    Columns,
    Pair,
    as_floats,
    check_level,
    finished_trials,
    floats,
    gathered,
    grouped,
    joined,
    named,
    shared,
)
from runner.stats.widen import Side, grid, overrides

EDGES = [
    *PAIR, "hyperparameter", "side", "value", "bound", "declared", "best_by", "studies", "studies_at_border",
    "chance", "warning", "overrides", "command",
]  # fmt: skip
OUTER = 0.05  # of a range on its scale, and of what was tried
TRUNCATED, NATURAL = "tuning truncated", "on a natural bound"


def edges(
    cells: pd.DataFrame,
    spaces: Spaces = NO_SPACES,
    by: str = "samples",
    level: float = 0.95,
    *,
    experiment: str | Path | None = None,
    origins: Mapping[str, Sequence[str]] | None = None,
) -> pd.DataFrame:
    """Hyperparameters whose best value lies on the border of what was searched.

    The best trial of a pair, over all studies, is the fastest; where none hit, the one with the best metric
    (then none was cut short). On the border is a trial in the outer 5 % of the range on its scale, or among
    the outermost 5 % of the trials (at least one), since nothing may have been tried nearer to the bound.
    Choices have a border where there are three or more and all are numbers: their first and last.

    ``chance`` is how often a hyperparameter that does not matter would show the same on that side: q, the
    share of trials on that border, × the chance that as many of the other studies' best trials lie there,
    from the binomial distribution (where studies share their points there are no others). The outer 5 % of a
    declared range always has its row; the rest where ``chance`` is at most 1 − ``level``. A hyperparameter
    has two sides, and an algorithm as many chances as hyperparameters.

    Args:
        cells: the ``cells`` table.
        spaces: label -> its search space; where there is none, the range of what was tried.
        by: ``samples``, ``seconds`` or ``steps``.
        level: 1 − the chance from which there is a row.
        experiment: folder of the experiment that the command adds to.
        origins: label -> the overrides that make the algorithm (``algorithm=adamw``), for the command; by
            default of a label that is a plain name: that name.

    Returns:
        ``workload, label, hyperparameter, side`` (min, max), ``value`` of the best trial, ``bound``,
        ``declared`` (by a space), ``best_by`` (time, metric), ``studies, studies_at_border`` (studies, and
        how many have their best trial there), ``chance, warning`` ("tuning truncated"; "on a natural bound"
        where the hyperparameter cannot go further), ``overrides`` (the widened space, for the shell; empty
        where the space is not known or the bound natural), ``command`` (a grid of the algorithm with all of
        its widened bounds, on all of its workloads; empty where the label does not say how it was made).

    Raises:
        UserError: when a column is missing, or the level is none.
    """
    check_level(level)
    rows = finished_trials(cells, by)
    rows = rows.assign(loss=losses(rows))
    frame = joined([_edges(name, own, spaces, 1 - level) for name, own in grouped(rows)], EDGES)
    commands: dict[object, str] = {}
    for label, own in frame.groupby("label"):
        tried, made = rows.loc[rows["label"] == label], (origins or {}).get(str(label))
        sides = {str(key): tuple(sorted(set(one["side"]))) for key, one in own.groupby("hyperparameter")}
        known = [axis for axis in axes(tried, spaces.get(str(label))) if axis.key in sides]
        wider = [text for axis in known for text in overrides(axis, sides[axis.key])]
        commands[label] = grid(str(label), tried, wider, made, experiment)
    return frame.assign(command=[commands[label] for label in frame["label"]])


def _edges(name: Pair, own: Rows, spaces: Spaces, limit: float) -> Columns:
    best = _winners(own)
    rows = []
    for axis in axes(own, spaces.get(name[1])) if len(best) else []:
        tried = own[HPARAM + axis.key]
        place = _places(axis, tried)
        sides: list[tuple[Side, np.ndarray]] = [("min", -place), ("max", place)]
        rows += [row for side, outward in sides for row in _side(axis, side, outward, tried, best, limit)]
    by_time = len(best) and np.isfinite(own["time"][best[0]])
    return named(name, {**gathered(rows), "best_by": ["time" if by_time else "metric"] * len(rows)})


def _winners(own: Rows) -> np.ndarray:
    """Where the best trial of each study is, by time, then metric; the best of all first."""
    time, loss, study, trial = (floats(own, key) for key in ("time", "loss", "study", "trial"))
    order = np.lexsort((trial, study, loss, time))
    order = order[np.isfinite(time[order]) | np.isfinite(loss[order])]
    first = np.sort(np.unique(study[order], return_index=True)[1])
    return order[first[:1] if shared(own) else first]


def _side(
    axis: Axis, side: Side, outward: np.ndarray, tried: np.ndarray, best: np.ndarray, limit: float
) -> list[dict[str, object]]:
    """A row where the best trial is on that border."""
    border, strip = _border(outward, axis)
    there = border[best]
    if not there[0]:
        return []
    chance = _chance(float(border.mean()), there)
    if not (strip[best[0]] or chance <= limit):
        return []
    widened = overrides(axis, (side,))
    row = {
        "hyperparameter": axis.key,
        "side": side,
        "value": tried[best[0]],
        "bound": axis.bound(side),
        "declared": axis.declared,
        "studies": len(best),
        "studies_at_border": int(there.sum()),
        "chance": chance,
        "warning": TRUNCATED if widened or not axis.declared else NATURAL,
        "overrides": shlex.join(widened),
    }
    return [row]


def _places(axis: Axis, tried: np.ndarray) -> np.ndarray:
    """Where each trial is, from -1 at the lowest to 1 at the highest; NaN where it has no place."""
    if not axis.choices:
        return 2 * axis.unit(as_floats(tried)) - 1
    order = numbers(axis.choices)
    if order is None or len(order) < 3:
        return np.full(len(tried), np.nan)
    place = dict(
        zip(axis.choices, np.interp(order, sorted(order), np.linspace(-1, 1, len(order))), strict=True)
    )
    return np.array([place.get(text, math.nan) for text in texts(tried)])


def _border(outward: np.ndarray, axis: Axis) -> tuple[np.ndarray, np.ndarray]:
    """Which trials are on the border at 1, and which of them in the outer strip of a declared range."""
    nowhere = np.zeros(len(outward), dtype=bool)
    if axis.choices:
        return outward >= 1 - 1e-9, nowhere
    strip = outward >= 1 - 2 * OUTER if axis.declared else nowhere
    placed = np.sort(outward[~np.isnan(outward)])
    if not len(placed):
        return strip, strip
    return strip | (outward >= placed[-math.ceil(OUTER * len(placed) - 1e-9)]), strip


def _chance(share: float, there: np.ndarray) -> float:
    others, wanted = len(there) - 1, max(int(there.sum()) - 1, 0)
    return share * sum(
        math.comb(others, k) * share**k * (1 - share) ** (others - k) for k in range(wanted, others + 1)
    )

"""When the mean over studies is past the target, with a test, beside the first crossing of each run.

The first evaluation at which one run meets the target is early where the metric is noisy and evaluated often:
the largest of many noisy values passes before their mean does. Here the mean of all studies at one point of
the evaluation grid is tested.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import pandas as pd
from scipy.special import bdtrc, stdtr

from runner.base.errors import UserError
from runner.stats.times import STUDY, counted, studies, study_times

PLACE = ["workload", "label"]
GRID = "drawn"
COLUMNS = (
    "workload", "label", "studies", "certified", "at", "point", "mean", "p", "first", "first_high", "reason",
)  # fmt: skip


def certified(
    evals: pd.DataFrame, cells: pd.DataFrame, level: float = 0.95, by: str = "samples"
) -> pd.DataFrame:
    """The earliest common grid point from which on the mean over studies passes the target.

    Of each study it takes the run that its tuning picks: the fastest that hit, or else that with the best
    metric. At every point that all of them share, a one-sided t-test asks whether their mean is better than
    the target. Points are tested from the last one backwards, each at the full level, until one fails: an
    order that is fixed beforehand keeps the chance of *any* wrong claim on the curve at 1 - level (Maurer,
    Hothorn and Lehmacher 1995; Westfall and Krishen 2001, J. Stat. Plan. Inference 99), however many points
    there are and whatever their correlation.

    Runs that were stopped at their first hit have no curve after it; holding their last value would turn
    every lucky crossing into a lasting one, so such curves certify nothing.

    Args:
        evals: the ``evals`` table: ``id``, ``drawn`` (trained samples: the grid), ``validation/<metric>``.
        cells: the ``cells`` table, comparable.
        level: of each row, one-sided.
        by: ``samples``, ``seconds`` or ``steps``: the unit of the times.

    Returns:
        A row for each workload and label with a finished study: ``studies`` (n), ``certified``; of the point
        ``at`` (median over studies of the unit spent there), ``point`` (trained samples), ``mean`` of the
        metric and ``p``, NaN where not certified; ``first``, the median first crossing of the board;
        ``first_high``, a one-sided upper bound of that median by order statistics, infinite where it is not
        bounded and NaN with too few studies for the level; ``reason`` why nothing is certified.

    Raises:
        UserError: when a column is missing or the level is outside (0, 1).
    """
    if not 0 < level < 1:
        raise UserError(f"level is {level:g}: it must be between 0 and 1")
    picked = _picked(cells, by)
    if not len(picked):
        return pd.DataFrame(columns=list(COLUMNS))
    frame = _first_crossings(cells, by, level).merge(_why_not(picked, evals), on=PLACE, how="left")
    usable = picked.merge(frame.loc[frame["reason"] == "", PLACE], on=PLACE)
    frame = frame.merge(_earliest(_points(usable, evals, by), level), on=PLACE, how="left")
    frame["certified"] = frame["point"].notna()
    silent = ~frame["certified"] & (frame["reason"] == "")
    frame.loc[silent, "reason"] = "at the end of the runs, the mean is not past the target"
    return frame.loc[:, list(COLUMNS)]


def passes_from(p: np.ndarray, level: float) -> np.ndarray:
    """Where the test passes at a point and at all later ones.

    Args:
        p: (…, points), in order; NaN fails.
        level: of the test.
    """
    passed = np.nan_to_num(p, nan=1.0) <= 1 - level + 1e-12
    return np.flip(np.logical_and.accumulate(np.flip(passed, axis=-1), axis=-1), axis=-1)


def p_above(mean: np.ndarray, spread: np.ndarray, count: np.ndarray) -> np.ndarray:
    """One-sided p of Student's test that a mean is over 0; NaN with fewer than two values.

    Args:
        mean: of the values.
        spread: their standard deviation (n - 1). Where it is 0, only a mean over 0 passes.
        count: how many.
    """
    error = spread / np.sqrt(count)
    t = np.divide(mean, error, out=np.where(mean > 0, np.inf, -np.inf), where=error > 0)
    return np.where((count > 1) & np.isfinite(mean), stdtr(np.maximum(count - 1, 1), -t), np.nan)


def median_bound(ascending: np.ndarray, level: float) -> float:
    """Upper bound of a median, one-sided, from a sample in order; NaN where it is too small for the level."""
    count = len(ascending)
    ranks = np.arange(1, count + 1)
    enough = np.flatnonzero(bdtrc(ranks - 1, count, 0.5) <= 1 - level + 1e-12)  # P(at least k below it)
    return float(ascending[enough[0]]) if len(enough) else np.nan


# -- steps -------------------------------------------------------------------------------------------


def _picked(cells: pd.DataFrame, by: str) -> pd.DataFrame:
    """Of each study the run that tuning picks, with its sign: 1 where more of the metric is better."""
    rows = counted(cells, by)
    _require(rows, ["id", "target", "metric", "minimize", "best_metric"])
    sign = np.where(rows["minimize"].to_numpy(bool, na_value=False), -1.0, 1.0)
    goal = sign * rows["target"].to_numpy("float64", na_value=np.nan)
    merit = sign * rows["best_metric"].to_numpy("float64", na_value=np.nan)
    rows = rows.assign(sign=sign, goal=goal, merit=-np.nan_to_num(merit, nan=-np.inf))
    rows = rows.loc[~np.isnan(goal)].sort_values([*STUDY, "time", "merit"])
    return rows.drop_duplicates(STUDY).assign(ended=rows.get("ended"))


def _first_crossings(cells: pd.DataFrame, by: str, level: float) -> pd.DataFrame:
    found = studies(study_times(cells, by))
    ends = zip(found.start, found.start + found.size, strict=True)
    return pd.DataFrame(
        {
            "workload": np.array(found.workloads, dtype=object)[found.column],
            "label": np.array(found.labels, dtype=object)[found.row],
            "studies": found.size,
            "first": found.medians(),
            "first_high": [median_bound(found.times[start:end], level) for start, end in ends],
        }
    ).sort_values(PLACE, ignore_index=True)


def _why_not(picked: pd.DataFrame, evals: pd.DataFrame) -> pd.DataFrame:
    """Of each workload and label why its curves certify nothing; "" where they may."""
    gridded = GRID in evals and "id" in evals
    ends = dict(evals.groupby("id")[GRID].agg("max").items()) if gridded else {}
    runs = picked.assign(last=[float(ends.get(cell, np.nan)) for cell in picked["id"]])
    end = runs.groupby("workload")["last"].transform("max")
    hit = np.isfinite(runs["time"].to_numpy("float64"))
    stopped = runs["ended"].astype(object) == "target"
    runs = runs.assign(cut=hit & (stopped | (runs["last"] < end)), short=~hit & (runs["last"] < end))
    groups = runs.groupby(PLACE)
    facts = groups.agg(n=("id", "size"), cut=("cut", "sum"), short=("short", "sum"), seen=("last", "count"))
    facts["reason"] = [_reason(gridded, *row) for row in facts.itertuples(index=False)]
    return facts["reason"].reset_index()


def _reason(gridded: bool, n: int, cut: int, short: int, seen: int) -> str:
    if not gridded:
        return "the evaluations do not share a grid of samples"
    if seen < n:
        return "the evaluations of a run are missing"
    if n < 2:
        return "only one study: a mean needs two"
    if cut:
        return f"{cut} of {n} runs ended at their first hit; use stop_at_target=false"
    return f"{short} of {n} runs ended early" if short else ""


def _points(picked: pd.DataFrame, evals: pd.DataFrame, by: str) -> pd.DataFrame:
    """Each point that all studies of a workload and label share: mean, p, and what was spent there."""
    if not len(picked):
        return pd.DataFrame(columns=[*PLACE, GRID, "mean", "p", "at"])
    _require(evals, [by])
    runs = picked.loc[:, [*PLACE, "id", "metric", "sign", "goal"]].assign(n=1)
    runs["n"] = runs.groupby(PLACE)["n"].transform("sum")
    rows = evals.drop(columns=PLACE, errors="ignore").merge(runs, on="id")
    rows["excess"] = rows["sign"] * _metric(rows) - rows["goal"]
    groups = rows.groupby([*PLACE, GRID])
    found = groups.agg(
        count=("id", "size"), n=("n", "first"), sound=("excess", "count"), excess=("excess", "mean"),
        spread=("excess", "std"), at=(by, "median"), sign=("sign", "first"), goal=("goal", "first"),
    ).reset_index()  # fmt: skip
    found = found.loc[found["count"] == found["n"]]
    columns = (found[name].to_numpy("float64") for name in ("excess", "spread", "count"))
    p = np.where(found["sound"] == found["n"], p_above(*columns), np.nan)
    return found.assign(p=p, mean=found["sign"] * (found["excess"] + found["goal"]))


def _earliest(points: pd.DataFrame, level: float) -> pd.DataFrame:
    """The first point of the unbroken run of passes that ends at the last point."""
    rows = points.sort_values([*PLACE, GRID])
    kept = [
        group.loc[passed].iloc[:1]
        for _, group in rows.groupby(PLACE)
        if (passed := passes_from(group["p"].to_numpy("float64"), level)).any()
    ]
    frame = pd.concat(kept) if kept else rows.iloc[:0]
    return cast(pd.DataFrame, frame.rename(columns={GRID: "point"})[[*PLACE, "at", "point", "mean", "p"]])


def _metric(rows: pd.DataFrame) -> np.ndarray:
    """The validation metric of each row's workload."""
    values = np.full(len(rows), np.nan)
    for name in rows["metric"].unique():
        if (column := f"validation/{name}") in rows:
            own = (rows["metric"] == name).to_numpy()
            values[own] = rows.loc[own, column].to_numpy("float64", na_value=np.nan)
    return np.where(np.isfinite(values), values, np.nan)


def _require(table: pd.DataFrame, columns: list[str]) -> None:
    absent = [name for name in columns if name not in table]
    if absent:
        raise UserError(f"the table has no column {' and '.join(absent)}")

"""From cells to one time per study, and from studies to one time per algorithm and workload."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from runner.base.errors import UserError, nearest
from runner.contract.records import FINISHED
from runner.stats.comparable import flags

Pick = Literal["time", "eval_index"]
Spread = Literal["range", "iqr"]
STUDY = ["workload", "label", "study"]
INDEX = "eval_index_to_target"


def counted(cells: pd.DataFrame, by: str = "samples") -> pd.DataFrame:
    """The cells that count: finished, on a workload with a target; their time is infinite for a miss.

    A target that the untrained model meets, at 0 samples, took no time in any unit: seconds would be set-up.

    Args:
        cells: the ``cells`` table.
        by: the unit, which names the column ``<by>_to_target``.

    Returns:
        Those rows of ``cells``, all columns, and ``time`` in the unit ``by``.

    Raises:
        UserError: when a column is missing, or a time is negative or no number.
    """
    column = f"{by}_to_target"
    _require(cells, [*STUDY, "status", column])
    times = _numbers(cells, column)
    if len(times) and np.nanmin(times, initial=0.0) < 0:
        raise UserError(f"column {column} holds {np.nanmin(times):g}: a time is never negative")
    times[untrained(cells)] = 0.0
    return cells.assign(time=times).loc[cells["status"].isin(list(FINISHED)) & ~np.isnan(times)]


def untrained(cells: pd.DataFrame) -> np.ndarray:
    """Which cells met their target before the first step."""
    return _numbers(cells, "samples_to_target") == 0


def study_times(cells: pd.DataFrame, by: str = "samples", pick: Pick = "time") -> pd.DataFrame:
    """The time of each study: that of its best trial.

    Args:
        cells: the ``cells`` table; unfinished cells, and those of a workload without a target, are left out.
        by: ``samples``, ``seconds`` or ``steps``.
        pick: ``time`` takes the fastest trial that hit, as AlgoPerf's rules are documented. ``eval_index``
            takes the one that hit at the smallest evaluation index, ties by the smaller time, as AlgoPerf's
            published boards were made.

    Returns:
        ``workload, label, study, time``, sorted; a study in which no trial hit has an infinite time, and one
        without a finished trial has no row.

    Raises:
        UserError: when a column is missing, or a time is negative or no number.
    """
    return _scored(cells, by, pick).loc[:, [*STUDY, "time"]].reset_index(drop=True)


def reached(cells: pd.DataFrame, by: str = "samples", pick: Pick = "time") -> pd.DataFrame:
    """What the scored runs reached: the median, over studies, of the best metric of each study's trial.

    The trial is that of :func:`study_times`; where none hit, the one with the best metric. So a row that hits
    has reached its target. A study whose trial has no value at all counts as the worst.

    Args:
        cells: the ``cells`` table, with ``best_metric``, and ``minimize`` where a smaller one is better.
        by: the unit.
        pick: as for :func:`study_times`.

    Returns:
        ``workload, label, reached``; NaN where half of the studies or more have no value.
    """
    rows = _scored(cells, by, pick)
    worst = rows.assign(_loss=rows["_loss"].fillna(np.inf), _sign=_sign(rows))
    found = worst.groupby(["workload", "label"], as_index=False).agg(
        _loss=("_loss", "median"), _sign=("_sign", "first")
    )
    loss = found.pop("_loss").to_numpy("float64")
    return found.assign(reached=np.where(np.isfinite(loss), found.pop("_sign") * loss, np.nan))


def _scored(cells: pd.DataFrame, by: str, pick: Pick) -> pd.DataFrame:
    """Of each study the trial that stands for it, with its ``time`` and its ``_loss``."""
    rows = counted(cells, by)
    if pick not in ("time", "eval_index"):
        raise UserError(f"no way to pick a study's trial is called {pick}: time or eval_index")
    rows, first = (rows, ["time"]) if pick == "time" else (_indexed(rows), [INDEX, "time"])
    rows = rows.assign(_loss=_sign(rows) * _numbers(rows, "best_metric"))
    needed = [*STUDY, *first, "_loss", *rows.columns.intersection(["minimize"])]
    return rows.loc[:, needed].sort_values(by=[*STUDY, *first, "_loss"]).drop_duplicates(STUDY)


def _sign(rows: pd.DataFrame) -> np.ndarray:
    """1 where a smaller metric is better, else -1."""
    return np.where(flags(rows, "minimize"), 1.0, -1.0)


def _indexed(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with an infinite evaluation index for a miss, whatever the table says of it."""
    _require(rows, [INDEX])
    own = rows[INDEX].to_numpy("float64", na_value=np.nan)
    index = np.where(np.isfinite(rows["time"].to_numpy()), own, np.inf)
    if absent := np.count_nonzero(np.isnan(index)):
        raise UserError(f"{INDEX} is missing for {absent} cells that hit: pick by time instead")
    return rows.assign(**{INDEX: index})


class Studies(NamedTuple):
    """Study times of each present pair of an algorithm and a workload, ascending, end to end."""

    labels: list[str]
    workloads: list[str]
    row: np.ndarray  # of each pair: place of its label in labels
    column: np.ndarray  # of each pair: place of its workload in workloads
    start: np.ndarray  # of each pair: where its times start
    size: np.ndarray  # of each pair: how many studies
    times: np.ndarray

    def table(self, values: np.ndarray, absent: float) -> pd.DataFrame:
        """One value for each pair as a table, label × workload."""
        whole = np.full((len(self.labels), len(self.workloads)), absent)
        whole[self.row, self.column] = values
        return pd.DataFrame(
            whole,
            index=pd.Index(self.labels, name="label"),
            columns=pd.Index(self.workloads, name="workload"),
        )

    def medians(self) -> np.ndarray:
        """Of each pair: the middle time, or the mean of the middle two."""
        low, high = (self.size - 1) // 2, self.size // 2
        return (self.times[self.start + low] + self.times[self.start + high]) / 2


def studies(
    times: pd.DataFrame, labels: Sequence[str] | None = None, workloads: Sequence[str] | None = None
) -> Studies:
    """The table of :func:`study_times` as arrays; other labels and workloads are left out."""
    names = sorted(set(times["label"]) if labels is None else set(labels))
    columns = sorted(set(times["workload"])) if workloads is None else list(dict.fromkeys(workloads))
    row = pd.Index(names, dtype=object).get_indexer(pd.Index(times["label"], dtype=object))
    column = pd.Index(columns, dtype=object).get_indexer(pd.Index(times["workload"], dtype=object))
    values = times["time"].to_numpy("float64", na_value=np.inf)
    kept = (row >= 0) & (column >= 0)
    row, column, values = row[kept], column[kept], values[kept]
    order = np.lexsort((values, column, row))
    pair, start, count = np.unique(
        row[order].astype("int64") * max(1, len(columns)) + column[order],
        return_index=True,
        return_counts=True,
    )
    place = np.divmod(pair, max(1, len(columns)))
    return Studies(names, columns, *place, start, count, values[order])


def medians(
    times: pd.DataFrame, labels: Sequence[str] | None = None, workloads: Sequence[str] | None = None
) -> pd.DataFrame:
    """The time of an algorithm on a workload: the median over the studies present.

    Args:
        times: the table of :func:`study_times`.
        labels: rows of the result, those in ``times`` by default.
        workloads: columns of the result, in order; those in ``times`` by default.

    Returns:
        label × workload, in the unit of ``times``. An even number of studies averages the middle two, and is
        infinite where one of those is; a place without any study is infinite.
    """
    found = studies(times, labels, workloads)
    return found.table(found.medians(), np.inf)


def spreads(times: pd.DataFrame, spread: Spread = "range") -> pd.DataFrame:
    """Median and spread over studies of each algorithm on each workload.

    Args:
        times: the table of :func:`study_times`.
        spread: ``range``, smallest to largest, or ``iqr``: the studies at or just outside the quartiles.

    Returns:
        ``workload, label, median, low, high, studies, studies_hit``; times in the unit of ``times``.
    """
    found = studies(times)
    edge = {"range": 0.0, "iqr": 0.25}.get(spread)
    if edge is None:
        raise UserError(f"no spread is called {spread}: range or iqr")
    low = np.floor((found.size - 1) * edge).astype(int)
    hits = np.add.reduceat(np.isfinite(found.times), found.start, dtype=int) if len(found.start) else []
    frame = pd.DataFrame(
        {
            "workload": np.array(found.workloads, dtype=object)[found.column],
            "label": np.array(found.labels, dtype=object)[found.row],
            "median": found.medians(),
            "low": found.times[found.start + low],
            "high": found.times[found.start + found.size - 1 - low],
            "studies": found.size,
            "studies_hit": hits,
        }
    )
    return frame.sort_values(["workload", "label"], ignore_index=True)


def hit_rates(cells: pd.DataFrame, by: str = "samples") -> pd.DataFrame:
    """How many of an algorithm's finished cells reached the target.

    Returns:
        label × workload, and ``all`` in front over all of them together; NaN where no cell has finished.
    """
    rows = counted(cells, by)
    hit = rows.assign(hit=np.isfinite(rows["time"]).astype("float64"))
    table = hit.pivot_table(index="label", columns="workload", values="hit", aggfunc="mean")
    table.insert(0, "all", hit.groupby("label")["hit"].mean())
    return table


def speedup(times: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Geometric mean, over the workloads that both hit, of (baseline's time ÷ the algorithm's time).

    Args:
        times: label × workload, the table of :func:`medians`.
        baseline: the label of the baseline.

    Returns:
        By label: ``speedup`` (over 1 is faster than the baseline; NaN without a common workload) and
        ``workloads``, how many both hit. A time of zero has no ratio and is left out.

    Raises:
        UserError: when there is no such label.
    """
    logs, common = log_speedups(times.to_numpy("float64"), place(baseline, times.index))
    return pd.DataFrame({"speedup": np.exp(logs), "workloads": common}, index=times.index)


def place(label: str, labels: Iterable[str]) -> int:
    """Where the label stands among ``labels``.

    Raises:
        UserError: when it is not among them.
    """
    known = [str(name) for name in labels]
    if label not in known:
        raise UserError(f"no algorithm here is called {label}: {nearest(label, known)}")
    return known.index(label)


def log_speedups(times: np.ndarray, baseline: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean log speed-up, and over how many workloads, from (…, algorithms, workloads)."""
    usable = np.isfinite(times) & (times > 0)
    logs = np.log(times, where=usable, out=np.zeros_like(times))
    both = usable & usable[..., baseline : baseline + 1, :]
    common = both.sum(axis=-1)
    total = ((logs[..., baseline : baseline + 1, :] - logs) * both).sum(axis=-1)
    return np.divide(total, common, where=common > 0, out=np.full(total.shape, np.nan)), common


def _numbers(cells: pd.DataFrame, column: str) -> np.ndarray:
    """A column as numbers; NaN where it says nothing, or is not there."""
    if column not in cells:
        return np.full(len(cells), np.nan)
    try:
        return cells[column].to_numpy("float64", na_value=np.nan, copy=True)
    except (TypeError, ValueError) as error:
        raise UserError(f"column {column} holds something that is not a number: {error}") from error


def _require(table: pd.DataFrame, columns: Iterable[str]) -> None:
    absent = [name for name in columns if name not in table]
    if absent:
        raise UserError(f"the table of cells has no column {' and '.join(absent)}")

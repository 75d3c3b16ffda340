"""The trials of a search: which cells are points of it, which of them share a setting, and frames of results.

A trial is a point of the search space (``trial`` ≥ 1); the defaults (``trial`` 0) are none.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from runner.base.errors import UserError
from runner.stats.rows import Rows
from runner.stats.times import counted

Pair = tuple[str, str]
Table = pd.DataFrame | Rows
Columns = Mapping[str, Any]  # name -> an array or a list, or one value for all rows
PAIR = ["workload", "label"]
HPARAM = "hparam/"
COUNTS = (
    "k", "trials", "hits", "points", "settings", "good", "groups", "studies", "studies_at_border",
    "workloads", "held_out_hits", "study", "trial", "tuned_study", "tuned_trial", "held_out_study",
    "held_out_trial",
)  # fmt: skip
FLAGS = ("declared", "matters")
ONLY_DEFAULTS = "only the defaults were run (trial 0): nothing was tuned"


def finished_trials(cells: pd.DataFrame, by: str = "samples") -> pd.DataFrame:
    """The finished cells that are points of a search, with ``time`` (infinite for a miss).

    Raises:
        UserError: when a column is missing, or a time is negative or no number.
    """
    require(cells, ["trial"])
    rows = counted(cells, by)
    return rows.loc[floats(rows, "trial") > 0]


def grouped(rows: pd.DataFrame) -> Iterator[tuple[Pair, Rows]]:
    """((workload, label), rows with the columns ``setting`` and ``shared``), by name.

    ``setting`` numbers the distinct hyperparameters; each row has its own where none are recorded, or where
    what is recorded does not vary. ``shared`` says that the studies of the pair run the same points: each
    trial has one setting in all of them.
    """
    pair, trial = rows.groupby(PAIR).ngroup(), rows.groupby([*PAIR, "trial"]).ngroup()
    rows = rows.assign(setting=_settings(rows))
    alone = _distinct(rows["setting"], pair).to_numpy() == 1
    rows["setting"] = np.where(alone, len(rows) + np.arange(len(rows)), rows["setting"].to_numpy())
    settings, studies = (_distinct(rows[name], trial) for name in ("setting", "study"))
    most_settings, most_studies = (values.groupby(pair).transform("max") for values in (settings, studies))
    rows["shared"] = (most_settings.to_numpy() == 1) & (most_studies.to_numpy() > 1)
    order = np.argsort(pair.to_numpy(), kind="stable")
    starts = np.searchsorted(pair.to_numpy()[order], np.arange(pair.max() + 1 if len(rows) else 0))
    table = Rows.of(rows).at(order)
    for start, end in itertools.pairwise([*starts, len(rows)]):
        own = table.at(slice(start, end))
        yield (str(own["workload"][0]), str(own["label"][0])), own


def median_times(own: Rows) -> Rows:
    """One row for each setting of one pair: its first, with the median ``time`` of all."""
    _, first, setting = np.unique(own["setting"], return_index=True, return_inverse=True)
    if len(first) == len(own):
        return own
    first.sort()
    return own.at(first).assign(
        time=np.array([np.median(own["time"][setting == own_setting]) for own_setting in setting[first]])
    )


def untuned(rows: pd.DataFrame, tried: pd.DataFrame) -> list[Pair]:
    """Pairs of ``rows`` that have none in ``tried``."""
    return sorted(_pairs(rows) - _pairs(tried))


def no_hit(runs: Rows) -> str:
    """Why settings have no finite median time."""
    return "no setting hit in half of its runs" if np.isfinite(runs["time"]).any() else "no trial hit"


def shared(own: Rows) -> bool:
    """Whether the studies of a pair run the same points, from a group of :func:`grouped`."""
    return bool(own["shared"][0])


def share_interval(share: np.ndarray, n: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """The interval of a proportion (Clopper and Pearson 1934); ``share · n`` need not be whole."""
    from scipy.special import betaincinv

    hits, tail = np.asarray(share, dtype="float64") * n, (1 - level) / 2
    low = np.where(hits > 0, betaincinv(np.maximum(hits, 1e-12), n - hits + 1, tail), 0.0)
    high = np.where(hits < n, betaincinv(hits + 1, np.maximum(n - hits, 1e-12), 1 - tail), 1.0)
    return low, high


# -- tables ------------------------------------------------------------------------------------------


def floats(rows: Table, column: str) -> np.ndarray:
    """A column as floats; NaN where it is absent or holds no number."""
    if column not in rows:
        return np.full(len(rows), np.nan)
    return as_floats(rows[column])


def as_floats(values: Any) -> np.ndarray:
    """A column as floats; NaN for what is no number."""
    if isinstance(values.dtype, np.dtype) and values.dtype.kind in "fiu":
        return np.asarray(values, "float64")
    converted: Any = pd.to_numeric(pd.Series(values), errors="coerce")
    return converted.to_numpy("float64", na_value=np.nan)


def require(table: pd.DataFrame, columns: Iterable[str]) -> None:
    """Raise where a column is missing."""
    absent = [name for name in columns if name not in table]
    if absent:
        raise UserError(f"the table of cells has no column {' and '.join(absent)}")


def check_level(level: float) -> None:
    """Raise where the level is none."""
    if not 0 < level < 1:
        raise UserError(f"level {level:g}: between 0 and 1")


def refused(name: Pair, reason: str, **known: object) -> Columns:
    """A row that holds a reason, and no result."""
    return named(name, {**known, "reason": [reason]})


def named(name: Pair, columns: Columns) -> Columns:
    """The columns with the names of workload and label."""
    return {"workload": name[0], "label": name[1], **columns}


def gathered(rows: Sequence[Columns]) -> dict[str, list[object]]:
    """Rows as columns; NaN where a row lacks one."""
    return {
        name: [row.get(name, math.nan) for row in rows]
        for name in dict.fromkeys(k for row in rows for k in row)
    }


def joined(frames: Sequence[Columns], columns: Sequence[str], sort: Sequence[str] = PAIR) -> pd.DataFrame:
    """One frame of these columns, counts as integers, sorted.

    Args:
        frames: columns, each as long as the longest of its own, or one value for all its rows.
        columns: which, in order; what a frame lacks is missing.
        sort: by what; rows stay in order otherwise.
    """
    lengths = [max((len(c) for c in own.values() if _many(c)), default=1) for own in frames]
    if not sum(lengths):
        return pd.DataFrame(columns=list(columns))
    whole = pd.DataFrame(
        {
            name: pd.Series(
                [
                    v
                    for own, length in zip(frames, lengths, strict=True)
                    for v in _spread(own.get(name, math.nan), length)
                ],
                dtype=object,
            )
            for name in columns
        }
    )
    types: dict[Any, Any] = {name: "Int64" for name in COUNTS if name in whole}
    types |= {name: "boolean" for name in FLAGS if name in whole}
    whole = whole.astype(types).infer_objects()
    return whole.sort_values(by=list(sort), kind="stable", ignore_index=True)


def _many(values: object) -> bool:
    return isinstance(values, (np.ndarray, list, pd.Series, pd.Index))


def _spread(values: Any, length: int) -> Sequence[object]:
    if not _many(values):
        return [values] * length
    return values.tolist() if hasattr(values, "tolist") else values


def _pairs(rows: pd.DataFrame) -> set[Pair]:
    return set(zip(rows["workload"].astype(str), rows["label"].astype(str), strict=True))


def _distinct(values: Any, groups: Any) -> pd.Series:
    """How many different values the group of each row has."""
    return values.groupby(groups).transform("nunique")


def _settings(rows: pd.DataFrame) -> np.ndarray:
    names = [name for name in rows if str(name).startswith(HPARAM)]
    if not names or not len(rows):
        return np.arange(len(rows))
    return rows.groupby(names, dropna=False, sort=False).ngroup().to_numpy()

"""One setting for all workloads: what it costs not to tune on each.

A setting is a point of an algorithm's search space that was run on all of its workloads: the same
hyperparameters (those that the search varied) or, where none are recorded, the same study and trial. Its time
on a workload is the median over its runs there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd

from runner.base.errors import UserError
from runner.stats.axes import axes
from runner.stats.trials import HPARAM, Columns, finished_trials, joined

ALL = [
    "label", "study", "trial", "setting", "settings", "workloads", "hits", "ratio", "held_out_hits",
    "held_out_ratio", "reason",
]  # fmt: skip
EACH = [
    "label", "workload", "tuned", "tuned_study", "tuned_trial", "time", "ratio", "held_out_study",
    "held_out_trial", "held_out_time", "held_out_ratio",
]  # fmt: skip


def one_setting(cells: pd.DataFrame, by: str = "samples") -> pd.DataFrame:
    """The best single setting of each algorithm, and its regret against tuning on each workload.

    The regret on a workload is the setting's time ÷ that of the best setting there. The best single setting
    hits on most workloads, and of those has the lowest geometric mean of ratios where it hits; ties go to the
    earliest study and trial. ``ratio`` says what it costs on these workloads, on the very runs that chose it.
    ``held_out_ratio`` says what a setting costs on a workload that had no say in the choice: for each
    workload the setting that is best on the others. Both divide by the best of n runs on the workload, which
    is lucky as well as good, so both overstate what tuning on each would bring again: the more, the noisier
    the times and the more settings.

    Args:
        cells: the ``cells`` table.
        by: ``samples``, ``seconds`` or ``steps``.

    Returns:
        ``label``; ``study, trial`` of the setting's first run and ``setting``, its hyperparameters as JSON;
        ``settings``, how many were compared (those finished on all of the algorithm's workloads);
        ``workloads``, how many of those some setting hits; ``hits``, on how many of them this one does, and
        ``ratio``, its geometric mean there; ``held_out_hits, held_out_ratio``, likewise; ``reason``, why
        there is none.

    Raises:
        UserError: when a column is missing, or a time is negative or no number.
    """
    return joined([_overall(own) for own in _settings(cells, by)], ALL, sort=["label"])


def one_setting_by_workload(cells: pd.DataFrame, by: str = "samples") -> pd.DataFrame:
    """The regret of :func:`one_setting` on each workload that some compared setting hits.

    Returns:
        ``label, workload``; ``tuned``, the time of the best setting there, with its ``tuned_study`` and
        ``tuned_trial``; ``time`` of the single setting (infinite for a miss) and ``ratio`` of the two; the
        setting that is best on the other workloads, ``held_out_study`` and ``held_out_trial``, with its
        ``held_out_time`` and ``held_out_ratio`` here.
    """
    found = [_each(own) for own in _settings(cells, by) if not own.reason]
    return joined(found, EACH, sort=["label", "workload"])


def workloads_needed(settings: int, error: float = 0.1, risk: float = 0.05) -> int:
    """How many workloads a choice among settings needs to hold on others of their kind.

    Hoeffding's inequality over all settings: with a score in [0, 1] and that many independent workloads, the
    mean of every setting is within ``error`` of its expectation with a chance of 1 − ``risk``.

    Raises:
        UserError: for no setting, or an ``error`` or ``risk`` outside (0, 1).
    """
    if settings < 1 or not 0 < error < 1 or not 0 < risk < 1:
        raise UserError("workloads_needed: at least one setting, and error and risk between 0 and 1")
    return math.ceil(math.log(2 * settings / risk) / (2 * error**2))


class Settings(NamedTuple):
    """The settings of one algorithm that ran on all of its workloads, by study and trial."""

    label: str
    varied: list[str]  # columns of the hyperparameters that make a setting; empty where none are recorded
    names: pd.DataFrame  # one row per setting, its first: study, trial, hyperparameters
    times: pd.DataFrame  # setting × workload that one of them hits
    ratios: np.ndarray  # to the best of the workload; infinite for a miss
    reason: str


def best_setting(ratios: np.ndarray) -> int:
    """The row that hits most columns, and of those has the lowest mean logarithm there; the first of equals.

    Args:
        ratios: setting × workload, infinite for a miss.
    """
    hits, mean = _summary(ratios)
    return int(np.lexsort((np.round(mean, 12), -hits))[0])


def _settings(cells: pd.DataFrame, by: str) -> Iterator[Settings]:
    rows = finished_trials(cells, by).sort_values(["study", "trial"], kind="stable")
    for label, own in rows.groupby("label", sort=True):
        varied = _varied(own)
        number = own.groupby(varied or ["study", "trial"], dropna=False, sort=False).ngroup()
        own = own.assign(setting=number)
        table = cast(pd.DataFrame, own.groupby(["setting", "workload"])["time"].median().unstack("workload"))
        common = table.loc[table.notna().all(axis=1)]
        times = common.loc[:, np.isfinite(common.to_numpy("float64")).any(axis=0)]
        names = own.drop_duplicates("setting").set_index("setting").loc[list(times.index)]
        ratios = _ratios(times.to_numpy("float64"))
        yield Settings(str(label), varied, names, times, ratios, _why_not(table, common, times))


def _varied(own: pd.DataFrame) -> list[str]:
    """Hyperparameters that vary within a workload: what follows from the workload alone is no setting."""
    varied = {HPARAM + axis.key for axis in axes(own)}
    names = [str(name) for name in own if name in varied]
    if not names:
        return []
    distinct = own.groupby("workload")[names].nunique().to_numpy().max(axis=0, initial=0)
    return [name for name, count in zip(names, distinct, strict=True) if count > 1]


def _ratios(times: np.ndarray) -> np.ndarray:
    if not times.size:
        return times
    best, hit = times.min(axis=0), np.isfinite(times)
    # A target that the initial weights reach costs nothing; nothing else compares with that.
    otherwise = np.where(hit & (times == best), 1.0, np.inf)
    return np.divide(times, best, where=hit & (best > 0), out=otherwise)


def _why_not(table: pd.DataFrame, common: pd.DataFrame, times: pd.DataFrame) -> str:
    if len(table.columns) < 2:
        return "only one workload was run"
    if not len(common):
        return "no setting finished on all workloads"
    return "" if len(times.columns) else "no setting hit"


def _summary(ratios: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hits of each row, and the mean logarithm over them; NaN without any."""
    hit = np.isfinite(ratios)
    hits = hit.sum(axis=1)
    total = np.log(ratios, where=hit, out=np.zeros(ratios.shape)).sum(axis=1)
    return hits, np.divide(total, hits, where=hits > 0, out=np.full(len(hits), np.nan))


def _held_out(ratios: np.ndarray) -> list[int]:
    """For each column the row that is best on the others."""
    return [best_setting(np.delete(ratios, column, axis=1)) for column in range(ratios.shape[1])]


def _overall(own: Settings) -> Columns:
    count = len(own.times.columns)
    row: dict[str, object] = {
        "label": own.label, "settings": len(own.times), "workloads": count, "reason": own.reason,
    }  # fmt: skip
    if own.reason:
        return row
    chosen = best_setting(own.ratios)
    name = own.names.iloc[chosen]
    row |= {"study": name["study"], "trial": name["trial"], "setting": _json(own.varied, name.to_dict())}
    row |= _mean("", own.ratios[chosen])
    if count > 1:
        row |= _mean("held_out_", own.ratios[_held_out(own.ratios), np.arange(count)])
    return row


def _each(own: Settings) -> Columns:
    workloads = np.arange(len(own.times.columns))
    times, where = own.times.to_numpy("float64"), own.names[["study", "trial"]].to_numpy()
    chosen, tuned = best_setting(own.ratios), own.ratios.argmin(axis=0)
    frame = {
        "label": own.label,
        "workload": own.times.columns.astype(str),
        "tuned": times[tuned, workloads],
        "tuned_study": where[tuned, 0],
        "tuned_trial": where[tuned, 1],
        "time": times[chosen],
        "ratio": own.ratios[chosen],
    }
    if len(workloads) < 2:
        return frame
    held = _held_out(own.ratios)
    return {
        **frame,
        "held_out_study": where[held, 0],
        "held_out_trial": where[held, 1],
        "held_out_time": times[held, workloads],
        "held_out_ratio": own.ratios[held, workloads],
    }


def _mean(prefix: str, ratios: np.ndarray) -> dict[str, object]:
    hits, mean = _summary(ratios[None])
    return {f"{prefix}hits": int(hits[0]), f"{prefix}ratio": float(np.exp(mean[0]))}


def _json(varied: list[str], name: dict[str, Any]) -> str:
    known = {key.removeprefix(HPARAM): name[key] for key in varied if not pd.isna(name[key])}
    plain = {key: value.item() if isinstance(value, np.generic) else value for key, value in known.items()}
    return json.dumps(plain, default=str)

"""The board: one row per algorithm, with all that a reader needs to judge its rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from runner.base.errors import UserError
from runner.stats.profiles import NO_VARIANTS, Integral, Rule, scores
from runner.stats.resampling import bootstrap
from runner.stats.stability import leave_one_out, ranks
from runner.stats.times import Pick, Spread, counted, medians, reached, speedup, spreads, study_times

Rules = tuple[float, Integral, Mapping[str, str]]
SPENT = ("samples", "seconds", "steps")


def board(
    cells: pd.DataFrame,
    by: str = "samples",
    *,
    pick: Pick = "time",
    integral: Integral = "exact",
    tau_max: float = 4.0,
    variants: Mapping[str, str] = NO_VARIANTS,
    baseline: str | None = None,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    workloads: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Everything about each algorithm, best first; cells must be comparable, which is not checked here.

    Args:
        cells: the ``cells`` table of one ruleset; what is unfinished counts in ``spent_*`` alone.
        by: ``samples``, ``seconds`` or ``steps``: what is compared.
        pick: as for :func:`runner.stats.study_times`.
        integral: as for :func:`runner.stats.scores`.
        tau_max: as for :func:`runner.stats.scores`.
        variants: as for :func:`runner.stats.scores`.
        baseline: the label that speed-ups are over; None for none.
        resamples: of the bootstrap; 0 leaves its columns NaN.
        seed: of the bootstrap.
        level: of its intervals.
        workloads: the board's workloads; by default those with a target on which a cell has finished.

    Returns:
        ``rank, label, score, low, high, hit_rate`` (of its finished cells), ``workloads_hit`` (base ones,
        within the limit or not), ``speedup, speedup_low, speedup_high, speedup_workloads, rank_stability,
        leave_one_out, studies`` (the fewest on a base workload), ``trials`` (the most in one study),
        ``too_few``, and ``spent_<unit>`` over all its cells, where the table says so.

    Raises:
        UserError: when no finished cell has a target, a column is missing, or an option makes no sense.
    """
    times, rows = study_times(cells, by, pick), counted(cells, by)
    columns = sorted(times["workload"].unique()) if workloads is None else list(dict.fromkeys(workloads))
    labels = sorted(cells["label"].unique())
    if not set(times["workload"].unique()) & set(columns):
        raise UserError("no finished cell to score: none has both ended and a target")
    table = medians(times, labels, columns)
    rules: Rules = (tau_max, integral, variants)
    bases = table.iloc[:, Rule(columns, *rules).bases]
    rows = rows.loc[rows["workload"].isin(columns)]
    speed = speedup(bases, baseline) if baseline is not None else _nothing(labels)
    points = scores(table, *rules)
    frame = pd.DataFrame({"rank": ranks(points.to_numpy()), "score": points}, index=table.index)
    frame = frame.join(_sureness(times, labels, columns, resamples, seed, level, baseline, rules))
    frame["hit_rate"] = _hits(rows).groupby("label")["hits"].mean()
    frame["workloads_hit"] = np.isfinite(bases).sum(axis=1)
    frame["speedup"], frame["speedup_workloads"] = speed["speedup"], speed["workloads"]
    frame["leave_one_out"] = leave_one_out(table, *rules)
    trials = rows.groupby(["label", "workload", "study"]).size().groupby("label").max()
    frame["trials"] = trials.reindex(labels, fill_value=0)
    frame = frame.join(_spent(cells.loc[cells["workload"].isin(columns)]).reindex(labels))
    return _arranged(frame.reset_index())


def by_workload(
    cells: pd.DataFrame,
    by: str = "samples",
    *,
    pick: Pick = "time",
    spread: Spread = "range",
    workloads: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Each algorithm on each workload.

    Args:
        cells: the ``cells`` table.
        by: the unit.
        pick: as for :func:`runner.stats.study_times`.
        spread: as for :func:`runner.stats.spreads`.
        workloads: which ones; all by default.

    Returns:
        ``workload, label, median, low, high, ratio`` (median ÷ the lowest of the workload, the limit not
        applied), ``studies, studies_hit, finished, hits, reached`` (the best metric of the scored runs, as
        :func:`runner.stats.reached` gives it); workloads and labels without a finished cell that had a
        target are absent.
    """
    rows = counted(cells, by)
    frame = spreads(study_times(cells, by, pick), spread)
    groups = _hits(rows).groupby(["workload", "label"])
    counts = pd.DataFrame({name: groups[name].sum() for name in ("finished", "hits")}).reset_index()
    frame = frame.merge(counts, on=["workload", "label"], how="left")
    frame = frame.merge(reached(cells, by, pick), on=["workload", "label"], how="left")
    if workloads is not None:
        frame = frame.loc[frame["workload"].isin(list(workloads))].reset_index(drop=True)
    frame.insert(5, "ratio", _ratios(frame))
    return frame


def _hits(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(finished=1, hits=np.isfinite(rows["time"].to_numpy()).astype(int))


def _ratios(frame: pd.DataFrame) -> np.ndarray:
    time = frame["median"].to_numpy()
    best = frame.groupby("workload")[["median"]].transform("min")["median"].to_numpy()
    hit = np.isfinite(time)
    tie = np.where(hit & (time == best), 1.0, np.inf)
    return np.divide(time, best, where=hit & (best > 0), out=tie)


def _sureness(
    times: pd.DataFrame,
    labels: Sequence[str],
    workloads: Sequence[str],
    resamples: int,
    seed: int,
    level: float,
    baseline: str | None,
    rules: Rules,
) -> pd.DataFrame:
    tau_max, integral, variants = rules
    frame = bootstrap(
        times,
        max(1, resamples),
        seed,
        level,
        tau_max=tau_max,
        integral=integral,
        variants=variants,
        baseline=baseline,
        labels=labels,
        workloads=workloads,
    )
    if resamples == 0:
        frame[["low", "high", "rank_stability", "speedup_low", "speedup_high"]] = np.nan
    return frame


def _nothing(labels: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame({"speedup": np.nan, "workloads": 0}, index=pd.Index(labels, name="label"))


def _spent(cells: pd.DataFrame) -> pd.DataFrame:
    """What an algorithm's cells cost in all, finished or not, in every unit that the table has."""
    units = [unit for unit in SPENT if unit in cells]
    return pd.DataFrame({f"spent_{unit}": cells.groupby("label")[unit].sum(min_count=1) for unit in units})


def _arranged(frame: pd.DataFrame) -> pd.DataFrame:
    front = ["rank", "label", "score", "low", "high", "hit_rate", "workloads_hit"]
    front += ["speedup", "speedup_low", "speedup_high", "speedup_workloads"]
    front += ["rank_stability", "leave_one_out", "studies", "trials", "too_few"]
    rest = [name for name in frame if name not in front]
    return frame.reindex(columns=[*front, *rest]).sort_values(["rank", "label"], ignore_index=True)

"""Two algorithms on the same workloads and studies: how far apart are they, and is that more than chance?

A pair is one study of one workload. The seed of a cell is a function of (workload, study, trial), so both
algorithms of a pair start from the same initial weights and see the data in the same order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from runner.base.errors import UserError, nearest
from runner.stats import signed_rank
from runner.stats.times import Pick, counted, study_times

POWER = 0.8  # with which the studies of a forecast would separate the two
DECIMALS = 12  # of a log ratio: 2 ÷ 1 and 1 ÷ 2 are equally far apart
PLACE = ["workload", "study"]
Rates = dict[tuple[str | None, str], float]  # (workload, label), workload None for all of them


@dataclass(frozen=True)
class Verdict:
    """What pairs say, of one workload or of all.

    Attributes:
        pairs: studies that both algorithms finished; the next five add up to it.
        both_hit: pairs in which both hit, ``ties`` included.
        only_a: pairs in which b missed.
        only_b: pairs in which a missed.
        neither: pairs in which both missed, which say nothing.
        ties: pairs in which both took equally long.
        ratio: geometric mean of (time of a ÷ time of b) over the pairs that both hit; NaN without one.
        low: of the interval of the ratio, over the pairs that both hit, too; the verdict counts all.
        high: of the interval of the ratio.
        interval_level: of that interval: lower than asked for where there are too few pairs for that.
        hit_rate_a: of a's finished cells.
        hit_rate_b: of b's finished cells.
        p: two-sided, of no difference.
        separable: whether ``p`` is within the level.
        faster: the label that the pairs favour, misses included; "" where neither.
        more_studies: per workload, expected to separate them with 80 % power if the pairs seen are typical;
            0 where they are separable, infinite where no difference is seen, NaN where nothing can be said.
        reason: why nothing can be separated with these pairs, if so.
    """

    pairs: int
    both_hit: int
    only_a: int
    only_b: int
    neither: int
    ties: int
    ratio: float
    low: float
    high: float
    interval_level: float
    hit_rate_a: float
    hit_rate_b: float
    p: float
    separable: bool
    faster: str
    more_studies: float
    reason: str


@dataclass(frozen=True)
class Comparison:
    """``a`` against ``b``; a ratio under 1 says that a is faster.

    Attributes:
        a: label.
        b: label.
        by: unit of the times.
        level: of verdicts and intervals, each for itself.
        shared_points: whether a study's trial points are the same on its several workloads; ``overall`` then
            counts what its pairs have in common once.
        overall: all pairs together.
        workloads: one row per workload: ``workload`` and what a :class:`Verdict` has.
    """

    a: str
    b: str
    by: str
    level: float
    shared_points: bool
    overall: Verdict
    workloads: pd.DataFrame


def compare(
    cells: pd.DataFrame,
    a: str,
    b: str,
    *,
    by: str = "samples",
    pick: Pick = "time",
    level: float = 0.95,
) -> Comparison:
    """Two algorithms, paired over (workload, study).

    Per workload by Wilcoxon's signed-rank test on the log ratios, exact with misses (beyond every finite
    ratio) and ties. Over all workloads by the same test on all pairs; and where tuning points are drawn once
    a study for all workloads, by a t-test on the studies' sums of scores too: the larger p counts.

    Args:
        cells: the ``cells`` table, comparable, which is not checked here.
        a: label.
        b: label.
        by: ``samples``, ``seconds`` or ``steps``.
        pick: as for :func:`runner.stats.study_times`.
        level: of each verdict and interval.

    Raises:
        UserError: for an unknown label, twice the same one, or a level outside (0, 1).
    """
    _check(cells, a, b, level)
    rows = cells.loc[cells["label"].isin([a, b])]
    rates, pairs = _hit_rates(counted(rows, by)), paired(study_times(rows, by, pick), a, b)
    shared = shares_points(rows) and bool(pairs["study"].duplicated().any())
    verdicts = [
        {"workload": name, **asdict(_verdict(own, (a, b), rates, name, level, False))}
        for name, own in _by_workload(pairs, rows)
    ]
    columns = ["workload", *Verdict.__dataclass_fields__]
    overall = _verdict(pairs, (a, b), rates, None, level, shared)
    return Comparison(a, b, by, level, shared, overall, pd.DataFrame(verdicts, columns=columns))


def paired(times: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    """The studies that both have.

    Args:
        times: the table of :func:`runner.stats.study_times`.
        a: label.
        b: label.

    Returns:
        ``workload, study, a, b, log_ratio``: the times and log(a ÷ b), infinite where one of them missed (or
        took no time), NaN where both missed.
    """
    one, other = (times.loc[times["label"] == name, [*PLACE, "time"]] for name in (a, b))
    both = one.rename(columns={"time": "a"}).merge(other.rename(columns={"time": "b"}), on=PLACE)
    return both.assign(log_ratio=log_ratios(both["a"].to_numpy("float64"), both["b"].to_numpy("float64")))


def log_ratios(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """log(a ÷ b) of times, 0 for equal ones, NaN where either is NaN or both are infinite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.round(np.log(a / b), DECIMALS)
    return np.where((a == b) & np.isfinite(a), 0.0, logs)


def shares_points(cells: pd.DataFrame) -> bool:
    """Whether studies are tuned: trial points are then a function of (study, trial), not of the workload."""
    if "trial" not in cells:
        return True
    tuned = cells["trial"].to_numpy("float64", na_value=0.0) > 0
    if "ruleset" in cells:
        tuned &= (cells["ruleset"] != "self_tuning").to_numpy(bool, na_value=True)
    return bool(tuned.any())


def neighbours(
    cells: pd.DataFrame,
    order: Sequence[str],
    *,
    by: str = "samples",
    pick: Pick = "time",
    level: float = 0.95,
) -> pd.DataFrame:
    """Is each algorithm of a board separable from the one below it?

    Args:
        cells: the ``cells`` table.
        order: labels, best first.
        by: as for :func:`compare`.
        pick: as for :func:`compare`.
        level: of each verdict for itself.

    Returns:
        A row a label but for the last, in order: ``label, below, pairs, p, separable``.
    """
    _check_level(level)
    rows = cells.loc[cells["label"].isin(list(order))]
    table, study = side_by_side(study_times(rows, by, pick), order)
    shared = shares_points(rows)
    found = [_pair_of_rows(one, other, study, shared) for one, other in itertools.pairwise(table)]
    frame = pd.DataFrame(found, columns=["pairs", "p"]).astype({"pairs": int, "p": float})
    frame.insert(0, "label", list(order)[:-1])
    frame.insert(1, "below", list(order)[1:])
    return frame.assign(separable=frame["p"] <= 1 - level + signed_rank.SLACK)


def side_by_side(times: pd.DataFrame, order: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The times of :func:`runner.stats.study_times`, label × place, and the study of each place.

    A place is a study of a workload, in their order; NaN where an algorithm has none.
    """
    wide = times.pivot(index="label", columns=PLACE, values="time").reindex(list(order))
    return wide.to_numpy("float64"), wide.columns.get_level_values("study").to_numpy()


def _pair_of_rows(one: np.ndarray, other: np.ndarray, study: np.ndarray, shared: bool) -> tuple[int, float]:
    own = ~(np.isnan(one) | np.isnan(other))
    logs, study = log_ratios(one[own], other[own]), study[own]
    return len(logs), p_of(logs, study if shared and len(set(study)) < len(study) else None)


def p_of(logs: np.ndarray, study: np.ndarray | None) -> float:
    """Two-sided p of no difference; with ``study``, what a study's pairs have in common counts once."""
    signed = signed_rank.signed_ranks(logs)
    p = signed_rank.p_value(signed)
    return p if study is None else max(p, signed_rank.p_by_study(signed, study))


def _verdict(
    pairs: pd.DataFrame,
    labels: tuple[str, str],
    rates: Rates,
    workload: str | None,
    level: float,
    shared: bool,
) -> Verdict:
    logs = pairs["log_ratio"].to_numpy("float64")
    study = pairs["study"].to_numpy() if shared else None
    p, signed = p_of(logs, study), signed_rank.signed_ranks(logs)
    low, high, attained = signed_rank.interval(logs, level, study)
    hit_a, hit_b = (np.isfinite(pairs[name].to_numpy("float64")) for name in "ab")
    finite = np.isfinite(logs)
    separable, reason = p <= 1 - level + signed_rank.SLACK, _reason(logs, study, level)
    return Verdict(
        pairs=len(logs),
        both_hit=int((hit_a & hit_b).sum()),
        only_a=int((hit_a & ~hit_b).sum()),
        only_b=int((hit_b & ~hit_a).sum()),
        neither=int((~hit_a & ~hit_b).sum()),
        ties=int((logs == 0).sum()),
        ratio=math.exp(logs[finite].mean()) if finite.any() else math.nan,
        low=float(np.exp(low)) if attained else math.nan,
        high=float(np.exp(high)) if attained else math.nan,
        interval_level=attained,
        hit_rate_a=rates.get((workload, labels[0]), math.nan),
        hit_rate_b=rates.get((workload, labels[1]), math.nan),
        p=p,
        separable=separable,
        faster=labels[0] if signed.sum() < 0 else labels[1] if signed.sum() > 0 else "",
        more_studies=0.0 if separable else more_studies(logs, pairs["study"].to_numpy(), level, shared),
        reason="" if separable else reason,
    )


def more_studies(logs: np.ndarray, study: np.ndarray, level: float, shared: bool = False) -> float:
    """Studies per workload that would still be needed, with 80 % power, if the pairs seen are typical.

    Args:
        logs: log ratios of all pairs.
        study: of each pair.
        level: of the verdict.
        shared: as for :class:`Comparison`.

    Returns:
        1 or more; infinite where no difference is seen, NaN where fewer than two pairs say anything.
    """
    useful, present = len(signed_rank.informative(logs)), len(np.unique(study))
    if not useful:
        return math.nan
    wanted = np.array([signed_rank.pairs_needed(logs, level, POWER) * present / useful])
    if shared:
        signed = signed_rank.signed_ranks(logs)
        wanted = np.append(wanted, signed_rank.studies_needed(signed, study, level, POWER))
    return float(max(1.0, np.ceil(wanted.max()) - present)) if not np.isnan(wanted).any() else math.nan


def _reason(logs: np.ndarray, study: np.ndarray | None, level: float) -> str:
    useful, least = len(signed_rank.informative(logs)), signed_rank.needed(level)
    if not len(logs):
        return "no pairs: the two share no workload and study"
    if not useful:
        return "every pair is a tie or was missed by both"
    if useful < least:
        kind = "pair" if useful == 1 else "pairs"
        return (
            f"with {useful} {kind} no difference can be separated at {100 * level:.6g} %: {least} are needed"
        )
    if study is not None and len(np.unique(study)) < 2:
        return "one study: the luck of its tuning points cannot be told apart from a real difference"
    return ""


def _hit_rates(rows: pd.DataFrame) -> Rates:
    """(workload, label) -> share of cells that hit; workload None is all of them."""
    hits: dict[tuple[str | None, str], list[bool]] = {}
    times = rows["time"].to_numpy("float64")
    for workload, label, hit in zip(rows["workload"], rows["label"], np.isfinite(times), strict=True):
        for name in (workload, None):
            hits.setdefault((name, label), []).append(bool(hit))
    return {key: sum(own) / len(own) for key, own in hits.items()}


def _by_workload(pairs: pd.DataFrame, rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    return [(name, pairs.loc[pairs["workload"] == name]) for name in sorted(set(rows["workload"]))]


def _check(cells: pd.DataFrame, a: str, b: str, level: float) -> None:
    known = {str(name) for name in cells["label"]}
    for name in (a, b):
        if name not in known:
            raise UserError(f"no algorithm here is called {name}: {nearest(name, known)}")
    if a == b:
        raise UserError(f"{a} against itself: name two algorithms")
    _check_level(level)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise UserError(f"level is {level:g}: it must be between 0 and 1")

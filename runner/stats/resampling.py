"""How sure a score is: studies are resampled, and everything is scored again."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from runner.base.errors import UserError
from runner.stats.profiles import NO_VARIANTS, Integral, Rule, score
from runner.stats.stability import ranks
from runner.stats.times import Studies, log_speedups, place, studies

ENOUGH = 5  # studies: with fewer, resampling says too little
CHUNK = 2**21  # times scored at once, which bounds the memory


def bootstrap(
    times: pd.DataFrame,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    *,
    tau_max: float = 4.0,
    integral: Integral = "exact",
    variants: Mapping[str, str] = NO_VARIANTS,
    baseline: str | None = None,
    labels: Sequence[str] | None = None,
    workloads: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Percentile intervals of scores and speed-ups, and how often a rank is kept.

    A resample draws, for each algorithm and workload, as many studies as there are, with replacement. What
    is drawn for a pair depends on the seed and the two names alone, so that a new row on a board does not
    change how the others are resampled.

    Args:
        times: the table of :func:`runner.stats.study_times`.
        resamples: how many.
        seed: same seed, same result.
        level: of the intervals.
        tau_max: as for :func:`runner.stats.scores`.
        integral: as for :func:`runner.stats.scores`.
        variants: as for :func:`runner.stats.scores`.
        baseline: the label that speed-ups are over.
        labels: rows of the board, those in ``times`` by default.
        workloads: columns of the board, those in ``times`` by default.

    Returns:
        By label: ``low`` and ``high`` of the score; ``rank_stability``, the share of resamples in which the
        rank is that of the board itself; ``speedup_low`` and ``speedup_high`` (NaN where the board itself has
        no speed-up: without a baseline, or without a workload that both hit), over the resamples in which
        both hit something; ``studies``, the
        fewest on any base workload; ``too_few``, where those are under 5.

    Raises:
        UserError: for an unknown baseline, fewer than one resample, or a level outside (0, 1).
    """
    if resamples < 1 or not 0 < level < 1:
        raise UserError(
            f"{resamples} resamples at level {level:g}: at least one, and a level between 0 and 1"
        )
    found = studies(times, labels, workloads)
    rule = Rule(found.workloads, tau_max, integral, variants)
    base = None if baseline is None else place(baseline, found.labels)
    drawn = _scored(resampled(found, resamples, seed), rule, base)
    itself = found.table(found.medians(), np.inf).to_numpy()
    (point,), (speed,) = _scored(iter([itself[None]]), rule, base)
    fewest = found.table(found.size, 0).to_numpy()[:, rule.bases].min(axis=1).astype(int)
    low, high = _intervals(drawn[0], level)
    speed_low, speed_high = np.where(np.isnan(speed), np.nan, np.exp(_intervals(drawn[1], level)))
    return pd.DataFrame(
        {
            "low": low,
            "high": high,
            "rank_stability": (ranks(drawn[0]) == ranks(point)).mean(axis=0),
            "speedup_low": speed_low,
            "speedup_high": speed_high,
            "studies": fewest,
            "too_few": fewest < ENOUGH,
        },
        index=pd.Index(found.labels, name="label"),
    )


def resampled(found: Studies, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Medians of resampled studies, (resamples, algorithms, workloads), in chunks along the first axis."""
    names = [[zlib.crc32(str(name).encode()) for name in kind] for kind in (found.labels, found.workloads)]
    medians = np.empty((resamples, len(found.start)))
    for pair, (row, column, start, count) in enumerate(
        zip(found.row, found.column, found.start, found.size, strict=True)
    ):
        own = found.times[start : start + count]
        medians[:, pair] = _medians(own, resamples, [seed, names[0][row], names[1][column]])
    cells = len(found.labels) * len(found.workloads)
    for first in range(0, resamples, step := max(1, CHUNK // max(1, cells))):
        part = medians[first : first + step]
        whole = np.full((len(part), len(found.labels), len(found.workloads)), np.inf)
        whole[:, found.row, found.column] = part
        yield whole


def _medians(ascending: np.ndarray, resamples: int, entropy: list[int]) -> np.ndarray:
    """Medians of ``resamples`` draws, with replacement, of as many times as there are."""
    count = len(ascending)
    if ascending[0] == ascending[-1]:
        return np.full(resamples, ascending[0])
    # NumPy promises that raw bits stay the same across its versions, not what Generator makes of them.
    bits = np.random.PCG64(np.random.SeedSequence(entropy)).random_raw(resamples * count)
    order = np.sort((bits % np.uint64(count)).astype(np.int32).reshape(resamples, count), axis=1)
    return (ascending[order[:, (count - 1) // 2]] + ascending[order[:, count // 2]]) / 2


def _scored(chunks: Iterator[np.ndarray], rule: Rule, baseline: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Scores and log speed-ups over the base workloads, (resamples, algorithms) each."""
    points, logs = [], []
    for times in chunks:
        points.append(score(times, rule))
        nothing = np.full(times.shape[:2], np.nan)
        logs.append(nothing if baseline is None else log_speedups(times[..., rule.bases], baseline)[0])
    return np.concatenate(points), np.concatenate(logs)


def _intervals(values: np.ndarray, level: float) -> np.ndarray:
    """Percentiles (2, algorithms) of (resamples, algorithms), over what is a number."""
    edges = [(1 - level) / 2, (1 + level) / 2]
    if not np.isnan(values).any():
        return np.quantile(values, edges, axis=0)
    columns = [column[~np.isnan(column)] for column in values.T]
    nothing = np.full(2, np.nan)
    return np.stack([np.quantile(own, edges) if len(own) else nothing for own in columns], axis=1)

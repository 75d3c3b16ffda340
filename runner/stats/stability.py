"""Ranks, and whether they hold when an algorithm leaves the board."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from runner.stats.profiles import NO_VARIANTS, Integral, Rule, score

DECIMALS = 12  # scores closer than this are one: they differ by the order of a sum


def ranks(scores: np.ndarray) -> np.ndarray:
    """Ranks along the last axis, 1 for the highest score; equals share the better rank."""
    table = pd.DataFrame(np.atleast_2d(np.round(scores, DECIMALS)))
    ranked = table.rank(axis=1, method="min", ascending=False)
    return ranked.to_numpy().astype(int).reshape(scores.shape)


def leave_one_out(
    times: pd.DataFrame,
    tau_max: float = 4.0,
    integral: Integral = "exact",
    variants: Mapping[str, str] = NO_VARIANTS,
) -> pd.Series:
    """Does an algorithm's rank depend on who else is on the board?

    Args:
        times: label × workload, as for :func:`runner.stats.scores`.
        tau_max: as there.
        integral: as there.
        variants: as there.

    Returns:
        label -> the share of boards, each without one other algorithm, on which it keeps its place among
        those that remain; NaN where there is no other.
    """
    values, rule = times.to_numpy("float64"), Rule(times.columns, tau_max, integral, variants)
    whole = score(values, rule)
    number, kept = len(times), np.zeros(len(times))
    for gone in range(number):
        others = np.arange(number) != gone
        kept[others] += ranks(whole[others]) == ranks(score(values[others], rule)) if number > 1 else 0
    shares = kept / (number - 1) if number > 1 else np.full(number, np.nan)
    return pd.Series(shares, index=times.index, name="leave_one_out")

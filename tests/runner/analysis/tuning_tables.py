"""Hand-made and simulated tables of a search's trials."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from scripts.sim_tuning import searches

MISS = math.inf


def trials(
    rows: Iterable[tuple[str, str, int, int, float]],
    by: str = "samples",
    budget: float = 100.0,
    **columns: object,
) -> pd.DataFrame:
    """From (workload, label, study, trial, time); a miss spends the budget. ``columns`` as they are."""
    table = pd.DataFrame(list(rows), columns=["workload", "label", "study", "trial", f"{by}_to_target"])
    times = table[f"{by}_to_target"].to_numpy("float64")
    hit = np.isfinite(times)
    frame = table.assign(status="done", hit=hit, ended=np.where(hit, "target", "budget"))
    return frame.assign(**{by: np.where(hit, times, budget)}, **columns)


def one_study(times: Sequence[float], **columns: object) -> pd.DataFrame:
    """Trials 1, 2, … of one study of algorithm ``a`` on workload ``w``."""
    return trials([("w", "a", 0, trial, time) for trial, time in enumerate(times, 1)], **columns)


def draws(times: np.ndarray, hparams: Mapping[str, np.ndarray], studies: int = 1) -> pd.DataFrame:
    """Many simulated searches at once: a workload for each row of ``times`` (replications, trials).

    ``hparams`` are arrays of the same shape. The trials are spread over ``studies``.
    """
    samples = np.where(np.isfinite(times), times, 100.0).ravel()
    return searches(times, hparams, studies).assign(samples=samples)


def within(low: pd.Series, truth: float, high: pd.Series) -> float:
    """The share of intervals that hold the truth."""
    return float(((low <= truth + 1e-12) & (high >= truth - 1e-12)).mean())

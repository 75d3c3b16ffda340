"""Hand-made tables of cells and of times."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

MISS, UNFINISHED = math.inf, math.nan


def times(columns: Sequence[str], **rows: Sequence[float]) -> pd.DataFrame:
    """label × workload; a row an algorithm."""
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(columns)).rename_axis("label")


def cells(rows: Iterable[tuple], by: str = "samples") -> pd.DataFrame:
    """From (workload, label, study, trial, time[, eval_index]); NaN is an unfinished cell."""
    table = pd.DataFrame([(*row, math.nan)[:6] for row in rows])
    table.columns = ["workload", "label", "study", "trial", f"{by}_to_target", "eval_index_to_target"]
    finished = table[f"{by}_to_target"].notna()
    return table.assign(status=finished.map({True: "done", False: "running"}), samples=10.0, seconds=1.0)


def one_trial(studies: Mapping[tuple[str, str], Sequence[float]]) -> pd.DataFrame:
    """From (workload, label) -> the time of each study, a trial each."""
    return cells(
        (workload, label, study, 0, time)
        for (workload, label), own in studies.items()
        for study, time in enumerate(own)
    )

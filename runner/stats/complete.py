"""Which places of a grid no cell has."""

from __future__ import annotations

import pandas as pd

PLACE = ["workload", "label", "study", "trial"]


def holes(cells: pd.DataFrame) -> pd.DataFrame:
    """What a full grid of the workloads, labels, studies and trials at hand would have besides.

    Args:
        cells: rows of one board, in whatever state.

    Returns:
        ``workload, label, study, trial`` of the places without a row, sorted.
    """
    counts = cells[["study", "trial"]].drop_duplicates()
    full = cells[["workload"]].drop_duplicates().merge(cells[["label"]].drop_duplicates(), how="cross")
    full = full.merge(counts, how="cross")
    both = full.merge(cells[PLACE].drop_duplicates(), how="left", on=PLACE, indicator=True)
    return both.loc[both["_merge"] == "left_only", PLACE].sort_values(PLACE, ignore_index=True)


def ranges(numbers: list[int]) -> str:
    """``0,1,2`` as Hydra's sweeps are written."""
    return ",".join(map(str, sorted(set(numbers))))


def blocks(places: pd.DataFrame) -> list[tuple[list[int], list[int]]]:
    """Studies and trials of one workload and label as products: (studies, trials), each place once."""
    of_study = {study: tuple(sorted(own["trial"])) for study, own in places.groupby("study")}
    products: dict[tuple[int, ...], list[int]] = {}
    for study, trials in of_study.items():
        products.setdefault(trials, []).append(int(study))  # pyright: ignore[reportArgumentType]
    return [(studies, [int(trial) for trial in trials]) for trials, studies in products.items()]

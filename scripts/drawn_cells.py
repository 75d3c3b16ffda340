"""Cells and evaluations of a large experiment, drawn from a seed, for what times scoring and the report."""

from __future__ import annotations

import numpy as np
import pandas as pd

EVALUATIONS = 50  # of a cell
GRID = {"workload": 8, "study": 5, "trial": 5}  # 200 cells an algorithm
# What comparability looks at.
SAME = {
    "metric": "accuracy", "minimize": False, "target": 0.9, "targets": "v1", "budget": 50_000, "threads": 1,
    "device": "cpu", "hardware": "a CPU", "precision": "fp32", "data": "embedded", "data_checksum": "0",
    "ruleset": "external_tuning", "open_division": False, "provisional": False, "contended": False,
    "source": "0",
}  # fmt: skip


def evaluations(cells: int, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A table of cells and one of their evaluations, a tenth of the cells without a hit."""
    rng = np.random.default_rng(seed)
    place = np.arange(cells)
    keys: dict[str, np.ndarray] = {}
    for name, size in reversed(GRID.items()):
        keys[name], place = place % size, place // size
    speed = 0.5 + rng.random(cells) + 0.01 * (place % 97)
    hit = np.where(rng.random(cells) < 0.9, np.ceil(20 * speed * rng.lognormal(0, 0.1, cells)), np.inf)
    hit[hit >= EVALUATIONS] = np.inf
    index = np.tile(np.arange(EVALUATIONS), cells)
    evals = pd.DataFrame({"id": np.repeat(np.arange(cells), EVALUATIONS), "samples": (index + 1) * 1000.0})
    table = pd.DataFrame(
        {
            "workload": [f"workload{n}" for n in keys["workload"]],
            "label": [f"algorithm{n}" for n in place],
            "study": keys["study"],
            "trial": keys["trial"],
            "status": "done",
            "id": [f"cell{n}" for n in range(cells)],
            "samples_to_target": (hit + 1) * 1000.0,
            "eval_index_to_target": np.where(np.isfinite(hit), hit, np.nan),
            "samples": np.minimum(hit + 1, EVALUATIONS) * 1000.0,
            "best_metric": 0.9,
            **SAME,
        }
    )
    return table, evals

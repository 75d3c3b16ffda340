"""Runs as curves: of each study the run that tuning picks, and the median over studies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from runner.contract.records import FINISHED
from runner.report.material import numbers
from runner.stats.times import STUDY

KEPT = (*STUDY, "id", "status", "metric", "minimize", "target", "best_metric")
POINTS = 120  # of a curve, at most
QUARTER = 0.25  # of the studies that lie outside a band at either side, at most


@dataclass(frozen=True)
class Curve:
    """The median over studies, as a function of what was spent.

    Attributes:
        x: what was spent, in some unit.
        median, low, high: over the studies, of the measured quantity: low and high are the studies at or just
            outside the quartiles.
        studies: how many.
        time: median time to the target; infinite for a miss.
    """

    x: np.ndarray
    median: np.ndarray
    low: np.ndarray
    high: np.ndarray
    studies: int
    time: float


def picked(cells: pd.DataFrame, by: str) -> pd.DataFrame:
    """Of each study the run that tuning picks: the fastest that hit, else that with the best metric.

    Finished runs come first; of a study that has none, the one that is furthest on is taken.

    Args:
        cells: the ``cells`` table.
        by: the unit of the times.

    Returns:
        ``workload, label, study, id, status, metric, minimize, target`` and times, where they are known;
        ``time`` in the unit.
    """
    cells = cells.loc[:, [name for name in cells if name in KEPT or str(name).endswith("_to_target")]]
    time = _or_inf(numbers(cells, f"{by}_to_target"))
    sign = np.where(numbers(cells, "minimize") == 1, 1.0, -1.0)
    loss = _or_inf(sign * numbers(cells, "best_metric"))
    late = ~cells["status"].isin(list(FINISHED)).to_numpy()
    order = cells.assign(time=time, _loss=loss, _late=late)
    order = order.sort_values([*STUDY, "_late", "time", "_loss"], kind="stable")
    return order.drop_duplicates(STUDY).drop(columns=["_loss", "_late"])


class Runs:
    """Evaluations by cell, as arrays.

    Args:
        evals: the ``evals`` table, a cell's rows in order.
    """

    def __init__(self, evals: pd.DataFrame) -> None:
        self._columns = {str(name): place for place, name in enumerate(evals.columns)}
        self._evals = evals
        self._rows = evals.groupby("id", sort=False).indices if "id" in evals else {}
        self._arrays: dict[str, np.ndarray] = {}

    def has(self, column: str) -> bool:
        """Whether a column is there, and says anything."""
        return column in self._columns and bool(np.isfinite(self._array(column)).any())

    def of(self, cell: object, unit: str, column: str) -> tuple[np.ndarray, np.ndarray]:
        """What was spent and what was measured, where both are numbers."""
        rows = self._rows.get(cell, np.empty(0, dtype=int))
        x, y = self._array(unit)[rows], self._array(column)[rows]
        sound = np.isfinite(x) & np.isfinite(y)
        return x[sound], y[sound]

    def curve(
        self,
        cells: Sequence[object] | np.ndarray,
        times: np.ndarray,
        unit: str,
        column: str,
        points: int = POINTS,
    ) -> Curve | None:
        """The median of several runs.

        A run holds its last value once it has ended, so that the median meets the target where the median
        time to target is; the curve ends where more than half of the runs have.

        Args:
            cells: ids.
            times: their times to the target, in the unit.
            unit: of what was spent.
            column: what was measured.
            points: how many to keep.

        Returns:
            None where no run has a value.
        """
        runs = [run for run in (self.of(cell, unit, column) for cell in cells) if len(run[0])]
        if not runs:
            return None
        end = sorted(run[0][-1] for run in runs)[len(runs) // 2]
        start = max(run[0][0] for run in runs)
        time = float(np.median(_or_inf(times))) if len(times) else np.inf
        grid = _thinned(np.concatenate([run[0] for run in runs]), min(start, end), end, points, time)
        values = np.stack([y[np.searchsorted(x, grid, side="right").clip(1) - 1] for x, y in runs])
        values.sort(axis=0)
        outer = int((len(runs) - 1) * QUARTER)
        return Curve(grid, np.median(values, axis=0), values[outer], values[-1 - outer], len(runs), time)

    def _array(self, column: str) -> np.ndarray:
        if column not in self._arrays:
            self._arrays[column] = numbers(self._evals, column)
        return self._arrays[column]


def _or_inf(values: np.ndarray) -> np.ndarray:
    """The values, infinite where there is none (``nan_to_num`` would make infinite ones finite)."""
    return np.where(np.isnan(values), np.inf, values)


def _thinned(x: np.ndarray, start: float, end: float, points: int, keep: float) -> np.ndarray:
    """Places where something was measured, evenly thinned; the ends and ``keep`` stay."""
    grid = np.unique(x[(x >= start) & (x <= end)])
    if len(grid) > points:
        grid = grid[np.unique(np.linspace(0, len(grid) - 1, points).astype(int))]
    return np.union1d(grid, [keep]) if start <= keep <= end else grid

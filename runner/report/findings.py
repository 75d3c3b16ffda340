"""The statistics that a report shows, each made once, or the reason why there is none."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from runner.base.errors import UserError, one_line
from runner.boards.rules import Rules
from runner.stats import crossing, edges, one_setting, pairs, sensitivity, tuning
from runner.stats.axes import Axis, Spaces
from runner.stats.best_metric import expected_best
from runner.stats.importance import importance
from runner.stats.times import study_times

COMPARED = 12  # neighbours that are compared in full, and labels of the matrix


class Found(NamedTuple):
    """A table, or the reason why it is empty."""

    frame: pd.DataFrame
    reason: str = ""


def found(make: Callable[[], pd.DataFrame], empty: str) -> Found:
    """What ``make`` gives; its complaint, or ``empty``, where that is nothing."""
    try:
        frame = make()
    except UserError as error:
        return Found(pd.DataFrame(), one_line(str(error)))
    return Found(frame, "" if len(frame) else empty)


@dataclass
class Findings:
    """Of the cells of one board.

    Attributes:
        cells: all of them.
        evals: their evaluations.
        rules: of the board.
        order: labels, best first.
        spaces: label -> search space.
        overrides: label -> what makes the algorithm.
        experiment: its folder, for commands; None where nothing can be added to it.
    """

    cells: pd.DataFrame
    evals: pd.DataFrame
    rules: Rules
    order: Sequence[str]
    spaces: Spaces
    overrides: Mapping[str, Sequence[str]] = field(default_factory=dict)
    experiment: Path | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Unit, pick and level of comparisons."""
        return {"by": self.rules.by, "pick": self.rules.pick, "level": self.rules.level}

    @functools.cached_property
    def comparisons(self) -> list[pairs.Comparison]:
        """The first algorithms, each against the next one."""
        shown = list(self.order)[: COMPARED + 1]
        return [pairs.compare(self.cells, a, b, **self.options) for a, b in itertools.pairwise(shown)]

    @functools.cached_property
    def matrix(self) -> Found:
        """Every two of the first algorithms: ``a, b, ratio, p, pairs, separable``."""
        return found(self._matrix, "only one algorithm: nothing to compare it with")

    @functools.cached_property
    def certified(self) -> Found:
        """Where the mean over studies is past the target for good."""
        by, level = self.rules.by, self.rules.level
        make = functools.partial(crossing.certified, self.evals, self.cells, level, by)
        return found(make, "no finished cell has a target")

    @functools.cached_property
    def times(self) -> dict[str, dict[str, float]]:
        """Workload -> the times worth a tuning curve."""
        try:
            return tuning.marks(self.cells, self.rules.baseline, self.rules.by)
        except UserError:
            return {}

    @functools.cached_property
    def hits(self) -> Found:
        """The chance to hit after k trials."""
        by, level = self.rules.by, self.rules.level
        make = functools.partial(tuning.hit_probability, self.cells, self.times or None, None, by, level)
        return found(make, "no finished cell has a target")

    @functools.cached_property
    def cost(self) -> Found:
        """What the first hit costs."""
        make = functools.partial(tuning.tuning_cost, self.cells, self.rules.by, self.rules.level)
        return found(make, "no finished cell has a target")

    @functools.cached_property
    def best(self) -> Found:
        """The best metric after k trials, of runs that went to their end."""
        return found(functools.partial(expected_best, self.cells, None, self.rules.level), "no finished cell")

    @functools.cached_property
    def axes(self) -> dict[str, list[Axis]]:
        """Label -> the hyperparameters that its trials vary."""
        return sensitivity.map_axes(self.cells, self.spaces) if "trial" in self.cells else {}

    @functools.cached_property
    def regions(self) -> Found:
        """How wide the good settings reach."""
        make = functools.partial(
            sensitivity.good_region, self.cells, self.spaces, 2.0, self.rules.by, self.rules.level
        )
        return found(make, "only the defaults were run (trial 0): nothing was tuned")

    @functools.cached_property
    def importance(self) -> Found:
        """Which hyperparameters matter."""
        by, level = self.rules.by, self.rules.level
        make = functools.partial(importance, self.cells, self.spaces, by, level)
        return found(make, "only the defaults were run (trial 0): nothing was tuned")

    @functools.cached_property
    def edges(self) -> Found:
        """Searches that end where they should go on."""
        make = functools.partial(
            edges.edges, self.cells, self.spaces, self.rules.by, self.rules.level,
            experiment=self.experiment, origins=self.overrides or None,
        )  # fmt: skip
        return found(make, "no best trial lies on the border of what was searched")

    @functools.cached_property
    def one(self) -> Found:
        """One setting for all workloads."""
        make = functools.partial(one_setting.one_setting, self.cells, self.rules.by)
        return found(make, "only the defaults were run (trial 0): nothing was tuned")

    def map(self, label: str, x: str, y: str) -> Found:
        """Time to target over two hyperparameters of one algorithm."""
        rows = self.cells.loc[self.cells["label"] == label]
        make = functools.partial(sensitivity.sensitivity_map, rows, x, y, self.rules.by, label)
        return found(make, "no finished cell of it has a target")

    def _matrix(self) -> pd.DataFrame:
        shown = list(self.order)[:COMPARED]
        times = study_times(self.cells, self.rules.by, self.rules.pick)
        table, study = pairs.side_by_side(times, shown)
        shared = pairs.shares_points(self.cells)
        rows = []
        for (a, one), (b, other) in itertools.combinations(zip(shown, table, strict=True), 2):
            both = ~(np.isnan(one) | np.isnan(other))
            logs = pairs.log_ratios(one[both], other[both])
            finite = logs[np.isfinite(logs)]
            rows.append(
                {
                    "a": a, "b": b, "pairs": len(logs),
                    "ratio": float(np.exp(finite.mean())) if len(finite) else np.nan,
                    "p": pairs.p_of(logs, study[both] if shared else None),
                }
            )  # fmt: skip
        frame = pd.DataFrame(rows, columns=["a", "b", "pairs", "ratio", "p"])
        return frame.assign(separable=frame["p"] <= 1 - self.rules.level + 1e-12)

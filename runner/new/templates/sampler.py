"""One line on what the method does."""

from __future__ import annotations

from runner.contract.batch import Batch
from runner.contract.task import Task


class MyMethod:
    """SUMMARY.

    Paper: title (authors, year, arXiv id).
    Update: draw ``factor`` times the default batch.
    Defaults: factor 1 (ours).
    State: none.
    Cost: 1 forward, 1 backward.
    Pitfalls: none known.
    Deviations: none.
    """

    def __init__(self, factor: int = 1) -> None:
        if factor < 1:
            raise ValueError(f"factor must be at least 1, got {factor}")
        self.factor = factor

    def __call__(self, task: Task) -> Batch:
        """The next batch. Randomness comes from ``task.rng("a name")`` alone."""
        return task.data.next(self.factor * task.info.batch_size)

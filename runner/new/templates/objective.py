"""One line on what the method does."""

from __future__ import annotations

from torch import Tensor

from runner.contract.batch import Batch
from runner.contract.task import Task


class MyMethod:
    """SUMMARY.

    Paper: title (authors, year, arXiv id).
    Update: minimise the mean of ℓ + flood · ℓ², with ℓ the workload's own losses.
    Defaults: flood 0.1 (ours).
    State: none.
    Cost: 1 forward, 1 backward.
    Pitfalls: none known.
    Deviations: none.
    """

    batch_level = False  # True for an objective that returns one number for the whole batch

    def __init__(self, flood: float = 0.1) -> None:
        self.flood = flood

    def __call__(self, task: Task, batch: Batch) -> Tensor:
        """Per-example losses (B,); forward passes are made here, through ``task``."""
        losses = task.losses(batch)
        return losses + self.flood * losses.square()

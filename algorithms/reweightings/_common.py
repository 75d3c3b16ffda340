"""What reweightings by the place of a loss within its batch share."""

from __future__ import annotations

import torch
from torch import Tensor

from runner.contract.batch import Batch, Info
from runner.contract.task import Task

SPREAD = 1e-6  # least spread of the losses that counts as one


def place(losses: Tensor) -> Tensor:
    """Where each loss, (B,), lies in the batch's range: from −1, the smallest, to 1, the largest."""
    low, high = torch.aminmax(losses)
    return (2 * losses - (high + low)) / (high - low).clamp(min=SPREAD)


class ByPlace:
    """Softmax weights of a score of each loss's place, and plain means at the start.

    A subclass says how places become scores.

    Args:
        r: temperature, above 0; large ones give uniform weights.
        warmup: share of the budget with uniform weights, in [0, 1).

    Raises:
        ValueError: for an r not above zero or a warm-up outside [0, 1).
    """

    def __init__(self, r: float = 0.4, warmup: float = 0.05) -> None:
        if not r > 0:
            raise ValueError(f"r must be above 0, got {r}")
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup must lie in [0, 1), got {warmup}")
        self.r, self.warmup = r, warmup

    def cycle(self, info: Info) -> int:
        """One step of the warm-up, and those behind it."""
        return info.steps_to_see(self.warmup)

    def __call__(self, task: Task, batch: Batch, losses: Tensor) -> Tensor:
        """Weights, (B,), that sum to B, from the rows' losses, (B,)."""
        if task.progress < self.warmup:
            return torch.ones_like(losses)
        return len(losses) * torch.softmax(self.scores(place(losses)) / self.r, dim=0)

    def scores(self, h: Tensor) -> Tensor:
        """Of places ``h`` in [−1, 1], (B,)."""
        raise NotImplementedError

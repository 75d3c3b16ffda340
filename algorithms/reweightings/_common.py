"""What reweightings by the place of a loss within its batch share."""

from __future__ import annotations

import torch
from torch import Tensor

SPREAD = 1e-6  # least spread of the losses that counts as one


def place(losses: Tensor) -> Tensor:
    """Where each loss, (B,), lies in the batch's range: from −1, the smallest, to 1, the largest."""
    low, high = torch.aminmax(losses)
    return (2 * losses - (high + low)) / (high - low).clamp(min=SPREAD)


def softmax_weights(scores: Tensor, r: float) -> Tensor:
    """B · softmax(scores / r), (B,): weights that sum to B."""
    return len(scores) * torch.softmax(scores / r, dim=0)


def check(r: float, warmup: float) -> None:
    """Raise ValueError for a temperature not above zero or a warm-up outside [0, 1)."""
    if not r > 0:
        raise ValueError(f"r must be above 0, got {r}")
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup must lie in [0, 1), got {warmup}")

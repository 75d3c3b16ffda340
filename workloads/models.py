"""Small models shared by the workloads. Inputs lie in [0, 1]; the first module normalises."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Normalise(nn.Module):
    """(x − mean) / std with constants per feature or channel, broadcast from the front of a row.

    Args:
        mean: shape of a row, or (C, 1, 1) for images.
        std: same shape; zeros count as ones.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", torch.where(std > 0, std, torch.ones_like(std)))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised rows, (B, ...)."""
        return (x - self.mean) / self.std


class LinearBinary(nn.Module):
    """Logistic regression: one logit per row, (B,); weights and bias start at zero."""

    def __init__(self, normalise: Normalise, features: int) -> None:
        super().__init__()
        self.normalise = normalise
        self.linear = nn.Linear(features, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (B,)."""
        return self.linear(self.normalise(x)).squeeze(1)


class SmallCNN(nn.Module):
    """Two 3×3 convolutions and a linear layer for 8×8 grey images; logits (B, 10)."""

    def __init__(self, normalise: Normalise, width: int = 16) -> None:
        super().__init__()
        self.normalise = normalise
        self.conv1 = nn.Conv2d(1, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1, stride=2)
        self.head = nn.Linear(2 * width * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (B, 10)."""
        x = torch.relu(self.conv1(self.normalise(x)))
        x = torch.relu(self.conv2(x))
        return self.head(x.flatten(1))

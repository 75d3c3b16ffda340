"""One line on what the method does."""

from __future__ import annotations

import torch
from torch import nn

from runner.contract.task import Task


class MyMethod:
    """SUMMARY.

    Paper: title (authors, year, arXiv id).
    Update: initial weights of matrices and filters ← scale · initial weights.
    Defaults: scale 0.9 (ours).
    State: none.
    Cost: 1 forward, 1 backward.
    Pitfalls: changes what the model computes: open division.
    Deviations: none.
    """

    function_preserving = False  # True where only the backward pass changes

    def __init__(self, scale: float = 0.9) -> None:
        if not scale > 0:
            raise ValueError(f"scale must be above 0, got {scale}")
        self.scale = scale

    @torch.no_grad()
    def __call__(self, model: nn.Module, task: Task) -> nn.Module:
        """The model to train in place of ``model``."""
        for p in model.parameters():
            if p.ndim > 1:
                p.mul_(self.scale)
        return model

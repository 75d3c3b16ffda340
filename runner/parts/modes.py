"""Optimizers with modes, as schedule-free kinds from elsewhere: ``eval()`` puts the weights in place that
they want evaluated, ``train()`` those that they train.
"""

from __future__ import annotations

from typing import Any

from runner.contract.task import Task


def has_modes(optimizer: Any) -> bool:
    """Whether an optimizer, or its class, has both modes, and no ``swap_in`` that does the same here."""
    both = all(callable(getattr(optimizer, name, None)) for name in ("eval", "train"))
    return both and not hasattr(optimizer, "swap_in")


class Modes:
    """``swap_in`` and ``swap_out`` of such an optimizer, which is in training mode from here on."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer
        optimizer.train()

    def swap_in(self, task: Task) -> None:
        """Put the weights in place that are evaluated; before the first step those are the trained ones."""
        if task.cost.steps:
            self.optimizer.eval()

    def swap_out(self, task: Task) -> None:
        """Put the trained weights back."""
        if task.cost.steps:
            self.optimizer.train()

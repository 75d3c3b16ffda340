"""One line on what the method does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from runner.contract.algorithm import Algorithm
from runner.contract.batch import Info
from runner.contract.task import Task


class MyMethod(Algorithm):
    """SUMMARY.

    Paper: title (authors, year, arXiv id).
    Update: m ← β·m + g; x ← x − lr·m.
    Defaults: lr 0.05, momentum 0.9 (ours).
    State: 1 tensor per parameter (m).
    Cost: 1 forward, 1 backward.
    Pitfalls: none known.
    Deviations: none.
    """

    def __init__(self, lr: float = 0.05, momentum: float = 0.9) -> None:
        if not lr >= 0:
            raise ValueError(f"lr must be at least 0, got {lr}")
        self.lr, self.momentum = lr, momentum
        self.momenta: list[Tensor] = []

    def compatible(self, info: Info) -> str | None:
        """Why not on such a workload; None: it can."""
        return None

    def setup(self, task: Task) -> None:
        """Momenta start at zero."""
        self.momenta = [torch.zeros_like(p) for p in task.params]

    def step(self, task: Task) -> Tensor:
        """Draw rows, update the model, return the training loss."""
        for p in task.params:
            p.grad = None
        loss = task.backward(task.data.next())
        with torch.no_grad():
            grads = [p.grad for p in task.params if p.grad is not None]
            torch._foreach_mul_(self.momenta, self.momentum)
            torch._foreach_add_(self.momenta, grads)
            torch._foreach_add_(task.params, self.momenta, alpha=-self.lr)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The momenta."""
        return {"momenta": self.momenta}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        torch._foreach_copy_(self.momenta, state["momenta"])

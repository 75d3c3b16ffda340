"""One line on what the method does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from algorithms.optimizers._base import Blockwise
from algorithms.optimizers._common import ParamsT


class MyMethod(Blockwise):
    """SUMMARY.

    Paper: title (authors, year, arXiv id).
    Update: m ← β·m + g; x ← x − lr·m.
    Defaults: lr 0.05, momentum 0.9 (ours).
    State: 1 tensor per parameter (m).
    Cost: 1 forward, 1 backward.
    Pitfalls: none known.
    Deviations: none.
    """

    def __init__(self, params: ParamsT, lr: float = 0.05, momentum: float = 0.9) -> None:
        if not lr >= 0:
            raise ValueError(f"lr must be at least 0, got {lr}")
        super().__init__(params, {"lr": lr, "momentum": momentum})

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        momenta = [self.state[p]["momentum"] for p in params]
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_add_(momenta, grads)
        torch._foreach_add_(params, momenta, alpha=-group["lr"])

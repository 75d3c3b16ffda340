"""Lion: the sign of an interpolated momentum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from algorithms.optimizers._base import Blockwise
from algorithms.optimizers._common import ParamsT, decay_rates, non_negative


class Lion(Blockwise):
    """Lion: every weight moves by ±lr, the sign of an interpolation of momentum and gradient.

    Paper: Symbolic Discovery of Optimization Algorithms (Chen et al. 2023, arXiv 2302.06675, Algorithm 2).
    Update: u = sign(β₁·m + (1 − β₁)·g); x ← x − lr·(u + λ·x); then m ← β₂·m + (1 − β₂)·g. m starts at 0.
    Defaults: betas (0.9, 0.99), weight_decay 0 (authors' code, google/automl); lr 1e-3 (ours, for short runs;
        the authors' is 1e-4).
    State: 1 tensor per parameter (m).
    Cost: 1 forward, 1 backward.
    Pitfalls: the authors advise an lr 3-10× smaller and a weight decay 3-10× larger than AdamW's. The step
        does not shrink with the gradient, so the schedule has to. Small batches make sign noise. β₁ mixes
        the direction and β₂ the buffer: they are not to be swapped.
    Deviations: none.

    Args:
        params: parameters or parameter groups.
        lr: step size, in units of the weights.
        betas: decay rates of the direction (β₁) and of the buffer (β₂), in [0, 1).
        weight_decay: decoupled weight decay λ.

    Raises:
        ValueError: for a hyperparameter outside its range.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: Sequence[float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        non_negative(lr=lr, weight_decay=weight_decay)
        decay_rates(betas)
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        lr, (beta1, beta2), decay = group["lr"], group["betas"], group["weight_decay"]
        momenta = [self._momentum(p) for p in params]
        signs = torch._foreach_lerp(momenta, grads, 1 - beta1)
        torch._foreach_sign_(signs)
        if decay != 0:
            torch._foreach_mul_(params, 1 - lr * decay)
        torch._foreach_add_(params, signs, alpha=-lr)
        torch._foreach_lerp_(momenta, grads, 1 - beta2)

    def _momentum(self, p: Tensor) -> Tensor:
        state = self.state[p]
        if not state:
            state["exp_avg"] = torch.zeros_like(p)
        return state["exp_avg"]

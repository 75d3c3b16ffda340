"""diffGrad: Adam, slowed where the gradient stands still."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from algorithms.optimizers._base import Blockwise
from algorithms.optimizers._common import ParamsT, decay_rates, non_negative


class DiffGrad(Blockwise):
    """diffGrad: Adam's step, times a friction of ½ to 1 that falls where successive gradients are alike.

    Paper: diffGrad: An Optimization Method for Convolutional Neural Networks (Dubey et al. 2020, arXiv
        1909.11015; the identifier is from memory), and the authors' code (shivram1987/diffGrad).
    Update: g ← g + λ·x; m ← β₁·m + (1 − β₁)·g; v ← β₂·v + (1 − β₂)·g²; ξ = 1 / (1 + exp(−|g₋₁ − g|)), g₋₁ the
        gradient of the step before, at first 0; x ← x − lr·√(1 − β₂ᵗ) / (1 − β₁ᵗ) · ξ·m / (√v + ε).
    Defaults: betas (0.9, 0.999), eps 1e-8, weight_decay 0 (authors' code); lr 1e-2 (ours; theirs is 1e-3).
    State: 3 tensors per parameter (m, v, the last gradient) and a step count.
    Cost: 1 forward, 1 backward.
    Pitfalls: gradients are far below 1 as a rule, and ξ then is ½ everywhere: Adam at half the lr, which is
        the control to compare with. weight_decay is coupled: it enters the moments. ε is added to the root
        of the uncorrected v, so that early on it weighs more than Adam's.
    Deviations: none from the paper. The authors' first code kept the last gradient by reference, so that
        from the second step on it was compared with itself (ξ = ½); ``legacy_alias`` does the same.

    Args:
        params: parameters or parameter groups.
        lr: step size.
        betas: decay rates of the two moments, in [0, 1).
        eps: added to the root of the second moment.
        weight_decay: coupled weight decay λ.
        legacy_alias: compare each gradient but the first with itself.

    Raises:
        ValueError: for a hyperparameter outside its range.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-2,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        legacy_alias: bool = False,
    ) -> None:
        non_negative(lr=lr, eps=eps, weight_decay=weight_decay)
        decay_rates(betas)
        own = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, own | {"legacy_alias": legacy_alias})

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        beta1, beta2 = group["betas"]
        if group["weight_decay"] != 0:
            grads = list(torch._foreach_add(grads, params, alpha=group["weight_decay"]))
        states = [self._advance(p) for p in params]
        m, v, last = ([s[key] for s in states] for key in ("exp_avg", "exp_avg_sq", "last_grad"))
        torch._foreach_lerp_(m, grads, 1 - beta1)
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, grads, grads, 1 - beta2)
        if group["legacy_alias"]:
            last = [g if s["step"] > 1 else old for s, g, old in zip(states, grads, last, strict=True)]
            steps = list(torch._foreach_sub(last, grads))
        else:
            steps = last  # its memory; the gradients go there in the end
            torch._foreach_sub_(steps, grads)
        torch._foreach_abs_(steps)
        torch._foreach_sigmoid_(steps)
        torch._foreach_mul_(steps, m)
        scales = torch._foreach_sqrt(v)
        torch._foreach_add_(scales, group["eps"])
        factors = [-group["lr"] * _correction(s["step"], beta1, beta2) for s in states]
        torch._foreach_addcdiv_(params, steps, scales, factors)
        if not group["legacy_alias"]:
            torch._foreach_copy_(last, grads)

    def _advance(self, p: Tensor) -> dict[str, Any]:
        state = self.state[p]
        if not state:
            zeros = {key: torch.zeros_like(p) for key in ("exp_avg", "exp_avg_sq", "last_grad")}
            state |= {"step": 0} | zeros
        state["step"] += 1
        return state


def _correction(t: int, beta1: float, beta2: float) -> float:
    """Adam's correction of both moments' bias, in one factor."""
    return math.sqrt(1 - beta2**t) / (1 - beta1**t)

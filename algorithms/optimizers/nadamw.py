"""NadamW as AlgoPerf runs it: AdamW with Nesterov momentum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from algorithms.optimizers._base import Blockwise
from algorithms.optimizers._common import ParamsT, decay_rates, non_negative


class NadamW(Blockwise):
    """NadamW: AdamW whose direction looks one momentum step ahead.

    Paper: NAdam of Table 1 in Choi et al. 2019 (arXiv 1910.05446) with decoupled weight decay, as in the
        AlgoPerf baselines (Dahl et al. 2023, arXiv 2306.07179; mlcommons/algorithmic-efficiency).
    Update: x ← x·(1 − lr·λ); m ← β₁·m + (1 − β₁)·g; v ← β₂·v + (1 − β₂)·g²; m̃ = β₁·m + (1 − β₁)·g;
        x ← x − lr · (m̃ / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε).
    Defaults: betas (0.9, 0.999), eps 1e-8, weight_decay 1e-2 (AlgoPerf's class); lr 3e-3 (as our AdamW;
        AlgoPerf's is 1e-3).
    State: 2 tensors per parameter (m, v) and a step count.
    Cost: 1 forward, 1 backward.
    Pitfalls: torch.optim.NAdam(decoupled_weight_decay=True) is another method: it has a schedule of
        momentum. The first step is 1 + β₁ times as long as AdamW's.
    Deviations: none in the rule; m̃ lies in a tensor of its own, so that m is not rounded back and forth.

    Args:
        params: parameters or parameter groups.
        lr: step size.
        betas: decay rates of the two moments, in [0, 1).
        eps: added to the root of the second moment.
        weight_decay: decoupled weight decay λ.

    Raises:
        ValueError: for a hyperparameter outside its range.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 3e-3,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        non_negative(lr=lr, eps=eps, weight_decay=weight_decay)
        decay_rates(betas)
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        lr, (beta1, beta2), decay = group["lr"], group["betas"], group["weight_decay"]
        states = [self._advance(p) for p in params]
        m, v = [s["exp_avg"] for s in states], [s["exp_avg_sq"] for s in states]
        corrections = [math.sqrt(1 - beta2 ** s["step"]) for s in states]
        if decay != 0:
            torch._foreach_mul_(params, 1 - lr * decay)
        torch._foreach_lerp_(m, grads, 1 - beta1)
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, grads, grads, 1 - beta2)
        # √(v / c²) + ε = (√v + c·ε) / c: the division moves into the step size, and one pass is saved.
        scales = torch._foreach_sqrt(v)
        torch._foreach_add_(scales, [c * group["eps"] for c in corrections])
        steps = [-lr * c / (1 - beta1 ** s["step"]) for c, s in zip(corrections, states, strict=True)]
        torch._foreach_addcdiv_(params, torch._foreach_lerp(m, grads, 1 - beta1), scales, steps)

    def _advance(self, p: Tensor) -> dict[str, Any]:
        state = self.state[p]
        if not state:
            state |= {"step": 0, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        state["step"] += 1
        return state

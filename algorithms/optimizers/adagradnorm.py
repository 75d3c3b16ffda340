"""AdaGrad-Norm: one step size for all weights, from all gradients so far."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from algorithms.optimizers._common import Closure, ParamsT, evaluate, non_negative
from algorithms.optimizers._joint import Joint, Part, joined, norm


class AdaGradNorm(Joint):
    """AdaGrad-Norm: SGD whose step size falls with the root of the sum of all squared gradient norms.

    Paper: AdaGrad Stepsizes: Sharp Convergence over Nonconvex Landscapes (Ward et al. 2019; from memory);
        with a growing batch in AdAdaGrad: Adaptive Batch Size Schemes for Adaptive Gradient Methods (2024,
        arXiv 2402.11215).
    Update: g ← g + λ·x; S ← S + ‖g‖², over all parameters, at first b0²; x ← x − lr·g / √S.
    Defaults: lr 4, b0 0.1, weight_decay 0 (ours; the lr is the best of ½, 1, 2 and 4 on digits).
    State: one number.
    Cost: 1 forward, 1 backward.
    Pitfalls: S never falls: large gradients at the start make small steps for good. It replaces the schedule,
        so its preset has none.
    Deviations: none from the rule. The authors' class has one sum a row of a tensor, and a decay that follows
        the gradient; both are taken for oversights.

    Args:
        params: parameters or parameter groups.
        lr: step size, in units of the distance to travel.
        b0: root of what the sum of squares starts from; positive.
        weight_decay: coupled weight decay λ.

    Raises:
        ValueError: for a hyperparameter outside its range.
    """

    one_for_all = ("b0",)

    def __init__(self, params: ParamsT, lr: float = 4.0, b0: float = 0.1, weight_decay: float = 0.0) -> None:
        non_negative(lr=lr, weight_decay=weight_decay)
        if not b0 > 0:
            raise ValueError(f"b0 must be greater than 0, got {b0}")
        super().__init__(params, {"lr": lr, "b0": b0, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """Update every parameter that has a gradient; returns what ``closure`` gives."""
        loss = evaluate(closure)
        parts = [part.decayed() for part in self.parts()]
        if parts:
            self._update(parts)
        return loss

    def _update(self, parts: list[Part]) -> None:
        squares = norm(joined(part.grads for part in parts)) ** 2
        self.shared = {"squares": squares + self.shared.get("squares", self.common()["b0"] ** 2)}
        for group, params, grads in parts:
            factor = (-group["lr"] / self.shared["squares"].sqrt()).to(params[0].dtype)
            torch._foreach_add_(params, torch._foreach_mul(grads, factor))

    def step_size(self, group: dict[str, Any]) -> Tensor | float:
        """lr / √S, 0-d."""
        return group["lr"] / self.shared["squares"].sqrt() if self.shared else 0.0

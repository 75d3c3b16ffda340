"""MoMo-Adam: a step size from a model of the loss."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from algorithms.optimizers._common import Closure, ParamsT, decay_rates, evaluate, non_negative
from algorithms.optimizers._joint import Joint, Part, precise, vector


class MomoAdam(Joint):
    """MoMo-Adam: Adam's direction, as far as an averaged linear model of the loss falls to a lower bound.

    Paper: MoMo: Momentum Models for Adaptive Learning Rates (Schaipp et al. 2023, arXiv 2305.07583; title and
        identifier are from memory), as in the authors' code (MomoAdam).
    Update: m ← β₁·m + (1 − β₁)·g; v ← β₂·v + (1 − β₂)·g²; D = √(v / (1 − β₂ᵗ)) + ε; ρ = 1 − β₁ᵗ;
        f̄ ← β₁·f̄ + (1 − β₁)·f; γ̄ ← β₁·γ̄ + (1 − β₁)·⟨g, x⟩;
        τ = min(lr/ρ, max((1 + lr·λ)·(f̄ − ρ·f* − γ̄) + ⟨m, x⟩, 0) / ‖m‖²_{1/D});
        x ← (x − τ·m/D) / (1 + lr·λ). f is the loss of the batch; sums are over all parameters jointly.
    Defaults: lr 1e-2, betas (0.9, 0.999), eps 1e-8, lower_bound (f*) 0 (authors' code); weight_decay 1e-2
        (as our AdamW; the authors' is 0).
    State: 2 tensors per parameter (m, v), two numbers and a step count.
    Cost: 1 forward, 1 backward.
    Pitfalls: lr is an upper limit of the step size, and what a schedule scales. It wants the loss whose
        gradient it is (one of another point, a compressed or a clipped one is refused), and a lower bound of
        it: losses with a floor far above 0 (label smoothing, language) call for a higher lower_bound. A
        negative loss makes steps of 0.
    Deviations: the authors' online estimate of f* is left out. Groups with different λ, of which the authors'
        code has one, take ⟨m, x⟩ and ‖m‖² with a factor of 1 / (1 + lr·λ) each: the exact minimiser of the
        same model. Bias correction counts the optimizer's steps, not each parameter's.

    Args:
        params: parameters or parameter groups.
        lr: largest step size.
        betas: decay rates of the two moments, in [0, 1).
        eps: added to the root of the second moment.
        weight_decay: weight decay λ.
        lower_bound: f*, what the loss cannot fall below.

    Raises:
        ValueError: for a hyperparameter outside its range.
    """

    needs_loss = True
    one_for_all = ("betas", "lower_bound")

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-2,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        lower_bound: float = 0.0,
    ) -> None:
        non_negative(lr=lr, eps=eps, weight_decay=weight_decay)
        decay_rates(betas)
        if not math.isfinite(lower_bound):
            raise ValueError(f"lower_bound must be a number, got {lower_bound}")
        own = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, own | {"lower_bound": lower_bound})
        self._tau: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Closure | None = None, loss: Tensor | float | None = None) -> Any:
        """Update every parameter that has a gradient; returns what ``closure`` gives.

        Args:
            closure: gives the loss, where ``loss`` does not.
            loss: the loss whose gradient it is, 0-d, or a number.

        Raises:
            RuntimeError: without either.
        """
        given = evaluate(closure)
        value = given if loss is None else loss
        parts = self.parts()
        if parts and value is None:
            raise RuntimeError("MoMo needs the loss: step(loss=…), or a closure")
        if parts:
            self._update(parts, _wide(value, parts))
        return given

    def _update(self, parts: list[Part], loss: Tensor) -> None:
        shared = self.shared or {"step": 0, "loss": torch.zeros_like(loss), "slope": torch.zeros_like(loss)}
        t = shared["step"] + 1
        common = self.common()
        beta1, beta2 = common["betas"]
        root = math.sqrt(1 - beta2**t)
        slope, reach, square = (torch.zeros_like(loss) for _ in range(3))
        updates: list[list[Tensor]] = []
        for part in parts:
            m, u = self._direction(part, beta1, beta2, root)
            updates.append(u)
            x, momentum = vector(part.params), vector(m)
            slope = slope + torch.dot(vector(part.grads), x)
            reach = reach + torch.dot(momentum, x) / _shrink(part.group)
            square = square + torch.dot(momentum, vector(u)) * (root / _shrink(part.group))
        loss = torch.lerp(loss, shared["loss"], beta1)
        slope = torch.lerp(slope, shared["slope"], beta1)
        self.shared = {"step": t, "loss": loss, "slope": slope}
        gained = 1 - beta1**t
        excess = (loss - gained * common["lower_bound"] - slope + reach).clamp_min(0)
        self._tau = torch.where(square > 0, excess / square, 0.0)
        for part, u in zip(parts, updates, strict=True):
            tau = self._tau.clamp_max(part.group["lr"] / gained)
            torch._foreach_mul_(u, (tau * root).to(part.params[0].dtype))
            torch._foreach_sub_(part.params, u)
            if part.group["weight_decay"] != 0:
                torch._foreach_div_(part.params, _shrink(part.group))

    def _direction(
        self, part: Part, beta1: float, beta2: float, root: float
    ) -> tuple[list[Tensor], list[Tensor]]:
        """m and m/D/root: with D = (√v + root·ε) / root, the division moves into numbers."""
        for p in part.params:
            if not self.state[p]:
                self.state[p] = {key: torch.zeros_like(p) for key in ("exp_avg", "exp_avg_sq")}
        m, v = ([self.state[p][key] for p in part.params] for key in ("exp_avg", "exp_avg_sq"))
        torch._foreach_lerp_(m, part.grads, 1 - beta1)
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, part.grads, part.grads, 1 - beta2)
        scales = torch._foreach_sqrt(v)
        torch._foreach_add_(scales, root * part.group["eps"])
        return m, list(torch._foreach_div(m, scales))

    def step_size(self, group: dict[str, Any]) -> Tensor | float:
        """τ, 0-d."""
        if self._tau is None:
            return 0.0
        return self._tau.clamp_max(group["lr"] / (1 - group["betas"][0] ** self.shared["step"]))

    def report(self) -> dict[str, float]:
        """The last step size, before lr limits it."""
        return {} if self._tau is None else {"tau": float(self._tau)}


def _wide(loss: Any, parts: list[Part]) -> Tensor:
    """The loss, 0-d, as wide as the widest parameter, in float32 or better, where the parameters are."""
    given = torch.as_tensor(loss).detach()
    dtypes = {p.dtype for part in parts for p in part.params}
    return given.to(
        parts[0].params[0].device, functools.reduce(torch.promote_types, dtypes, precise(given).dtype)
    )


def _shrink(group: dict[str, Any]) -> float:
    return 1 + group["lr"] * group["weight_decay"]

"""Prodigy: Adam that estimates its own step size from the distance travelled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from algorithms.optimizers._base import plain
from algorithms.optimizers._common import Closure, ParamsT, cut, decay_rates, evaluate, non_negative
from algorithms.optimizers._joint import Joint, Part, inner, joined, precise, vector

KEYS = ("exp_avg", "exp_avg_sq", "s")


class Bunch(NamedTuple):
    """Parameters of one lr and one eps, their gradients, and x₀, m, v and s of each."""

    lr: float
    eps: float
    params: list[Tensor]
    grads: list[Tensor]
    states: list[list[Tensor]]


class Rule(NamedTuple):
    """The hyperparameters that all groups share, nulls filled in."""

    beta1: float
    beta2: float
    beta3: float
    d0: float
    d_coef: float
    growth: float
    bias_correction: bool
    safeguard: bool

    @classmethod
    def of(cls, group: dict[str, Any]) -> Rule:
        """From the values of a group."""
        beta1, beta2 = group["betas"]
        beta3 = math.sqrt(beta2) if group["beta3"] is None else group["beta3"]
        growth = math.inf if group["growth"] is None else group["growth"]
        flags = group["use_bias_correction"], group["safeguard_warmup"]
        return cls(beta1, beta2, beta3, group["d0"], group["d_coef"], growth, *flags)

    def correction(self, t: int) -> float:
        """Of the moments' bias at step ``t``."""
        return math.sqrt(1 - self.beta2**t) / (1 - self.beta1**t) if self.bias_correction else 1.0


class Prodigy(Joint):
    """Prodigy: Adam whose step size d is a growing lower bound of the distance from the start to a solution.

    Paper: Prodigy: An Expeditiously Adaptive Parameter-Free Learner (Mishchenko & Defazio 2023, arXiv
        2306.06101; title and identifier are from memory), as in the authors' code (prodigyopt 1.1.2).
    Update: λ = d·lr·b, b = √(1 − β₂ᵗ) / (1 − β₁ᵗ) with use_bias_correction, else 1;
        n ← β₃·n + (d/d₀)·λ·⟨g, x₀ − x⟩; m ← β₁·m + (1 − β₁)·d·g; v ← β₂·v + (1 − β₂)·d²·g²;
        s ← β₃·s + (d/d₀)·λ·g; d̂ = d_coef·n / ‖s‖₁; while d is d₀ it may jump to d̂; d_max ← max(d_max, d̂);
        d ← min(d_max, growth·d); x ← x − w·λ·x − λ·m / (√v + d·ε), λ that from before. Sums are over all
        parameters jointly.
    Defaults: lr 1, betas (0.9, 0.999), beta3 √β₂, eps 1e-8, d0 1e-6, d_coef 1, no limit of growth,
        no bias correction, no safeguard (authors' code); weight_decay 1e-2 (as our AdamW; the authors' is 0).
    State: 4 tensors per parameter (m, v, s, x₀), three numbers and a step count.
    Cost: 1 forward, 1 backward.
    Pitfalls: lr is a factor to leave at 1 for a schedule to work on; d_coef is what to tune. d never falls.
        Under warm-up safeguard_warmup keeps lr out of s, so that d does not grow too far. x₀ belongs to the
        state. Published defaults of step-size-free methods do badly in comparisons: tune decay and betas.
    Deviations: groups may have an lr of their own, which enters their λ; the authors' code wants one of
        all. As long as every gradient has been 0 it skips the step, here the weight decay goes on.

    Args:
        params: parameters or parameter groups.
        lr: factor of the step size.
        betas: decay rates of the two moments, in [0, 1).
        beta3: decay rate of n and s, in [0, 1); None for √β₂.
        eps: added to the root of the second moment, times d.
        weight_decay: decoupled weight decay w.
        d0: first estimate; positive.
        d_coef: factor of the estimate; positive.
        growth: largest factor by which d grows in a step, above 1; None for no limit.
        use_bias_correction: Adam's, in λ.
        safeguard_warmup: s takes d in place of λ.

    Raises:
        ValueError: for a hyperparameter outside its range.
    """

    one_for_all = ("betas", "beta3", "d0", "d_coef", "growth", "use_bias_correction", "safeguard_warmup")

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1.0,
        betas: Sequence[float] = (0.9, 0.999),
        beta3: float | None = None,
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        d0: float = 1e-6,
        d_coef: float = 1.0,
        growth: float | None = None,
        use_bias_correction: bool = False,
        safeguard_warmup: bool = False,
    ) -> None:
        non_negative(lr=lr, eps=eps, weight_decay=weight_decay)
        decay_rates(betas)
        if beta3 is not None and not 0 <= beta3 < 1:
            raise ValueError(f"beta3 must lie in [0, 1), got {beta3}")
        for name, value in {"d0": d0, "d_coef": d_coef}.items():
            if not value > 0:
                raise ValueError(f"{name} must be greater than 0, got {value}")
        if growth is not None and not growth > 1:
            raise ValueError(f"growth must be greater than 1, got {growth}")
        own = {"lr": lr, "betas": betas, "beta3": beta3, "eps": eps, "weight_decay": weight_decay, "d0": d0,
               "d_coef": d_coef, "growth": growth, "use_bias_correction": use_bias_correction,
               "safeguard_warmup": safeguard_warmup}  # fmt: skip
        super().__init__(params, own)

    def check(self, group: dict[str, Any]) -> None:
        """See :class:`Joint`; also float16, in which d² of the second moment is 0 and 1/d is infinite."""
        super().check(group)
        if any(p.dtype == torch.float16 for p in group["params"]):
            raise ValueError(
                "Prodigy is not for float16 parameters: their range is too small for d (try bfloat16)"
            )

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """Update every parameter that has a gradient; returns what ``closure`` gives."""
        loss = evaluate(closure)
        if parts := self.parts():
            self._update(parts, Rule.of(self.common()))
        return loss

    def _update(self, parts: list[Part], rule: Rule) -> None:
        shared = self._shared(parts[0].params[0], rule.d0)
        shared["step"] += 1
        factor = rule.correction(shared["step"])
        d, bunches = shared["d"], self._bunches(parts)
        rates = [d * (bunch.lr * factor) for bunch in bunches]  # λ of each
        numerator, size = rule.beta3 * shared["numerator"], torch.zeros_like(d)
        for bunch, rate in zip(bunches, rates, strict=True):
            numerator = numerator + d / rule.d0 * rate * _slope(bunch)
            size = size + _moments(bunch, rule, d, d if rule.safeguard else rate)
        hint = torch.where(size > 0, rule.d_coef * numerator / size, d)
        start = torch.where(d == rule.d0, torch.maximum(d, hint), d)
        best = torch.maximum(shared["d_max"], hint)
        new = torch.minimum(best, start * rule.growth)
        shared |= {"numerator": numerator, "d_max": best, "d": new}
        for part in parts:
            if (decay := part.group["weight_decay"]) != 0:
                kept = 1 - decay * (part.group["lr"] * factor) * d
                torch._foreach_mul_(part.params, kept.to(part.params[0].dtype))
        for bunch, rate in zip(bunches, rates, strict=True):
            _move(bunch, rate, new)

    def _bunches(self, parts: list[Part]) -> list[Bunch]:
        """The parts, those of the same lr and eps together: fewer and longer lists."""
        alike: dict[tuple[float, float], list[Part]] = {}
        for part in parts:
            alike.setdefault((part.group["lr"], part.group["eps"]), []).append(part)
        return [
            Bunch(lr, eps, *block, self._states(block[0]))
            for (lr, eps), of in alike.items()
            for block in cut(joined(part.params for part in of), joined(part.grads for part in of))
        ]

    def _states(self, params: list[Tensor]) -> list[list[Tensor]]:
        states = []
        for p in params:
            if not (state := self.state[p]):
                state |= {"start": p.detach().clone()} | {key: torch.zeros_like(p) for key in KEYS}
            states.append(state)
        return [[state[key] for state in states] for key in ("start", *KEYS)]

    def _shared(self, like: Tensor, d0: float) -> dict[str, Any]:
        if not self.shared:
            zero = precise(like.new_zeros(()))
            self.shared = {"step": 0, "numerator": zero, "d": zero + d0, "d_max": zero + d0}
        return self.shared

    def step_size(self, group: dict[str, Any]) -> Tensor | float:
        """d·lr·b, 0-d."""
        if not self.shared:
            return 0.0
        return self.shared["d"] * (
            plain(group)["lr"] * Rule.of(self.common()).correction(self.shared["step"])
        )

    def report(self) -> dict[str, float]:
        """The estimate d."""
        return {"d": float(self.shared["d"])} if self.shared else {}


def _moments(bunch: Bunch, rule: Rule, d: Tensor, rate: Tensor) -> Tensor:
    """Take the gradients in; ‖s‖₁."""
    _, m, v, s = bunch.states
    dtype = m[0].dtype
    scaled = torch._foreach_mul(bunch.grads, d.to(dtype))
    torch._foreach_lerp_(m, scaled, 1 - rule.beta1)
    torch._foreach_mul_(v, rule.beta2)
    torch._foreach_addcmul_(v, scaled, scaled, 1 - rule.beta2)
    # β₃·s + c·g in two passes rather than three: from s towards c / (1 − β₃)·g.
    torch._foreach_mul_(scaled, (rate / (rule.d0 * (1 - rule.beta3))).to(dtype))
    torch._foreach_lerp_(s, scaled, 1 - rule.beta3)
    return vector(s).abs().sum()  # several times as fast as norms on a CPU


def _slope(bunch: Bunch) -> Tensor:
    """⟨g, x₀ − x⟩."""
    return inner(bunch.grads, torch._foreach_sub(bunch.states[0], bunch.params))


def _move(bunch: Bunch, rate: Tensor, d: Tensor) -> None:
    _, m, v, _ = bunch.states
    dtype = m[0].dtype
    # λ·m / (√v + d·ε) = m / ((√v/d + ε)·d/λ): adding a number of the device's to a list would be a wait.
    scales = torch._foreach_sqrt(v)
    torch._foreach_mul_(scales, (1 / d).to(dtype))
    torch._foreach_add_(scales, bunch.eps)
    torch._foreach_mul_(scales, (d / rate).to(dtype))  # infinite where lr is 0: no step
    torch._foreach_addcdiv_(bunch.params, m, scales, value=-1)

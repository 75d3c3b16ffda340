"""Mechanic: learn the scale of an optimizer's updates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from algorithms.optimizers._common import Closure, evaluate, non_negative, with_grad
from algorithms.optimizers._joint import inner, norm
from algorithms.wrappers._base import Wrapped
from runner.parts.modes import has_modes


class Mechanic(Wrapped):
    """Mechanic: an online learner scales the displacement from the start that any optimizer proposes.

    Paper: Mechanic: A Learning Rate Tuner (Cutkosky, Defazio & Mehta 2023, arXiv 2306.00144).
    Update: with u the base optimizer's displacement at x, S = Σⱼ sⱼ and Δ the sum of all earlier u:
        h = ⟨Δ, g + λ·S·‖g‖/(‖x + u‖ + ε)·(x + u)⟩; Δ ← Δ + u; for each βⱼ of n: mⱼ ← max(βⱼ·mⱼ, |h|);
        vⱼ ← βⱼ²·vⱼ + h²; rⱼ ← max(βⱼ·rⱼ − sⱼ·h, 0); sⱼ ← (mⱼ·s_init/n + rⱼ) / (√vⱼ + ε); x ← x₀ + (Σⱼ sⱼ)·Δ.
        m starts at 1e-6, the rest at 0.
    Defaults: betas (0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999), s_init 1e-8, s_decay (λ) 0.01, eps 1e-8
        (authors' code, optimizedlearning/mechanic).
    State: 2 tensors per parameter (x₀, Δ) beside the base's, and 4 vectors of length n.
    Cost: 1 forward, 1 backward.
    Pitfalls: the scale multiplies the base's lr, whose schedule is still needed. x₀ belongs to the state:
        writing new weights into the model while training goes on is undone by the next step, unless
        ``rescale`` is told. An optimizer that evaluates other weights than it trains cannot be wrapped.
    Deviations: Δ is kept rather than recomputed as (x − x₀)/S (the authors' store_delta); parameters of
        float64 have a tuner in float64.

    Args:
        optimizer: the base optimizer; any lr that is not tiny.
        betas: discount factors of the tuners whose scales are added up, each in [0, 1).
        s_init: initial wealth, an underestimate of the scale; positive.
        s_decay: λ, a kind of weight decay in the tuner's loss.
        eps: added to denominators; positive.

    Raises:
        ValueError: for a hyperparameter outside its range, or a base that evaluates other weights than
            it trains.
    """

    settings = ("betas", "s_init", "s_decay", "eps")

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        betas: Sequence[float] = (0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999),
        s_init: float = 1e-8,
        s_decay: float = 0.01,
        eps: float = 1e-8,
    ) -> None:
        non_negative(s_decay=s_decay)
        if not betas or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be one or more numbers in [0, 1), got {betas}")
        for name, value in {"s_init": s_init, "eps": eps}.items():
            if not value > 0:
                raise ValueError(f"{name} must be greater than 0, got {value}")
        if hasattr(optimizer, "swap_in") or has_modes(optimizer):
            raise ValueError(f"optimizer must evaluate the weights it trains, got {type(optimizer).__name__}")
        super().__init__(optimizer)
        self.betas, self.s_init, self.s_decay, self.eps = tuple(betas), s_init, s_decay, eps

    @torch.no_grad()
    def step(self, closure: Closure | None = None, **given: Any) -> Any:
        """Let the base propose (it gets ``given``), then rescale; returns what ``closure`` gives."""
        loss = evaluate(closure)
        params, grads = with_grad({"params": self._params()}, "Mechanic")
        if loss is not None and getattr(self.base, "needs_loss", False):
            given.setdefault("loss", loss)
        if params:
            self._rescale(params, grads, given)
        return loss

    def _rescale(self, params: list[Tensor], grads: list[Tensor], given: dict[str, Any]) -> None:
        starts, deltas = self._memory(params)
        # Before the base steps, which may change .grad in place (torch's foreach SGD does).
        h, grad_norm = inner(deltas, grads), norm(grads)
        updates = torch._foreach_neg(params)
        self.base.step(**given)
        torch._foreach_add_(updates, params)
        scale = self._tuner(h)["s"].sum()
        h += self.s_decay * scale * grad_norm / (norm(params) + self.eps) * inner(deltas, params)
        torch._foreach_add_(deltas, updates)
        scaled = torch._foreach_mul(deltas, self._tune(h).to(params[0].dtype))
        torch._foreach_copy_(params, torch._foreach_add(starts, scaled))

    def step_size(self, group: dict[str, Any]) -> Tensor | float:
        """S times the base's, 0-d."""
        return self.shared["s"].sum() * super().step_size(group) if self.shared else 0.0

    @torch.no_grad()
    def rescale(self, params: Sequence[Tensor], factors: Sequence[Tensor]) -> None:
        """Follow ``params`` that were multiplied by ``factors``: x₀ and Δ with them."""
        super().rescale(params, factors)
        pairs = [(p, f) for p, f in zip(params, factors, strict=True) if p in self.state]
        for key in ("start", "delta"):
            torch._foreach_mul_([self.state[p][key] for p, _ in pairs], [f for _, f in pairs])

    def report(self) -> dict[str, float]:
        """The base's scalars, and the present scale S."""
        scalars: dict[str, float] = getattr(self.base, "report", dict)()
        return scalars | {"scale": float(self.shared["s"].sum()) if self.shared else 0.0}

    def _memory(self, params: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """x₀ and Δ of each parameter, in place."""
        for p in params:
            if not self.state[p]:
                self.state[p] = {"start": p.detach().clone(), "delta": torch.zeros_like(p)}
        return [self.state[p]["start"] for p in params], [self.state[p]["delta"] for p in params]

    def _tuner(self, like: Tensor) -> dict[str, Tensor]:
        if not self.shared:
            zeros = like.new_zeros(len(self.betas))
            self.shared = {"m": zeros + 1e-6, "v": zeros.clone(), "r": zeros.clone(), "s": zeros}
            self.shared["beta"] = like.new_tensor(self.betas)  # on the device
            self.shared["beta²"] = like.new_tensor([b**2 for b in self.betas])
        return self.shared

    def _tune(self, h: Tensor) -> Tensor:
        """One step of every tuner on the scalar ``h``; the new S, 0-d."""
        state = self.shared
        betas, squares = state["beta"], state["beta²"]
        state["m"] = torch.maximum(betas * state["m"], h.abs())
        state["v"] = squares * state["v"] + h * h
        state["r"] = (betas * state["r"] - state["s"] * h).clamp_min(0)
        wealth = state["m"] * (self.s_init / len(self.betas)) + state["r"]
        state["s"] = wealth / (state["v"].sqrt() + self.eps)
        return state["s"].sum()

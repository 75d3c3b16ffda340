"""DoG: the distance travelled over the gradients seen, as a step size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from algorithms.optimizers._common import Closure, ParamsT, evaluate, non_negative
from algorithms.optimizers._joint import Joint, Part, joined, norm


class DoG(Joint):
    """DoG: SGD whose step size is the largest distance from the start over the root of all squared gradients.

    Paper: DoG is SGD's Best Friend: A Parameter-Free Dynamic Step Size Schedule (Ivgi, Hinder & Carmon 2023,
        arXiv 2302.12022; title and identifier are from memory), as in the authors' code.
    Update: g ← g + λ·x; r ← max(r, ‖x − x₀‖), at first reps_rel·(1 + ‖x₀‖); G ← G + ‖g‖², at first eps;
        x ← x − lr·r / √G · g. Norms are over all parameters jointly.
    Defaults: lr 1, eps 1e-8, weight_decay 0 (authors' code); reps_rel 1e-4 (the authors' with batch norm;
        1e-6 without, for long runs).
    State: 1 tensor per parameter (x₀) and two numbers.
    Cost: 1 forward, 1 backward.
    Pitfalls: the last iterate is not the one to evaluate: the preset ``algorithm=dog`` has no schedule and
        the average ``polynomial``. lr is a factor to leave at 1. r grows by a factor at a time: from 1e-6 a
        short run spends much of itself on that. x₀ belongs to the state. weight_decay is coupled.
    Deviations: one r and one G for all parameters, as in the paper; the authors' code keeps a pair for each
        parameter group, of which the default composition has two (no_decay_1d). x₀ of a parameter is taken at
        its first gradient, and r starts from those that the first step has.

    Args:
        params: parameters or parameter groups.
        lr: factor of the step size.
        reps_rel: the first step's length, relative to 1 + ‖x₀‖; positive.
        eps: what the sum of squared gradients starts from; positive.
        weight_decay: coupled weight decay λ.

    Raises:
        ValueError: for a hyperparameter outside its range.
    """

    one_for_all = ("reps_rel", "eps")

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1.0,
        reps_rel: float = 1e-4,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        non_negative(lr=lr, weight_decay=weight_decay)
        for name, value in {"reps_rel": reps_rel, "eps": eps}.items():
            if not value > 0:
                raise ValueError(f"{name} must be greater than 0, got {value}")
        super().__init__(params, {"lr": lr, "reps_rel": reps_rel, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """Update every parameter that has a gradient; returns what ``closure`` gives."""
        loss = evaluate(closure)
        parts = [part.decayed() for part in self.parts()]
        if parts:
            self._update(parts, joined(p.params for p in parts), joined(p.grads for p in parts))
        return loss

    def _update(self, parts: list[Part], params: list[Tensor], grads: list[Tensor]) -> None:
        starts = [self._start(p) for p in params]
        if not self.shared:
            common = self.common()
            first = common["reps_rel"] * (1 + norm(starts))
            self.shared = {"radius": first, "squares": torch.full_like(first, common["eps"])}
        distance = norm(torch._foreach_sub(params, starts))
        self.shared["radius"] = torch.maximum(self.shared["radius"], distance)
        self.shared["squares"] = self.shared["squares"] + norm(grads) ** 2
        size = self.shared["radius"] / self.shared["squares"].sqrt()
        for group, of_group, of_grads in parts:
            factor = (-group["lr"] * size).to(of_group[0].dtype)
            torch._foreach_add_(of_group, torch._foreach_mul(of_grads, factor))

    def step_size(self, group: dict[str, Any]) -> Tensor | float:
        """lr·r / √G, 0-d."""
        if not self.shared:
            return 0.0
        return group["lr"] * self.shared["radius"] / self.shared["squares"].sqrt()

    def report(self) -> dict[str, float]:
        """The distance r."""
        return {"radius": float(self.shared["radius"])} if self.shared else {}

    def _start(self, p: Tensor) -> Tensor:
        state = self.state[p]
        if not state:
            state["start"] = p.detach().clone()
        return state["start"]

"""The gradient at the worst point nearby."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from runner.contract.batch import Batch
from runner.contract.batch_norm import batch_norms, frozen_statistics
from runner.contract.task import Task


class SAM:
    """Sharpness-aware minimisation: climb to the edge of a ball of radius ρ, take the gradient there.

    Paper: Foret et al. 2021 (arXiv 2010.01412, Algorithm 1); code and ``adaptive`` after davda54/sam.
    Update: e = ρ g / (‖g‖ + 1e-12), the norm over all parameters jointly; the optimizer gets ∇L(w + e) at
        w. Adaptive: e = ρ w² g / (‖|w| g‖ + 1e-12).
    Defaults: rho 0.05 (paper, CIFAR-10; 0.1 for CIFAR-100); adaptive false; davda54 has rho 2 with it.
    State: one copy of the weights while a step lasts.
    Cost: 2 forward, 2 backward.
    Pitfalls: twice the cost a step. Dropout draws another mask in the second pass. Small batches matter:
        the climb follows the gradient of the batch.
    Deviations: none. Batch-norm statistics move in the first pass alone, and a reweighting's weights are
        those of the first pass, as in the code. The loss handed on is that of the first pass.

    Args:
        rho: radius, at least 0.
        adaptive: measure the ball in units of each weight's size.

    Raises:
        ValueError: for a negative rho.
    """

    changes_gradient: ClassVar[bool] = True

    def __init__(self, rho: float = 0.05, adaptive: bool = False) -> None:
        if not rho >= 0:
            raise ValueError(f"rho must be at least 0, got {rho}")
        self.rho, self.adaptive = rho, adaptive

    def setup(self, task: Task) -> None:
        """Find the modules whose statistics the second pass must leave alone."""
        self._norms = batch_norms(task.model)

    def __call__(self, task: Task, batch: Batch) -> Tensor:
        """Fill ``.grad`` with the gradient at w + e, leave w bit for bit; returns the loss at w, 0-d."""
        loss = task.backward(batch)
        params: list[Tensor] = [p for p in task.params if p.grad is not None]
        saved = self._climb(params)
        with frozen_statistics(self._norms):
            task.backward(batch)
        with torch.no_grad():
            torch._foreach_copy_(params, saved)
        return loss

    @torch.no_grad()
    def _climb(self, params: list[Tensor]) -> list[Tensor]:
        """Add e to the parameters and clear their gradients; returns copies of what they were.

        Adding e and subtracting it again would not give w back bit for bit, so the weights are copied:
        a pass over memory that is small beside a forward and a backward pass.
        """
        steps = [p.grad for p in params if p.grad is not None]  # overwritten: these gradients are used up
        for p in params:
            p.grad = None
        self._scale(params, steps)
        saved = [p.clone() for p in params]
        torch._foreach_add_(params, steps)
        return saved

    def _scale(self, params: list[Tensor], grads: list[Tensor]) -> None:
        """From gradients to e, in place."""
        if self.adaptive:
            torch._foreach_mul_(grads, params)  # the norm of |w| g is that of w g
        torch._foreach_mul_(grads, self.rho / (joint_norm(grads) + 1e-12))
        if self.adaptive:
            torch._foreach_mul_(grads, params)


def joint_norm(tensors: list[Tensor]) -> Tensor:
    """The Euclidean norm of all entries together, 0-d, without waiting for the device."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors)))

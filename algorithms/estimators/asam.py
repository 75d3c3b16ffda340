"""SAM in a ball that scales with the weights."""

from __future__ import annotations

import torch
from torch import Tensor

from algorithms.estimators.sam import SAM, joint_norm
from runner.contract.task import Task


class ASAM(SAM):
    """Adaptive SAM as its authors wrote it: weights are measured by their size, biases are not.

    Paper: Kwon et al. 2021 (arXiv 2102.11600, Algorithm 1), and the authors' code (SamsungLabs/ASAM).
    Update: T = |w| + η for parameters whose name contains ``weight``, 1 for the others;
        e = ρ T² g / (‖T g‖ + 1e-16), the norm over all parameters jointly; the gradient at w + e.
    Defaults: rho 0.5, eta 0.01 (authors' code; rho 1 for CIFAR-100, and its CIFAR script sets eta 0).
    State: one copy of the weights, and one of T, while a step lasts.
    Cost: 2 forward, 2 backward.
    Pitfalls: as SAM. Weights of zero hardly move the ball: zero-initialised layers get η alone.
    Deviations: none.

    Args:
        rho: radius, at least 0.
        eta: added to |w|, at least 0.

    Raises:
        ValueError: for a negative rho or eta.
    """

    def __init__(self, rho: float = 0.5, eta: float = 0.01) -> None:
        super().__init__(rho)
        if not eta >= 0:
            raise ValueError(f"eta must be at least 0, got {eta}")
        self.eta = eta

    def setup(self, task: Task) -> None:
        """See :meth:`SAM.setup`; also find the parameters that are called weights."""
        super().setup(task)
        self._weights = {id(p) for name, p in task.model.named_parameters() if "weight" in name}

    def _scale(self, params: list[Tensor], grads: list[Tensor]) -> None:
        pairs = [(p, g) for p, g in zip(params, grads, strict=True) if id(p) in self._weights]
        sizes = torch._foreach_abs([p for p, _ in pairs]) if pairs else []
        weight_grads = [g for _, g in pairs]
        if pairs:
            torch._foreach_add_(sizes, self.eta)
            torch._foreach_mul_(weight_grads, sizes)
        torch._foreach_mul_(grads, self.rho / (joint_norm(grads) + 1e-16))
        if pairs:
            torch._foreach_mul_(weight_grads, sizes)

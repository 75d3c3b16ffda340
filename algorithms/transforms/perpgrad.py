"""Gradients at right angles to the weights."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

TINY = 1e-30  # keeps divisions by the norm of zero weights or gradients at zero


class PerpGrad:
    """⊥Grad: remove from each tensor's gradient its component along the weights.

    Paper: Grokking at the Edge of Numerical Stability (Prieto et al. 2025, arXiv 2501.04697), and the
        authors' code.
    Update: per tensor, g⊥ = g − (⟨w, g⟩ / ⟨w, w⟩)·w; then g ← g⊥ · ‖g‖ / ‖g⊥‖.
    Defaults: rescale true (authors' code; the paper's rule is the projection alone).
    State: none.
    Cost: 1 forward, 1 backward.
    Pitfalls: the point is to stop weights from growing along themselves once the data are fitted: a model
        that has to grow its logits does so by way of other directions only. Weight decay brings the
        radial component back: the authors train without. Rescaling magnifies rounding errors where a
        gradient is almost parallel to its weights.
    Deviations: tensors of one element are left alone: the projection would leave nothing of their gradient.

    Args:
        rescale: whether the projected gradient gets back the norm of the gradient.
    """

    changes_gradient: ClassVar[bool] = True

    def __init__(self, rescale: bool = True) -> None:
        self.rescale = rescale

    @torch.no_grad()
    def __call__(self, params: list[Tensor], grads: list[Tensor]) -> None:
        """Project ``grads`` in place."""
        pairs = [(p, g) for p, g in zip(params, grads, strict=True) if p.numel() > 1]
        if not pairs:
            return
        weights, slopes = [p for p, _ in pairs], [g for _, g in pairs]
        before = torch._foreach_norm(slopes)
        shares = [torch.sum(w * g) / (torch.sum(w * w) + TINY) for w, g in pairs]
        torch._foreach_sub_(slopes, torch._foreach_mul(weights, shares))
        if self.rescale:
            after = torch._foreach_norm(slopes)
            torch._foreach_mul_(slopes, [b / (a + TINY) for b, a in zip(before, after, strict=True)])

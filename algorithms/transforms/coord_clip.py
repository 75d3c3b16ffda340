"""Clip the largest coordinates of the gradient."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor


class CoordClip:
    """Clip a share of all coordinates, the largest ones, at the magnitude of the next one below.

    Paper: Pan & Li 2023, Toward Understanding Why Adam Converges Faster Than SGD (arXiv 2306.00204), and
        the authors' code.
    Update: τ = the (⌊kN⌋ + 1)-th largest |g| of all parameters together; g ← sign(g) · min(|g|, τ).
    Defaults: fraction k = 0.1 (authors' code for SGD; 0.5 for Adam and Adafactor).
    State: none.
    Cost: 1 forward, 1 backward.
    Pitfalls: one threshold for all layers is the point of the method, so it reads the whole gradient
        (linear time, one copy of it) each step.
    Deviations: fractions whose ⌊kN⌋ reaches N are refused (the code then sets all gradients to zero). As a
        transform it comes before both moments of Adam; the authors' Adam takes the second moment from the
        gradient before clipping.

    Args:
        fraction: share k of the coordinates to clip, in [0, 1); 0 clips none.

    Raises:
        ValueError: for a fraction outside [0, 1).
    """

    changes_gradient: ClassVar[bool] = True

    def __init__(self, fraction: float = 0.1) -> None:
        if not 0 <= fraction < 1:
            raise ValueError(f"fraction must lie in [0, 1), got {fraction}")
        self.fraction = fraction

    @torch.no_grad()
    def __call__(self, params: list[Tensor], grads: list[Tensor]) -> None:
        """Clip ``grads`` in place."""
        if not grads:
            return
        everything = torch.cat([g.flatten() for g in grads])
        clipped = int(self.fraction * everything.numel())
        if clipped == 0:
            return
        # The smallest of the clipped + 1 largest. topk, not kthvalue: it has a deterministic CUDA kernel.
        threshold = everything.abs().topk(clipped + 1, sorted=False).values.min()
        everything.clamp_(-threshold, threshold)
        pieces = everything.split([g.numel() for g in grads])
        torch._foreach_copy_(grads, [piece.view_as(g) for piece, g in zip(pieces, grads, strict=True)])

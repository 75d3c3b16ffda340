"""One line on what the method does."""

from __future__ import annotations

import torch
from torch import Tensor


class MyMethod:
    """SUMMARY.

    Paper: title (authors, year, arXiv id).
    Update: g ← g · min(1, limit / ‖g‖), the norm over all parameters jointly.
    Defaults: limit 1 (ours).
    State: none.
    Cost: 1 forward, 1 backward.
    Pitfalls: none known.
    Deviations: none.
    """

    def __init__(self, limit: float = 1.0) -> None:
        if not limit > 0:
            raise ValueError(f"limit must be above 0, got {limit}")
        self.limit = limit

    def __call__(self, params: list[Tensor], grads: list[Tensor]) -> None:
        """Change ``grads`` in place, without waiting for the device."""
        norm = torch.stack(torch._foreach_norm(grads)).norm()
        torch._foreach_mul_(grads, (self.limit / (norm + 1e-12)).clamp(max=1.0))

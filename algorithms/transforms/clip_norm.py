"""Clip the norm of the whole gradient."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

EPS = 1e-6  # as torch.nn.utils.clip_grad_norm_


class ClipNorm:
    """Scale the gradient down, all parameters together, where its norm exceeds ``max_norm``.

    Paper: On the difficulty of training recurrent neural networks (Pascanu, Mikolov & Bengio 2013,
        arXiv 1211.5063, Algorithm 1); the numbers are those of torch.nn.utils.clip_grad_norm_.
    Update: g ← g · min(1, max_norm / (‖g‖₂ + 1e-6)), ‖g‖₂ over all parameters.
    Defaults: max_norm 1 (usual for language models; ours).
    State: none.
    Cost: 1 forward, 1 backward.
    Pitfalls: before Adam, a constant factor on every gradient changes nothing: where all steps are clipped,
        only the differences between their norms are taken away. One NaN coordinate makes the
        whole gradient NaN; an infinite one becomes NaN itself and all others 0.
    Deviations: none.

    Args:
        max_norm: largest norm of the gradient, above 0.

    Raises:
        ValueError: for a max_norm that is not above 0.
    """

    changes_gradient: ClassVar[bool] = True

    def __init__(self, max_norm: float = 1.0) -> None:
        if not max_norm > 0:
            raise ValueError(f"max_norm must be above 0, got {max_norm}")
        self.max_norm = max_norm
        self._norm: Tensor | None = None

    @torch.no_grad()
    def __call__(self, params: list[Tensor], grads: list[Tensor]) -> None:
        """Scale ``grads`` in place."""
        if not grads:
            return
        self._norm = get_total_norm(grads)
        # Multiplying by a clamped 1 rather than asking whether to clip: an answer would be a wait.
        torch._foreach_mul_(grads, (self.max_norm / (self._norm + EPS)).clamp(max=1.0))

    def report(self) -> dict[str, float]:
        """Norm of the last gradient before clipping."""
        return {} if self._norm is None else {"norm": float(self._norm)}

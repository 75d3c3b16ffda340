"""Cross-entropy of a softmax whose exponential is replaced by a function of polynomial growth."""

from __future__ import annotations

import torch
from torch import Tensor


class StableMaxCE:
    """Cross-entropy of StableMax: s(z) = z + 1 above zero and 1 / (1 − z) below take the place of exp.

    Paper: Grokking at the Edge of Numerical Stability (Prieto et al. 2025, arXiv 2501.04697), and the
        authors' code.
    Update: p_k = s(z_k) / Σ_j s(z_j); ℓ = −log p_y, by way of log s(z) = ± log(1 + |z|).
    Defaults: float64 true (authors' code).
    State: none.
    Cost: 1 forward, 1 backward.
    Pitfalls: probabilities grow like the logits, not exponentially: early progress is slower than with
        softmax, and losses are not comparable to its. Not invariant to a shift of the logits. Where a network
        also decays its weights there is little to win.
    Deviations: none in value: the code computes s and its 1 / (1 − z + 1e-30) itself, which gives NaN
        gradients at z = 1. Evaluations see log s(z) as logits, so that their loss is that of StableMax's
        probabilities; which class is largest does not change.

    Args:
        float64: whether to compute in double precision; false is as good but for the last digits.
    """

    def __init__(self, float64: bool = True) -> None:
        self.dtype = torch.float64 if float64 else torch.float32

    def predict(self, logits: Tensor) -> Tensor:
        """log s(z), (N, C): logits of which the softmax is StableMax."""
        return log_s(logits.to(self.dtype)).to(logits.dtype)

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Per-entry losses, (N,), in nats, of logits (N, C) and class ids (N,)."""
        scores = log_s(logits.to(self.dtype))
        own = scores.gather(1, targets.unsqueeze(1)).squeeze(1)
        return (torch.logsumexp(scores, 1) - own).to(logits.dtype)


def log_s(z: Tensor) -> Tensor:
    """log(1 + z) for z ≥ 0, −log(1 − z) below; its slope at 0 is 1."""
    # The clamps keep the branch that is not taken, and its gradient, finite.
    return torch.where(z >= 0, torch.log1p(z.clamp(min=0)), -torch.log1p(-z.clamp(max=0)))

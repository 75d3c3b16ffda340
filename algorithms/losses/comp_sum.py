"""The comp-sum family of losses: cross-entropy and its relatives, by one exponent."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LOGISTIC = 1e-6  # |τ − 1| below which the loss is the cross-entropy
LEAST = -30.0  # log-probability below which the losses of τ < 1, which grow like exp, are flat


class CompSum:
    """Comp-sum losses: Φ_τ of the sum of exponentiated margins; τ = 1 is the cross-entropy.

    Paper: Cross-Entropy Loss Functions: Theoretical Analysis and Applications (Mao, Mohri & Zhong 2023,
        arXiv 2304.07288); how it parameterises Φ_τ is from memory.
    Update: u = Σ_{k≠y} exp(z_k − z_y) = 1/p_y − 1; Φ_τ(u) = ((1 + u)^(1−τ) − 1) / (1 − τ), Φ₁ = log(1 + u);
        so ℓ = (1 − p_y^(τ−1)) / (τ − 1). τ = 0 is the sum-exponential loss, 1 the logistic one, τ = 1 + q in
        (1, 2) the generalised cross-entropy of exponent q (often 0.7), 2 the mean absolute error 1 − p_y.
    Defaults: tau 1.
    State: none.
    Cost: 1 forward, 1 backward.
    Pitfalls: the gradient is p_y^(τ−1) · (p − 1_y): below 1 hard rows dominate, above 1 they fade (which is
        robust to wrong labels). At τ = 2 and with many classes there is nearly no gradient at the start. The
        scale of the gradient changes with τ: tune the learning rate for each.
    Deviations: below τ = 1 a row with log p_y < −30 has no gradient, where its loss would overflow.

    Args:
        tau: τ, at least 0.

    Raises:
        ValueError: for a negative τ.
    """

    def __init__(self, tau: float = 1.0) -> None:
        if not tau >= 0:
            raise ValueError(f"tau must be at least 0, got {tau}")
        self.tau = tau

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Per-entry losses, (N,), of logits (N, C) and class ids (N,)."""
        surprise = F.cross_entropy(logits, targets, reduction="none")
        q = self.tau - 1
        if abs(q) < LOGISTIC:
            return surprise
        if q < 0:
            surprise = surprise.clamp(max=-LEAST)
        return torch.expm1(-q * surprise) / -q

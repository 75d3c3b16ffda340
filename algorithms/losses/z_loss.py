"""The Z-loss: a softplus of the true class's standardised score."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from runner.contract.batch import Info

TINY = 1e-12  # keeps the slope of the root finite where all scores are the same


class ZLoss:
    """Softplus of how far the true class's score, standardised over the classes, falls short of b.

    Paper: The Z-loss: a shift and scale invariant classification loss belonging to the Spherical Family
        (de Brébisson & Vincent 2016, arXiv 1604.08859), and the authors' timing example, which is a = 1 and
        b = 0. Not the penalty on log² Z of the same name.
    Update: μ, σ mean and (population) standard deviation of the C scores of a row; ζ = (z_y − μ) / σ;
        ℓ = softplus(a (b − ζ)) / a.
    Defaults: a 1, b 0 (authors' example).
    State: none.
    Cost: 1 forward, 1 backward.
    Pitfalls: the scores' scale is free, so the norm of the last layer drifts: decay it. ζ ≤ √(C − 1): a b
        beyond that is out of reach. Scores are no log-odds: a cross-entropy or a perplexity of them means
        nothing.
    Deviations: σ = √(variance + 1e-12), where the example adds 1e-12 to σ: finite slopes at equal scores.

    Args:
        a: sharpness, above 0.
        b: the standardised score that is aimed at.

    Raises:
        ValueError: for an a not above zero, or a b that is no number.
    """

    def __init__(self, a: float = 1.0, b: float = 0.0) -> None:
        if not a > 0:
            raise ValueError(f"a must be above 0, got {a}")
        if not abs(b) < float("inf"):
            raise ValueError(f"b must be a finite number, got {b}")
        self.a, self.b = a, b

    def compatible(self, info: Info) -> str | None:
        """Two classes have nothing to standardise."""
        if info.num_classes > 2:
            return None
        return "with two classes a standardised score is 1 or −1 whatever the logits: there is no gradient"

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Per-entry losses, (N,), of logits (N, C) and class ids (N,)."""
        centred = logits - logits.mean(1, keepdim=True)
        scale = torch.rsqrt(centred.square().mean(1) + TINY)
        score = centred.gather(1, targets.unsqueeze(1)).squeeze(1) * scale
        return -F.logsigmoid(self.a * (score - self.b)) / self.a

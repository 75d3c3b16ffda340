"""Cross-entropy against smoothed labels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


class LabelSmoothing:
    """Cross-entropy against (1 − ε) one-hot + ε / C: the true class has its share of the uniform part.

    Paper: Szegedy et al. 2016, Rethinking the Inception Architecture (arXiv 1512.00567, §7).
    Update: ℓ = −(1 − ε) log p_y − (ε / C) Σₖ log pₖ.
    Defaults: smoothing ε = 0.1 (paper).
    State: none.
    Cost: 1 forward, 1 backward.
    Pitfalls: the training loss has a floor above zero, and the model is less confident on purpose: a target
        on the validation cross-entropy is harder to reach. Codes that spread ε over the C − 1 other
        classes give other numbers.
    Deviations: none.
    """

    def __init__(self, smoothing: float = 0.1) -> None:
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing must lie in [0, 1), got {smoothing}")
        self.smoothing = smoothing

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Per-entry losses, (N,), in nats, of logits (N, C) and class ids (N,)."""
        return F.cross_entropy(logits, targets, reduction="none", label_smoothing=self.smoothing)

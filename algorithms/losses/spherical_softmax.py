"""Cross-entropy of a softmax with a square in place of the exponential."""

from __future__ import annotations

import torch
from torch import Tensor

from runner.contract.batch import Info


class SphericalSoftmax:
    """Cross-entropy of the spherical softmax: z² + ε takes the place of exp(z).

    Paper: An Exploration of Softmax Alternatives Belonging to the Spherical Loss Family (de Brébisson &
        Vincent 2016, arXiv 1511.05042).
    Update: q_k = (z_k² + ε) / Σ_j (z_j² + ε); ℓ = −log q_y.
    Defaults: eps 1e-3 (ours; the paper tunes it).
    State: none.
    Cost: 1 forward, 1 backward.
    Pitfalls: the sign of a logit is irrelevant: the likeliest class is that of the largest |z|, so
        evaluations see log(z² + ε) as logits. There is no gradient at z = 0: a head that starts at zero stays
        there. A known loss against softmax on language models.
    Deviations: none.

    Args:
        eps: ε, above 0.

    Raises:
        ValueError: for an ε not above zero.
    """

    def __init__(self, eps: float = 1e-3) -> None:
        if not eps > 0:
            raise ValueError(f"eps must be above 0, got {eps}")
        self.eps = eps

    def compatible(self, info: Info) -> str | None:
        """One logit has no second square to lose against."""
        if info.task == "binary":
            return "of a binary task's scores [0, s] the square of the second is never the smaller one"
        return None

    def predict(self, logits: Tensor) -> Tensor:
        """log(z² + ε), (N, C): logits of which the softmax is the spherical softmax."""
        return torch.log(logits.square() + self.eps)

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Per-entry losses, (N,), in nats, of logits (N, C) and class ids (N,)."""
        squares = logits.square() + self.eps
        own = squares.gather(1, targets.unsqueeze(1)).squeeze(1)
        return torch.log(squares.sum(1)) - torch.log(own)

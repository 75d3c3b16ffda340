"""Cross-entropy of a softmax with a parabola in place of the exponential."""

from __future__ import annotations

import torch
from torch import Tensor


class TaylorSoftmax:
    """Cross-entropy of the Taylor softmax: 1 + z + z²/2 takes the place of exp(z).

    Paper: An Exploration of Softmax Alternatives Belonging to the Spherical Loss Family (de Brébisson &
        Vincent 2016, arXiv 1511.05042).
    Update: t(z) = 1 + z + z²/2; q_k = t(z_k) / Σ_j t(z_j); ℓ = −log q_y.
    Defaults: none.
    State: none.
    Cost: 1 forward, 1 backward.
    Pitfalls: t has its minimum, ½, at z = −1 and grows on both sides: the likeliest class is not that of the
        largest z, so evaluations see log t(z) as logits. Not invariant to a shift of the logits. On one logit
        the second class never falls below ⅓. A known loss against softmax on language models.
    Deviations: none.
    """

    def predict(self, logits: Tensor) -> Tensor:
        """log t(z), (N, C): logits of which the softmax is the Taylor softmax."""
        return torch.log(numerator(logits))

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Per-entry losses, (N,), in nats, of logits (N, C) and class ids (N,)."""
        t = numerator(logits)
        return torch.log(t.sum(1)) - torch.log(t.gather(1, targets.unsqueeze(1)).squeeze(1))


def numerator(z: Tensor) -> Tensor:
    """1 + z + z²/2, which is at least ½."""
    return torch.addcmul(torch.full_like(z, 0.5), z + 1, z + 1, value=0.5)

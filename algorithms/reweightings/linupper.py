"""Weights that fade the rows with small losses out."""

from __future__ import annotations

from torch import Tensor

from algorithms.reweightings._common import ByPlace


class LinUpper(ByPlace):
    """Softmax weights that grow with the loss up to the middle of the batch's range, and are flat above.

    Paper: Sow et al. 2025, Dynamic Loss-Based Sample Reweighting (ICLR 2025), and the authors' code.
    Update: h = (2ℓ − (max ℓ + min ℓ)) / (max ℓ − min ℓ); w = B · softmax(min(h + 1, 1) / r).
    Defaults: r 0.4, and plain means for the first 5 % of training (authors' GPT-2 code: 1,000 of 20,000
        steps).
    State: none.
    Cost: 1 forward, 1 backward.
    Pitfalls: one corrupt row sets the range: it then gets the top weight and all others the least. The
        range is that of a whole batch, also where this comes in pieces. A row of a
        language model is weighed as a whole. The logged training loss is the weighted one.
    Deviations: weights are scaled to sum to B rather than 1, so that uniform weights are ones.

    Args:
        r: temperature, above 0; large ones give uniform weights.
        warmup: share of the budget with uniform weights, in [0, 1).

    Raises:
        ValueError: for an r not above zero or a warm-up outside [0, 1).
    """

    def scores(self, h: Tensor) -> Tensor:
        """See :class:`ByPlace`."""
        return (h + 1).clamp(max=1)

"""EF21: compressed differences to a running estimate of the gradient."""

from __future__ import annotations

from torch import Tensor

from algorithms.estimators._workers import FirstInFull


class EF21(FirstInFull):
    """EF21: workers send the compressed difference between their gradient and what the server has of it.

    Paper: EF21: A New, Simpler, Theoretically Better, and Practically Faster Error Feedback (Richtárik,
        Sokolov & Fatkhullin 2021, arXiv 2106.05203; from memory).
    Update: worker i, with gradient gᵢ of its share of the batch: hᵢ ← hᵢ + C(gᵢ − hᵢ). The server steps along
        the mean of hᵢ. C keeps k of d coordinates. h starts at the first gradient.
    Defaults: workers 10, ratio 0.1, top_k (ours).
    State: 1 number per weight and worker (h).
    Cost: 1 forward, 1 backward.
    Pitfalls: as ``econtrol``, which is this with η = 0. Stochastic gradients leave noise in h that is never
        averaged.
    Deviations: as ``econtrol``.

    Args:
        workers: how many; each takes an equal share of a batch.
        ratio: k / d, in (0, 1]; 1 sends all.
        compressor: ``top_k``, or ``rand_k``, random coordinates, unscaled.
        init_compressed: start h at zero, without a first message in full.

    Raises:
        ValueError: for a value outside its range.
    """

    keeps = ("h",)

    def exchange(self, grads: Tensor) -> Tensor:
        """See :class:`Workers`."""
        h = self.memory["h"]
        if not self.starts(grads):
            h.add_(self.compress(grads - h))
        return h.mean(0)

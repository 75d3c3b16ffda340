"""EControl: compressed gradients with a controlled feedback of the error."""

from __future__ import annotations

from torch import Tensor

from algorithms.estimators._workers import FirstInFull


class EControl(FirstInFull):
    """EControl: workers send the compressed difference to a running estimate, with a share η of their error.

    Paper: EControl: Fast Distributed Optimization with Compression and Error Control (2023, arXiv
        2311.05645); the formulas were read in another implementation than the authors'.
    Update: worker i, with gradient gᵢ of its share of the batch: Δᵢ = C(η·eᵢ + gᵢ − hᵢ);
        eᵢ ← eᵢ + gᵢ − hᵢ − Δᵢ; hᵢ ← hᵢ + Δᵢ. The server steps along the mean of hᵢ. C keeps k of d
        coordinates. e starts at 0, h at the first gradient.
    Defaults: eta 1e-3 (that implementation; theory η = ratio/400), workers 10, ratio 0.1, top_k.
    State: 2 numbers per weight and worker (e, h).
    Cost: 1 forward, 1 backward.
    Pitfalls: memory is workers × 2 copies of the weights. The workers take turns on one device: a step is as
        many small passes. With rows drawn at random the workers are alike, which error feedback stands;
        ``sampler=label_shards`` makes them differ. Compare at equal bytes (cost/bytes_sent) and equal steps.
    Deviations: k is of the whole gradient, not of each tensor. Momentum, which the paper has not, is the
        server's optimizer's. Batch-norm statistics are of all workers, one behind the other. A reweighting
        weighs the whole batch, at the price of a forward pass more; what that takes is not counted as sent.

    Args:
        workers: how many; each takes an equal share of a batch.
        ratio: k / d, in (0, 1]; 1 sends all.
        compressor: ``top_k``, or ``rand_k``, random coordinates, unscaled.
        eta: η, the share of the error that is fed back, at least 0; 0 is EF21.
        init_compressed: start h at zero, without a first message in full.

    Raises:
        ValueError: for a value outside its range.
    """

    keeps = ("e", "h")

    def __init__(
        self,
        workers: int = 10,
        ratio: float = 0.1,
        compressor: str = "top_k",
        eta: float = 1e-3,
        init_compressed: bool = False,
    ) -> None:
        super().__init__(workers, ratio, compressor, init_compressed)
        if not eta >= 0:
            raise ValueError(f"eta must be at least 0, got {eta}")
        self.eta = eta

    def exchange(self, grads: Tensor) -> Tensor:
        """See :class:`Workers`."""
        e, h = self.memory["e"], self.memory["h"]
        if not self.starts(grads):
            gap = grads - h
            sent = self.compress(gap.add(e, alpha=self.eta))
            e.add_(gap).sub_(sent)
            h.add_(sent)
        return h.mean(0)

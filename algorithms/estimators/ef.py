"""Error feedback: what compression leaves out is sent later."""

from __future__ import annotations

from torch import Tensor

from algorithms.estimators._workers import Workers


class EF(Workers):
    """Error feedback: workers send their compressed gradient, with all that earlier messages left out.

    Paper: 1-Bit Stochastic Gradient Descent (Seide et al. 2014) and Sparsified SGD with Memory (Stich,
        Cordonnier & Jaggi 2018, arXiv 1809.07599), from memory; the standard form, lr outside.
    Update: worker i, with gradient gᵢ of its share of the batch: Δᵢ = C(eᵢ + gᵢ); eᵢ ← eᵢ + gᵢ − Δᵢ. The
        server steps along the mean of Δᵢ. C keeps k of d coordinates. e starts at 0.
    Defaults: workers 10, ratio 0.1, top_k (ours).
    State: 1 number per weight and worker (e).
    Cost: 1 forward, 1 backward.
    Pitfalls: where the workers' rows differ (``sampler=label_shards``) it stalls at a distance from the
        optimum that the step size sets. Under a schedule, errors of large steps are sent at small ones.
    Deviations: as ``econtrol``. ratio 1 is distributed SGD without compression.

    Args:
        workers: how many; each takes an equal share of a batch.
        ratio: k / d, in (0, 1]; 1 sends all.
        compressor: ``top_k``, or ``rand_k``, random coordinates, unscaled.

    Raises:
        ValueError: for a value outside its range.
    """

    keeps = ("e",)

    def exchange(self, grads: Tensor) -> Tensor:
        """See :class:`Workers`."""
        e = self.memory["e"]
        e.add_(grads)
        sent = self.compress(e)
        e.sub_(sent)
        return sent.mean(0)

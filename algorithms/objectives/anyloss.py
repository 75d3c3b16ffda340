"""A differentiable confusion matrix: train on the metric itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from runner.contract.batch import Batch, Info
from runner.contract.task import Task

TINY = 1e-12  # keeps the slope of a square root finite at zero


class AnyLoss:
    """1 − metric over the batch, with predictions pushed towards 0 and 1 by a steep sigmoid.

    Paper: Han et al. 2024, AnyLoss (arXiv 2405.14745), and the authors' extension code.
    Update: p = σ(s); a = σ(L (p − ½)); TP = Σ t a, TN = Σ (1 − t)(1 − a), P = Σ t, N = B − P;
        accuracy (TP + TN) / B, f_beta (1 + β²) TP / (β² P + Σ a), gmean √(TP · TN / (P N)),
        balanced (N TP + P TN) / (2 P N); the loss is one minus that.
    Defaults: L 10 (ours), eps 1e-5 in the denominators (authors' extension code), measure accuracy, beta 1,
        gmean_sqrt true (paper). The paper's experiments have L 73: p then moves a only where
        |p − ½| < 0.07, so rows that start outside learn nothing. The extension code tunes L in [2, 70].
    State: none.
    Cost: 1 forward, 1 backward.
    Pitfalls: the loss of a batch is no mean over rows: large batches, no accumulation over pieces. It is
        flat once saturated, and scores stop being calibrated probabilities.
    Deviations: a batch that holds one class only falls back to binary cross-entropy, as all but accuracy
        are undefined there. The root is taken of its argument + 1e-12.

    Args:
        measure: ``accuracy``, ``f_beta``, ``gmean`` or ``balanced``.
        L: steepness of the amplifier.
        beta: weight of recall against precision in ``f_beta``.
        gmean_sqrt: false leaves the root of ``gmean`` out, as the extension code does.
        eps: added to denominators.

    Raises:
        ValueError: for an unknown measure, L or beta not above zero, or a negative eps.
    """

    batch_level: ClassVar[bool] = True

    def __init__(
        self,
        measure: str = "accuracy",
        L: float = 10.0,
        beta: float = 1.0,
        gmean_sqrt: bool = True,
        eps: float = 1e-5,
    ) -> None:
        measures: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "accuracy": self._accuracy,
            "f_beta": self._f_beta,
            "gmean": self._gmean,
            "balanced": self._balanced,
        }
        if measure not in measures:
            raise ValueError(f"measure must be one of {', '.join(measures)}, got {measure}")
        if not L > 0:
            raise ValueError(f"L must be above 0, got {L}")
        if not beta > 0:
            raise ValueError(f"beta must be above 0, got {beta}")
        if not eps >= 0:
            raise ValueError(f"eps must be at least 0, got {eps}")
        self.measure = measures[measure]
        self.L, self.beta, self.gmean_sqrt, self.eps = L, beta, gmean_sqrt, eps

    def compatible(self, info: Info) -> str | None:
        """Needs one logit per row."""
        return (
            None
            if info.task == "binary"
            else f"needs a binary task (one logit per row), this one is {info.task}"
        )

    def __call__(self, task: Task, batch: Batch) -> Tensor:
        """The batch's loss, 0-d, in [0, 1]; cross-entropy in nats for a batch of one class."""
        logits = task.outputs(batch)
        targets = batch.y.to(logits.dtype)
        positives = targets.sum()
        both = (positives > 0) & (positives < len(batch))
        # A made-up pair of classes keeps the branch that is not taken, and its gradient, finite.
        safe = torch.where(both, targets, torch.arange(len(batch), device=targets.device) % 2)
        loss = 1 - self.measure(torch.sigmoid(self.L * (torch.sigmoid(logits) - 0.5)), safe)
        return torch.where(both, loss, F.binary_cross_entropy_with_logits(logits, targets))

    def _accuracy(self, a: Tensor, t: Tensor) -> Tensor:
        return (t * a + (1 - t) * (1 - a)).mean()

    def _f_beta(self, a: Tensor, t: Tensor) -> Tensor:
        square = self.beta**2
        return (1 + square) * (t * a).sum() / (square * t.sum() + a.sum() + self.eps)

    def _gmean(self, a: Tensor, t: Tensor) -> Tensor:
        tp, tn, p, n = _confusion(a, t)
        product = tp * tn / (p * n + self.eps)
        return (product + TINY).sqrt() if self.gmean_sqrt else product

    def _balanced(self, a: Tensor, t: Tensor) -> Tensor:
        tp, tn, p, n = _confusion(a, t)
        return (n * tp + p * tn) / (2 * p * n + self.eps)


def _confusion(a: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Soft true positives and true negatives, and the counts of positives and negatives; all 0-d."""
    return (t * a).sum(), ((1 - t) * (1 - a)).sum(), t.sum(), (1 - t).sum()

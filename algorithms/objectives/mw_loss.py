"""The Mann-Whitney loss: cross-entropy of score differences, over all pairs of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from algorithms.objectives._common import cross_entropy, logits_of
from runner.contract.batch import Batch, Info
from runner.contract.kinds import NO_CLASSES
from runner.contract.task import Task

SCORES = ("margin", "plain")
PAIRS = 1 << 22  # pairs whose losses exist at a time, unless one row alone has more


class MWLoss:
    """MW: rank every positive of the batch above every negative, as the area under the ROC curve counts it.

    Paper: Optimizing What Matters: AUC-Driven Learning for Robust Neural Retrieval (2025, arXiv 2510.00137).
        The abstract gives the form; the normalisation by |P||N| is from memory.
    Update: ℓ = 1 / (|P||N|) · Σ_{i∈P} Σ_{j∈N} softplus(−(s_i − s_j) / T) over the batch's positives P and
        negatives N; 1 − AUC ≤ ℓ / log 2. On several classes, ours: the mean over the classes c of that with
        P = {y = c} and s = z_c − log Σ_{k≠c} exp(z_k) (margin) or s = z_c (plain).
    Defaults: temperature 1 (for logits; the paper's own not known), score margin (ours), bce_weight 0.
    State: 1 number (batches without a pair).
    Cost: 1 forward, 1 backward.
    Pitfalls: invariant to a common shift of the scores: on one logit the bias is not learned, which an
        accuracy at 0 and a cross-entropy see. bce_weight adds that share of the cross-entropy. The loss of a
        batch is no mean over rows: large batches, no accumulation over pieces. Every pair is looked at, B² C
        of them, in blocks whose losses autograd keeps.
    Deviations: none on one logit. A batch without a pair of some class has loss 0 there, and no gradient;
        ``report()`` counts batches without any.

    Args:
        temperature: T, above 0.
        score: ``margin`` or ``plain``; of several classes.
        bce_weight: weight of the mean cross-entropy that is added, at least 0.

    Raises:
        ValueError: for a value outside its range.
    """

    batch_level: ClassVar[bool] = True

    def __init__(self, temperature: float = 1.0, score: str = "margin", bce_weight: float = 0.0) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        if score not in SCORES:
            raise ValueError(f"score must be one of {', '.join(SCORES)}, got {score}")
        if not bce_weight >= 0:
            raise ValueError(f"bce_weight must be at least 0, got {bce_weight}")
        self.temperature, self.score, self.bce_weight = temperature, score, bce_weight

    def compatible(self, info: Info) -> str | None:
        """Needs one label per row."""
        if info.task == "regression":
            return f"ranks rows by their labels; {NO_CLASSES}"
        return "ranks rows by their labels; a row of tokens has none" if info.task == "lm" else None

    def setup(self, task: Task) -> None:
        """Count from nothing."""
        self.skipped = torch.zeros((), device=task.data.x.device)

    def __call__(self, task: Task, batch: Batch) -> Tensor:
        """The batch's loss, 0-d."""
        outputs = task.outputs(batch)
        scores, positive = self._scores(outputs), self._positive(outputs, batch)
        losses, found = pairwise(scores / self.temperature, positive)
        self.skipped += 1 - found.amax().to(self.skipped.dtype)
        loss = losses.sum() / found.sum().clamp(min=1)
        if self.bce_weight:
            loss = loss + self.bce_weight * cross_entropy(task, outputs, batch).mean()
        return loss

    def report(self) -> dict[str, float]:
        """Batches so far that had no pair to rank."""
        return {"skipped": self.skipped.item()}

    def state_dict(self) -> dict[str, Any]:
        """The number of batches without a pair."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.skipped.copy_(state["skipped"])

    def _scores(self, outputs: Tensor) -> Tensor:
        """Scores of each row for each question, (B, K): K = 1 on one logit, else the classes."""
        if outputs.dim() == 1:
            return outputs.unsqueeze(1)
        logits = logits_of(outputs)
        return logits - log_of_others(logits) if self.score == "margin" else logits

    def _positive(self, outputs: Tensor, batch: Batch) -> Tensor:
        if outputs.dim() == 1:
            return (batch.y > 0.5).unsqueeze(1)
        return batch.y.unsqueeze(1) == torch.arange(outputs.shape[1], device=batch.y.device)


def pairwise(scores: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of softplus(s_j − s_i) over positives i and negatives j, for each column of ``scores``, (B, K).

    Returns:
        The means, (K,), 0 where there is no pair, and whether there was one, (K,).
    """
    rows, columns = scores.shape
    own, other = positive.to(scores.dtype), (~positive).to(scores.dtype)
    total = scores.new_zeros(columns)
    step = max(1, PAIRS // (rows * columns))
    for start in range(0, rows, step):
        block = slice(start, start + step)
        losses = F.softplus(scores.unsqueeze(0) - scores[block].unsqueeze(1))  # (block, B, K)
        total = total + torch.einsum("ik,ijk,jk->k", own[block], losses, other)
    pairs = own.sum(0) * other.sum(0)
    return total / pairs.clamp(min=1), pairs > 0


def log_of_others(logits: Tensor) -> Tensor:
    """log Σ_{k≠c} exp(z_k) for every class c, (B, C)."""
    same = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
    return torch.logsumexp(logits.unsqueeze(1).masked_fill(same, float("-inf")), 2)

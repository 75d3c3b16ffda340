"""What objectives that own their logits share: one shape for every kind of task, and distillation."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from runner.contract.batch import Batch
from runner.contract.kinds import two_logits
from runner.contract.task import Task


def logits_of(outputs: Tensor) -> Tensor:
    """Model outputs, (B,), (B, C) or (B, T, V), as logits of entries, (N, C), in single precision or better.

    One logit s becomes the pair [0, s].
    """
    outputs = outputs if outputs.dtype.itemsize > 4 else outputs.float()
    return two_logits(outputs) if outputs.dim() == 1 else outputs.flatten(0, -2)


def per_row(entries: Tensor, batch: Batch) -> Tensor:
    """Values of entries, (N,), as means over the entries of each row, (B,)."""
    return entries if entries.shape[0] == len(batch) else entries.view(len(batch), -1).mean(1)


def cross_entropy(task: Task, outputs: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of each row, (B,), in nats."""
    return task.kind.rows(outputs, batch.y, None)


def divergence(target: Tensor, logits: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(softmax(target / T) ‖ softmax(logits / T)) of each entry, (N,), from two logits, (N, C)."""
    given, own = F.log_softmax(target / temperature, 1), F.log_softmax(logits / temperature, 1)
    return (given.exp() * (given - own)).sum(1)

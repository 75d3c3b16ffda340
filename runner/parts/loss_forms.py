"""In which form a loss is called: what takes the place of logits and of class ids."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

INPUTS = ("logits", "log_probabilities", "probabilities")
TARGETS = ("as_is", "float", "one_hot", "signs")
WORDS = {"inputs": INPUTS, "targets": TARGETS}
ONE_LOGIT = (
    "float",
    "signs",
)  # targets with which a binary task has its one logit per row, (N,), for outputs


@dataclass(frozen=True)
class Form:
    """A word of :data:`INPUTS` and one of :data:`TARGETS`."""

    inputs: str
    targets: str

    def __str__(self) -> str:
        return f"inputs: {self.inputs}, targets: {self.targets}"


AS_OURS = Form("logits", "as_is")


@dataclass(frozen=True)
class Call:
    """A loss and how it is called.

    Attributes:
        loss: takes outputs and targets; gives a number for a batch, or numbers for each of its rows.
        form: what it is called with.
        binary: whether logits are those of a binary task, [0, s].
        by_row: whether it is called with one row at a time.
        summed: whether the numbers of a row are added up rather than averaged.
    """

    loss: Callable[[Tensor, Tensor], Any]
    form: Form = AS_OURS
    binary: bool = False
    by_row: bool = False
    summed: bool = False

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Losses, (N,), of logits (N, C) and class ids (N,), or of numbers (N,) and numbers (N,)."""
        if not targets.is_floating_point():
            outputs, targets = self.inputs(outputs), self.targets(targets, outputs)
        found = torch.vmap(self._of_one)(outputs, targets) if self.by_row else self.loss(outputs, targets)
        if found.dim() < 2:
            return found
        return found.flatten(1).sum(1) if self.summed else found.flatten(1).mean(1)

    def inputs(self, logits: Tensor) -> Tensor:
        """What takes the place of logits (N, C): of the same shape, or (N,) where it is the one logit."""
        word = self.form.inputs
        if self.binary and self.form.targets in ONE_LOGIT:
            s = logits[:, 1]
            if word == "logits":
                return s
            return F.logsigmoid(s) if word == "log_probabilities" else s.sigmoid()
        if word == "logits":
            return logits
        return logits.log_softmax(1) if word == "log_probabilities" else logits.softmax(1)

    def targets(self, ids: Tensor, logits: Tensor) -> Tensor:
        """What takes the place of class ids (N,): floats (N,) or (N, C), 1 for the class and 0 or −1 else."""
        word = self.form.targets
        if word == "as_is":
            return ids
        if word == "one_hot" or (word == "signs" and not self.binary):
            # Not F.one_hot, which reads its input to check it.
            ids = ids.unsqueeze(1) == torch.arange(logits.shape[1], device=ids.device)
        numbers = ids.to(logits.dtype)
        return 2 * numbers - 1 if word == "signs" else numbers

    @property
    def name(self) -> str:
        """The loss's own."""
        loss = self.loss.func if isinstance(self.loss, functools.partial) else self.loss
        return getattr(loss, "__name__", type(loss).__name__)

    def _of_one(self, outputs: Tensor, target: Tensor) -> Tensor:
        return self.loss(outputs.unsqueeze(0), target.unsqueeze(0))

"""What differs between binary, multiclass, language-modelling and regression tasks, in one place.

A loss plugin sees one shape on every task with classes: logits (N, C) in float32 and targets (N,) int64; on
a regression two times numbers, (N,) float32. A kind translates a model's outputs to that shape and per-entry
losses back to per-row losses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

LossFn = Callable[[Tensor, Tensor], Tensor]


class Kind(Protocol):
    """The translation for one kind of task."""

    def rows(self, outputs: Tensor, y: Tensor, loss: LossFn | None) -> Tensor:
        """Per-row losses, (B,); ``loss`` None means the kind's own, cross-entropy or squared error."""
        ...

    def mean(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The mean of the kind's own loss, fused: the fast path of an unweighted step; a scalar."""
        ...

    def predict(self, outputs: Tensor, predict: LossPredict) -> Tensor:
        """``outputs`` after a loss's parameter-free ``predict``, same shape."""
        ...

    def noise_targets(self, like: Tensor, num_classes: int, generator: torch.Generator) -> Tensor:
        """Random targets of the shape and type of ``like``, for warm-up."""
        ...


LossPredict = Callable[[Tensor], Tensor]


class Multiclass:
    """Outputs (B, C), targets (B,)."""

    def rows(self, outputs: Tensor, y: Tensor, loss: LossFn | None) -> Tensor:
        """See :class:`Kind`."""
        if loss is None:
            return F.cross_entropy(outputs, y, reduction="none")
        return loss(outputs.float(), y)

    def mean(self, outputs: Tensor, y: Tensor) -> Tensor:
        """See :class:`Kind`."""
        return F.cross_entropy(outputs, y)

    def predict(self, outputs: Tensor, predict: LossPredict) -> Tensor:
        """See :class:`Kind`."""
        return predict(outputs.float())

    def noise_targets(self, like: Tensor, num_classes: int, generator: torch.Generator) -> Tensor:
        """See :class:`Kind`."""
        return _random_ids(like, num_classes, generator)


class Binary:
    """Outputs (B,): one logit s a row, targets (B,) in {0, 1}. Loss plugins see the logits [0, s]."""

    def rows(self, outputs: Tensor, y: Tensor, loss: LossFn | None) -> Tensor:
        """See :class:`Kind`."""
        if loss is None:
            return F.binary_cross_entropy_with_logits(outputs, _as(outputs, y), reduction="none")
        return loss(two_logits(outputs.float()), y.long())

    def mean(self, outputs: Tensor, y: Tensor) -> Tensor:
        """See :class:`Kind`."""
        return F.binary_cross_entropy_with_logits(outputs, _as(outputs, y))

    def predict(self, outputs: Tensor, predict: LossPredict) -> Tensor:
        """See :class:`Kind`."""
        pair = predict(two_logits(outputs.float()))
        return pair[:, 1] - pair[:, 0]

    def noise_targets(self, like: Tensor, num_classes: int, generator: torch.Generator) -> Tensor:
        """See :class:`Kind`."""
        return _random_ids(like, 2, generator)


class LanguageModel:
    """Outputs (B, T, V), targets (B, T). A row's loss is the mean over its tokens."""

    def rows(self, outputs: Tensor, y: Tensor, loss: LossFn | None) -> Tensor:
        """See :class:`Kind`."""
        return self.tokens(outputs, y, loss).mean(1)

    def tokens(self, outputs: Tensor, y: Tensor, loss: LossFn | None) -> Tensor:
        """Per-token losses, (B, T)."""
        logits, targets = outputs.flatten(0, 1), y.flatten()
        if loss is None:
            entries = F.cross_entropy(logits, targets, reduction="none")
        else:
            entries = loss(logits.float(), targets)
        return entries.view(y.shape)

    def mean(self, outputs: Tensor, y: Tensor) -> Tensor:
        """See :class:`Kind`."""
        return F.cross_entropy(outputs.flatten(0, 1), y.flatten())

    def predict(self, outputs: Tensor, predict: LossPredict) -> Tensor:
        """See :class:`Kind`."""
        return predict(outputs.flatten(0, 1).float()).view(outputs.shape)

    def noise_targets(self, like: Tensor, num_classes: int, generator: torch.Generator) -> Tensor:
        """See :class:`Kind`."""
        return _random_ids(like, num_classes, generator)


class Regression:
    """Outputs (B,), targets (B,), both numbers. A row's loss is its squared error; there are no classes."""

    def rows(self, outputs: Tensor, y: Tensor, loss: LossFn | None) -> Tensor:
        """See :class:`Kind`; a loss is called with numbers, (B,) both."""
        if loss is not None:
            return loss(outputs.float(), y.float())
        return F.mse_loss(outputs, _as(outputs, y), reduction="none")

    def mean(self, outputs: Tensor, y: Tensor) -> Tensor:
        """See :class:`Kind`."""
        return F.mse_loss(outputs, _as(outputs, y))

    def predict(self, outputs: Tensor, predict: LossPredict) -> Tensor:
        """See :class:`Kind`.

        Raises:
            TypeError: always: ``predict`` maps logits.
        """
        raise TypeError(f"{NO_CLASSES}: it has no logits to map")

    def noise_targets(self, like: Tensor, num_classes: int, generator: torch.Generator) -> Tensor:
        """See :class:`Kind`; standard normal numbers."""
        noise = torch.randn(like.shape, generator=generator, device=generator.device)
        return noise.to(device=like.device, dtype=like.dtype)


KINDS: dict[str, Kind] = {
    "binary": Binary(),
    "multiclass": Multiclass(),
    "lm": LanguageModel(),
    "regression": Regression(),
}
NO_CLASSES = "a regression task predicts numbers, not classes"


def _as(outputs: Tensor, y: Tensor) -> Tensor:
    # Tensor.to() costs microseconds even where there is nothing to do.
    return y if y.dtype is outputs.dtype else y.to(outputs.dtype)


def two_logits(s: Tensor) -> Tensor:
    """Logits [0, s], (B, 2), of a binary head's single logit s, (B,)."""
    return torch.stack((torch.zeros_like(s), s), dim=1)


def _random_ids(like: Tensor, num_classes: int, generator: torch.Generator) -> Tensor:
    ids = torch.randint(num_classes, like.shape, generator=generator, device=generator.device)
    return ids.to(device=like.device, dtype=like.dtype)

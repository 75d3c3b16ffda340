"""The two plain records that algorithms read: a batch of rows, and the facts of the workload."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(slots=True)
class Batch:
    """Rows of training data on the cell's device.

    Attributes:
        x: inputs, (B, ...); images as float in [0, 1], tokens as int64.
        y: targets, (B,) class ids, (B, T) token ids, or (B,) numbers.
        index: row ids in the training set, (B,) int64; stable over epochs.
        weights: per-example weights, (B,), mean one by convention. Filled at the first
            :meth:`Task.backward` when a reweighting part is present, then reused, so that a
            second pass over the same batch (SAM) sees the same weights.
        cut_from: the batch of which this is a slice, and which slice; None for others. What looks at a whole
            batch, such as a reweighting, finds it here.
    """

    x: Tensor
    y: Tensor
    index: Tensor | None = None
    weights: Tensor | None = None
    cut_from: tuple[Batch, slice] | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return self.x.shape[0]

    def select(self, rows: Tensor | slice) -> Batch:
        """The rows at the given positions within this batch (not row ids)."""
        pick = (lambda t: t[rows]) if isinstance(rows, slice) else (lambda t: t.index_select(0, rows))
        return Batch(
            pick(self.x),
            pick(self.y),
            None if self.index is None else pick(self.index),
            None if self.weights is None else pick(self.weights),
            (self, rows) if isinstance(rows, slice) else None,
        )

    def split(self, n: int) -> list[Batch]:
        """Up to ``n`` batches of nearly equal size, in order, sharing memory with this one."""
        return list(self.chunks(-(-len(self) // n)))

    def chunks(self, size: int) -> Iterator[Batch]:
        """Batches of at most ``size`` rows, in order, sharing memory with this one."""
        for start in range(0, len(self), size):
            yield self.select(slice(start, start + size))


COMPILED = "takes second derivatives, which a compiled model has not: say workload.compile=false"


@dataclass(frozen=True)
class Info:
    """Facts an algorithm may read. Nothing here depends on the scored splits.

    Attributes:
        task: ``"binary"`` (one logit), ``"multiclass"``, ``"lm"`` or ``"regression"`` (one number).
        model: kind of model: ``"linear"``, ``"cnn"``, ``"resnet"``, ``"transformer"``, ...
        metric: name of the validation metric that is scored.
        target: value of the metric to reach; None where no target is set.
        minimize: whether a smaller metric is better.
        num_train: rows in the training split.
        num_classes: classes, or tokens in the vocabulary; 2 for binary tasks, 0 for regression.
        input_shape: shape of one input row.
        input_range: smallest and largest input, or None where inputs have no range that is stated: tokens,
            lists of entries, standardised features. What needs a range says so in ``compatible``.
        batch_size: the workload's default batch size.
        budget_samples: training rows a cell may draw.
        has_batchnorm: whether the model keeps batch statistics.
        param_kind: parameter name -> ``"embedding" | "hidden" | "head" | "bias" | "norm"``.
        aux: names of the auxiliary streams that ``task.aux`` holds.
        width: parameter name -> (fan_in, base fan_in), for width scaling rules; may be empty.
        num_parameters: weights of the model that are trained.
        target_range: smallest and largest target of a regression's training rows; None elsewhere.
        compiled: whether the model's forward pass is compiled, and has no second derivatives.
    """

    task: str
    model: str
    metric: str
    target: float | None
    minimize: bool
    num_train: int
    num_classes: int
    input_shape: tuple[int, ...]
    input_range: tuple[float, float] | None
    batch_size: int
    budget_samples: int
    has_batchnorm: bool = False
    param_kind: Mapping[str, str] = field(default_factory=dict)
    aux: tuple[str, ...] = ()
    width: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    num_parameters: int = 0
    target_range: tuple[float, float] | None = None
    compiled: bool = False

    @property
    def steps_at_default_batch(self) -> int:
        """Steps that the budget allows at the default batch size (rounded up)."""
        return -(-self.budget_samples // self.batch_size)

    @staticmethod
    def steps_to_see(share: float) -> int:
        """Steps of the shortest run of which one lies within the first ``share`` of the budget."""
        return math.floor(1 / share) + 1 if share > 0 else 0

"""Metrics on the scored splits, batch by batch, read from the device once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from runner.contract.kinds import KINDS, LossFn
from runner.contract.metrics import METRICS, measured
from runner.contract.stream import decode

if TYPE_CHECKING:
    from workloads.splits import Split


class Evaluation:
    """Mean loss and accuracy of a model on a split, and ``metric``; independent of the evaluation batch size.

    A regression has no accuracy, and the mean squared error for its loss.

    Args:
        task: ``"binary"``, ``"multiclass"``, ``"lm"`` or ``"regression"``.
        splits: name -> rows, on the device.
        batch_size: rows a forward pass; the last batch may be ragged.
        loss: the workload's own per-example loss; cross-entropy when None.
        metric: what is scored; where it is known by name and neither of the two, it is reported as well.
    """

    def __init__(
        self,
        task: str,
        splits: Mapping[str, Split],
        batch_size: int,
        loss: LossFn | None = None,
        metric: str = "loss",
    ) -> None:
        self.kind, self.task, self.splits, self.batch_size = KINDS[task], task, splits, batch_size
        self.loss, self.classes = loss, task != "regression"
        known = METRICS.get(metric)
        self.more = {metric: known} if known is not None and known.measure is not None else {}

    @torch.no_grad()
    def __call__(
        self, model: nn.Module, split: str, predict: Callable[[Tensor], Tensor] | None = None
    ) -> dict[str, float]:
        """``{"loss": mean loss, "accuracy": share of right answers}``, in the mode given.

        The loss is the workload's, whatever the algorithm trains on: cross-entropy in nats, or its own,
        without penalties on weights.
        """
        rows = self.splits[split]
        totals, kept = torch.zeros(2, dtype=torch.float64, device=rows.x.device), []
        for start in range(0, len(rows), self.batch_size):
            x, y = rows.x[start : start + self.batch_size], rows.y[start : start + self.batch_size]
            outputs = model(decode(x))
            if predict is not None:
                outputs = self._predicted(outputs, predict)
            totals[0] += self.kind.rows(outputs, y, self.loss).double().sum()
            if self.classes:
                totals[1] += self._right(outputs, y)
            if self.more:
                kept.append(outputs)
        loss, right = (totals / len(rows)).tolist()
        more = {name: measured(metric, torch.cat(kept), rows.y) for name, metric in self.more.items()}
        return {"loss": loss, **({"accuracy": right} if self.classes else {}), **more}

    def _predicted(self, outputs: Tensor, predict: Callable[[Tensor], Tensor]) -> Tensor:
        predicted = self.kind.predict(outputs, predict)
        if predicted.shape != outputs.shape:
            raise ValueError(
                f"predict() must keep the shape {tuple(outputs.shape)}, got {tuple(predicted.shape)}"
            )
        return predicted

    def _right(self, outputs: Tensor, y: Tensor) -> Tensor:
        if self.task == "binary":
            return ((outputs > 0) == (y > 0.5)).sum()
        right = (outputs.argmax(-1) == y).double()
        return right.sum() if right.dim() == 1 else right.mean(1).sum()

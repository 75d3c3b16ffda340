"""Regressions with a bug each, for the check that is to catch it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runner.contract.kinds import Regression
from runner.contract.stream import decode
from tests.doubles.workloads import FEATURES, Line
from workloads.base import Data, Split
from workloads.evaluation import Evaluation


class TwoColumns(Line):
    """A column of outputs, (B, 1): against targets (B,) it is broadcast."""

    def model(self) -> nn.Module:
        return nn.Linear(FEATURES, 1)


class FarOff(Line):
    """Begins far from where the targets are."""

    def model(self) -> nn.Module:
        model = super().model()
        with torch.no_grad():
            next(iter(model.parameters())).add_(9)
        return model


class HasClasses(Line):
    num_classes = 5


class WholeTargets(Line):
    def load(self, root: Path) -> Data:
        data = super().load(root)
        return Data(*(Split(s.x, s.y.round().long()) for s in (data.train, data.validation, data.test)))


class MissingTargets(Line):
    def load(self, root: Path) -> Data:
        data = super().load(root)
        data.train.y[3] = torch.nan
        return data


class OwnLoss(Line):
    """A loss of classes, put in behind the config's back."""

    def build(self, seed: int, device: torch.device) -> Any:
        task, evaluate = super().build(seed, device)
        task.own_loss = lambda logits, targets: F.cross_entropy(logits, targets, reduction="none")
        return task, evaluate


# -- in the evaluation -------------------------------------------------------------------------------


class Errors(Evaluation):
    """An evaluation of numbers that can be gone wrong with."""

    @torch.no_grad()
    def __call__(self, model: nn.Module, split: str, predict: Any = None) -> dict[str, float]:
        rows, total = self.splits[split], 0.0
        for x, y in zip(rows.x.split(self.batch_size), rows.y.split(self.batch_size), strict=True):
            total += float(self.total(model(decode(x)), y))
        return {"loss": total / len(rows)}

    def total(self, outputs: Tensor, y: Tensor) -> Tensor:
        """What a batch adds: the sum of its rows' losses."""
        return F.mse_loss(outputs, y, reduction="sum")


class _Halved(Errors):
    def total(self, outputs: Tensor, y: Tensor) -> Tensor:
        return super().total(outputs, y) / 2


class _Absolute(Errors):
    def total(self, outputs: Tensor, y: Tensor) -> Tensor:
        return F.l1_loss(outputs, y, reduction="sum")


class _Root(Errors):
    def __call__(self, model: nn.Module, split: str, predict: Any = None) -> dict[str, float]:
        return {"loss": super().__call__(model, split)["loss"] ** 0.5}


class _MeanOfMeans(Errors):
    def total(self, outputs: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(outputs, y) * self.batch_size


class Measured(Line):
    """Ships an evaluation of its own, a right one."""

    scores: ClassVar[type[Evaluation]] = Errors

    def build(self, seed: int, device: torch.device) -> Any:
        task, evaluate = super().build(seed, device)
        return task, self.scores(self.task, evaluate.splits, evaluate.batch_size)


class EvaluatesHalf(Measured):
    scores: ClassVar[type[Evaluation]] = _Halved


class EvaluatesAbsolute(Measured):
    scores: ClassVar[type[Evaluation]] = _Absolute


class EvaluatesRoot(Measured):
    scores: ClassVar[type[Evaluation]] = _Root


class AveragesBatches(Measured):
    scores: ClassVar[type[Evaluation]] = _MeanOfMeans


# -- in the training loss ----------------------------------------------------------------------------


class _HalvedKind(Regression):
    def mean(self, outputs: Tensor, y: Tensor) -> Tensor:
        return super().mean(outputs, y) / 2


class _SummedKind(Regression):
    def mean(self, outputs: Tensor, y: Tensor) -> Tensor:
        return super().mean(outputs, y) * len(y)


class TrainsHalf(Line):
    """Trains on half of what it evaluates."""

    kind: ClassVar[type[Regression]] = _HalvedKind

    def build(self, seed: int, device: torch.device) -> Any:
        task, evaluate = super().build(seed, device)
        task.kind = self.kind()
        return task, evaluate


class TrainsSum(TrainsHalf):
    kind: ClassVar[type[Regression]] = _SummedKind

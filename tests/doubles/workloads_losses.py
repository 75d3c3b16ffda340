"""Workloads whose loss is not what it is called: mistakes that benchmarks have shipped, and their kin."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runner.contract.batch import Batch
from runner.contract.kinds import Multiclass
from runner.contract.stream import decode
from runner.contract.task import Task
from tests.doubles.workloads import Binary, Blobs, Text
from workloads.evaluation import Evaluation


class LoudAndSilent(Blobs):
    """Large weights, and no reason given."""

    def model(self) -> nn.Module:
        model = super().model()
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(30)
        return model


class Sure(Blobs):
    """A bias at the head that is right about the most frequent class: no uniform guess."""

    init_loss_note: ClassVar[str | None] = ""  # no reason

    def model(self) -> nn.Module:
        model = super().model()
        with torch.no_grad():
            model[-1].bias[0] = 9
        return model


# -- softmax in the model ----------------------------------------------------------------------------


class SoftmaxModel(Blobs):
    def model(self) -> nn.Module:
        return nn.Sequential(super().model(), nn.Softmax(dim=1))


class SoftmaxText(Text):
    def model(self) -> nn.Module:
        return nn.Sequential(super().model(), nn.Softmax(dim=-1))


class SigmoidModel(Binary):
    def model(self) -> nn.Module:
        return nn.Sequential(super().model(), nn.Sigmoid())


class SoftmaxInEvaluation(Blobs):
    """Logits in training, probabilities in evaluation mode: as some model zoos have it."""

    def model(self) -> nn.Module:
        return nn.Sequential(super().model(), OnlyInEvaluation())


class SoftmaxInTraining(Blobs):
    def model(self) -> nn.Module:
        return nn.Sequential(super().model(), OnlyInTraining())


class OnlyInEvaluation(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if self.training else x.softmax(-1)


class OnlyInTraining(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.softmax(-1) if self.training else x


# -- in the evaluation -------------------------------------------------------------------------------


class Scores(Evaluation):
    """An evaluation with a loss that can be gone wrong with."""

    @torch.no_grad()
    def __call__(self, model: nn.Module, split: str, predict: Any = None) -> dict[str, float]:
        rows, loss, right = self.splits[split], 0.0, 0.0
        for x, y in zip(rows.x.split(self.batch_size), rows.y.split(self.batch_size), strict=True):
            outputs = model(decode(x))
            loss += self.total(outputs, y)
            right += float((outputs.argmax(-1) == y).sum())
        return {"loss": loss / len(rows), "accuracy": right / len(rows)}

    def total(self, outputs: Tensor, y: Tensor) -> float:
        """What a batch adds: the sum of its rows' losses."""
        return F.cross_entropy(outputs, y, reduction="sum").item()


class Scored(Blobs):
    """Ships an evaluation of its own, a right one."""

    scores: ClassVar[type[Evaluation]] = Scores

    def build(self, seed: int, device: torch.device) -> Any:
        task, evaluate = super().build(seed, device)
        return task, self.scores(self.task, evaluate.splits, evaluate.batch_size)


class _NllOfProbabilities(Scores):
    def total(self, outputs: Tensor, y: Tensor) -> float:
        return float(F.nll_loss(outputs.softmax(1), y, reduction="sum"))


class _EntropyOfProbabilities(Scores):
    def total(self, outputs: Tensor, y: Tensor) -> float:
        return float(F.cross_entropy(outputs.softmax(1), y, reduction="sum"))


class _NllOfLogits(Scores):
    def total(self, outputs: Tensor, y: Tensor) -> float:
        return float(F.nll_loss(outputs, y, reduction="sum"))


class _DividedOnceMore(Scores):
    def total(self, outputs: Tensor, y: Tensor) -> float:
        return float(F.cross_entropy(outputs, y))


class _Bits(Scores):
    def total(self, outputs: Tensor, y: Tensor) -> float:
        return super().total(outputs, y) / 0.6931471805599453


class _Percent(Scores):
    def __call__(self, model: nn.Module, split: str, predict: Any = None) -> dict[str, float]:
        metrics = super().__call__(model, split)
        return metrics | {"accuracy": 100 * metrics["accuracy"]}


class EvaluatesNllOfProbabilities(Scored):
    scores: ClassVar[type[Evaluation]] = _NllOfProbabilities


class EvaluatesEntropyOfProbabilities(Scored):
    scores: ClassVar[type[Evaluation]] = _EntropyOfProbabilities


class EvaluatesNllOfLogits(Scored):
    scores: ClassVar[type[Evaluation]] = _NllOfLogits


class EvaluatesDividedOnceMore(Scored):
    scores: ClassVar[type[Evaluation]] = _DividedOnceMore


class EvaluatesBits(Scored):
    scores: ClassVar[type[Evaluation]] = _Bits


class EvaluatesPercent(Scored):
    scores: ClassVar[type[Evaluation]] = _Percent


# -- in the training loss ----------------------------------------------------------------------------


class Kinded(Blobs):
    """A task whose kind translates outputs to losses in its own way."""

    kind: ClassVar[type[Multiclass]] = Multiclass

    def build(self, seed: int, device: torch.device) -> Any:
        task, evaluate = super().build(seed, device)
        task.kind = self.kind()
        return task, evaluate


class _KindOfProbabilities(Multiclass):
    def rows(self, outputs: Tensor, y: Tensor, loss: Any) -> Tensor:
        return F.nll_loss(outputs.softmax(1), y, reduction="none")

    def mean(self, outputs: Tensor, y: Tensor) -> Tensor:
        return self.rows(outputs, y, None).mean()


class _KindOfSoftmaxTwice(Multiclass):
    def mean(self, outputs: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(outputs.softmax(1), y)


class _KindDivided(Multiclass):
    def rows(self, outputs: Tensor, y: Tensor, loss: Any) -> Tensor:
        return super().rows(outputs, y, loss) / len(y)


class _KindDividedMean(Multiclass):
    def mean(self, outputs: Tensor, y: Tensor) -> Tensor:
        return super().mean(outputs, y) / len(y)


class TrainsNllOfProbabilities(Kinded):
    kind: ClassVar[type[Multiclass]] = _KindOfProbabilities


class TrainsSoftmaxTwice(Kinded):
    kind: ClassVar[type[Multiclass]] = _KindOfSoftmaxTwice


class TrainsDividedRows(Kinded):
    kind: ClassVar[type[Multiclass]] = _KindDivided


class TrainsDividedMean(Kinded):
    kind: ClassVar[type[Multiclass]] = _KindDividedMean


class TrainsOtherGradients(Blobs):
    """The loss that comes back is right, the gradients are divided once more."""

    def build(self, seed: int, device: torch.device) -> Any:
        task, evaluate = super().build(seed, device)
        task.__class__ = _DividedGradients
        return task, evaluate


class _DividedGradients(Task):
    def backward(self, batch: Batch, denominator: int | None = None) -> Tensor:
        loss = super().backward(batch, denominator)
        for p in self.params:
            if p.grad is not None:
                p.grad.div_(len(batch))
        return loss


class TextSummed(Text):
    """The loss of a row is the sum over its tokens, not their mean."""

    def build(self, seed: int, device: torch.device) -> Any:
        task, evaluate = super().build(seed, device)
        kind = type(task.kind)
        summed = type(
            "Summed", (kind,), {"rows": lambda self, o, y, loss: kind.tokens(self, o, y, loss).sum(1)}
        )
        task.kind = summed()
        return task, evaluate


# -- in a loss of the workload's own -----------------------------------------------------------------


class OwnNllOfProbabilities(Blobs):
    def _own_loss(self) -> Any:
        return lambda outputs, y: F.nll_loss(outputs.softmax(1), y, reduction="none")


class OwnSoftmaxTwice(Blobs):
    def _own_loss(self) -> Any:
        return lambda outputs, y: F.cross_entropy(outputs.softmax(1), y, reduction="none")


class OwnDivided(Blobs):
    def _own_loss(self) -> Any:
        return lambda outputs, y: F.cross_entropy(outputs, y, reduction="none") / len(y)


class OwnIgnored(Blobs):
    """Trains on a loss of its own and evaluates another."""

    def _own_loss(self) -> Any:
        return lambda outputs, y: 2 * F.cross_entropy(outputs, y, reduction="none")

    def build(self, seed: int, device: torch.device) -> Any:
        task, evaluate = super().build(seed, device)
        evaluate.loss = None
        return task, evaluate

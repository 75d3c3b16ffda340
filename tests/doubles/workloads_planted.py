"""Workloads with a bug each in data or evaluation, for the check that is to catch it."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from runner.contract.stream import decode
from tests.doubles.workloads import (
    SIZES,
    TOKENS,
    WINDOW,
    Blobs,
    Normed,
    Text,
    drawn_text,
    generator,
    parts,
    windows,
)
from tests.doubles.workloads_losses import Scored, Scores
from workloads.base import Data, Split
from workloads.evaluation import Evaluation

# -- batch -------------------------------------------------------------------------------------------


class _MeanOfMeans(Evaluation):
    @torch.no_grad()
    def __call__(self, model: nn.Module, split: str, predict: Any = None) -> dict[str, float]:
        rows, found = self.splits[split], []
        for x, y in zip(rows.x.split(self.batch_size), rows.y.split(self.batch_size), strict=True):
            outputs = model(decode(x))
            found.append((self.kind.mean(outputs, y), (outputs.argmax(-1) == y).float().mean()))
        loss, right = (float(torch.stack(column).mean()) for column in zip(*found, strict=True))
        return {"loss": loss, "accuracy": right}


class _DropsLast(Evaluation):
    def __call__(self, model: nn.Module, split: str, predict: Any = None) -> dict[str, float]:
        rows, small = self.splits[split], copy.copy(self)
        whole = max(1, len(rows) // self.batch_size) * self.batch_size
        small.splits = {split: Split(rows.x[:whole], rows.y[:whole])}
        return Evaluation.__call__(small, model, split, predict)


class _Fixed(Evaluation):
    """Looks at its splits when it is built, and never again."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.kept = Evaluation(*args)

    def __call__(self, model: nn.Module, split: str, predict: Any = None) -> dict[str, float]:
        return self.kept(model, split, predict)


class AveragesBatches(Scored):
    scores: ClassVar[type[Evaluation]] = _MeanOfMeans


class DropsLastBatch(Scored):
    scores: ClassVar[type[Evaluation]] = _DropsLast


class FixesSplits(Scored):
    scores: ClassVar[type[Evaluation]] = _Fixed


class HidesSplits(Blobs):
    def build(self, seed: int, device: torch.device) -> Any:
        task, evaluate = super().build(seed, device)
        return task, lambda model, split, predict=None: evaluate(model, split, predict)


# -- inert -------------------------------------------------------------------------------------------


class _TrainMode(Evaluation):
    def __call__(self, model: nn.Module, split: str, predict: Any = None) -> dict[str, float]:
        metrics = super().__call__(model, split, predict)
        model.train()
        return metrics


class _UpdatesStatistics(Evaluation):
    def __call__(self, model: nn.Module, split: str, predict: Any = None) -> dict[str, float]:
        model.train()
        metrics = super().__call__(model, split, predict)
        model.eval()
        return metrics


class _Centres(Evaluation):
    def __call__(self, model: nn.Module, split: str, predict: Any = None) -> dict[str, float]:
        self.splits[split].x.sub_(0.01)
        return super().__call__(model, split, predict)


class _Draws(Evaluation):
    def __call__(self, model: nn.Module, split: str, predict: Any = None) -> dict[str, float]:
        np.random.permutation(3)
        return super().__call__(model, split, predict)


class _Graphs(Scores):
    __call__ = Scores.__call__.__wrapped__  # pyright: ignore[reportFunctionMemberAccess]


class _Wobbles(Evaluation):
    calls = 0

    def __call__(self, model: nn.Module, split: str, predict: Any = None) -> dict[str, float]:
        metrics = super().__call__(model, split, predict)
        self.calls += 1
        return metrics | {"accuracy": metrics["accuracy"] + 1e-9 * self.calls}


class LeavesTrainingMode(Scored):
    scores: ClassVar[type[Evaluation]] = _TrainMode


class UpdatesStatistics(Normed):
    def build(self, seed: int, device: torch.device) -> Any:
        task, evaluate = super().build(seed, device)
        return task, _UpdatesStatistics(self.task, evaluate.splits, evaluate.batch_size)


class CentresRows(Scored):
    scores: ClassVar[type[Evaluation]] = _Centres


class DrawsNumbers(Scored):
    scores: ClassVar[type[Evaluation]] = _Draws


class KeepsGraphs(Scored):
    scores: ClassVar[type[Evaluation]] = _Graphs


class Wobbles(Scored):
    scores: ClassVar[type[Evaluation]] = _Wobbles


# -- splits ------------------------------------------------------------------------------------------


class LeaksValidation(Blobs):
    """Ten validation rows are training rows."""

    def load(self, root: Path) -> Data:
        data = super().load(root)
        data.validation.x[:10], data.validation.y[:10] = data.train.x[:10], data.train.y[:10]
        return data


class TestsOnValidation(Blobs):
    def load(self, root: Path) -> Data:
        data = super().load(root)
        return replace(data, test=Split(data.validation.x.clone(), data.validation.y.clone()))


class OverlapsText(Text):
    """Validation starts within training, three tokens off its windows."""

    def load(self, root: Path) -> Data:
        text, (train, validation, _) = drawn_text(), SIZES
        start = (train - validation // 2) * WINDOW + 3
        scored = windows(text[start : start + validation * WINDOW + 1])
        data = super().load(root)
        return replace(data, validation=scored)


class OverlapsWindows(OverlapsText):
    """The same, with windows in no order."""

    def load(self, root: Path) -> Data:
        data = super().load(root)
        order = torch.randperm(len(data.train), generator=generator())
        return replace(data, train=Split(data.train.x[order], data.train.y[order]))


# -- repeat and process ------------------------------------------------------------------------------


class DealsAnew(Blobs):
    """The split comes from torch's global generator."""

    def load(self, root: Path) -> Data:
        data = super().load(root)
        x, y = (
            torch.cat([getattr(s, key) for s in (data.train, data.validation, data.test)]) for key in "xy"
        )
        order = torch.randperm(len(y))
        return parts(x[order], y[order])


class ShufflesWithPython(Blobs):
    """The split comes from Python's global generator."""

    def load(self, root: Path) -> Data:
        data, order = super().load(root), list(range(SIZES[0]))
        random.shuffle(order)
        return replace(data, train=Split(data.train.x[order], data.train.y[order]))


class DealsBySeed(Blobs):
    """Every study has training rows of its own."""

    def build(self, seed: int, device: torch.device) -> Any:
        task, evaluate = super().build(seed, device)
        order = torch.randperm(task.data.n, generator=generator(seed))
        task.data.x, task.data.y = task.data.x[order], task.data.y[order]
        return task, evaluate


class SameOrder(Blobs):
    def build(self, seed: int, device: torch.device) -> Any:
        return super().build(0, device)


class SameWeights(Blobs):
    def model(self) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return super().model()


class SetVocabulary(Text):
    """Token ids in the order of a set of strings: another one in each process."""

    def load(self, root: Path) -> Data:
        data = super().load(root)
        order = torch.tensor([int(word) for word in {str(token) for token in range(TOKENS)}])
        return Data(*(Split(order[s.x], order[s.y]) for s in (data.train, data.validation, data.test)))


# -- reach -------------------------------------------------------------------------------------------


class KeepsEverything(Blobs):
    """All rows lie in an attribute of the workload, which the task's model factory holds."""

    def load(self, root: Path) -> Data:
        data = super().load(root)
        self.x = torch.cat([data.train.x, data.validation.x, data.test.x])
        return data


class KeepsArrays(Blobs):
    def load(self, root: Path) -> Data:
        data = super().load(root)
        self.arrays = {"everything": torch.cat([data.validation.x, data.test.x]).numpy().copy()}
        return data


class KeepsText(Text):
    def load(self, root: Path) -> Data:
        self.tokens = drawn_text().to(torch.int32)
        return super().load(root)


class KeepsViews(Blobs):
    """Training rows are a view of all rows: the others are a step away."""

    def build(self, seed: int, device: torch.device) -> Any:
        task, evaluate = super().build(seed, device)
        task.info.__dict__["more"] = evaluate.splits["test"].x[3:]
        return task, evaluate


class KeepsEvaluation(Blobs):
    def build(self, seed: int, device: torch.device) -> Any:
        task, evaluate = super().build(seed, device)
        task.model.register_forward_hook(lambda *_: evaluate and None)
        return task, evaluate

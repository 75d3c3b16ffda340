"""Workloads over tensors that fit on the device: a subclass loads the arrays and names the model."""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from runner.batch import Info
from runner.cost import Cost
from runner.norm import batch_norms
from runner.precision import specialise
from runner.seeding import derive
from runner.stream import Augment, Stream
from runner.task import Task
from workloads.evaluation import Evaluation


@dataclass(frozen=True)
class Split:
    """Rows of one split: inputs (n, ...) and targets (n, ...)."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return self.x.shape[0]

    def to(self, device: torch.device) -> Split:
        """The same rows on ``device``."""
        return Split(self.x.to(device), self.y.to(device))


@dataclass(frozen=True)
class Data:
    """The three splits. Only ``train`` ever reaches an algorithm."""

    train: Split
    validation: Split
    test: Split


class TensorWorkload(ABC):
    """Data + model + metric + target + budget; never changed by an algorithm.

    Args:
        name: the workload's name; part of the seed.
        batch_size: default rows a step.
        budget_samples: training rows that a cell may draw.
        eval_every: trained rows between two evaluations.
        metric: validation metric that is scored: ``accuracy`` or ``loss``.
        minimize: whether a smaller metric is better.
        target: value to reach; None where none is set.
        precision: ``fp32`` or ``bf16`` (autocast).
        compile: whether the model's forward pass is compiled.
        eval_batch_size: rows a forward pass at evaluation.
        facts: what else the config says (data kind, resources); not used here.

    Raises:
        ValueError: for sizes below one, or a metric that the workload does not have.
    """

    task: ClassVar[str] = "multiclass"
    model_kind: ClassVar[str] = "cnn"
    num_classes: ClassVar[int] = 10
    input_range: ClassVar[tuple[float, float] | None] = (0.0, 1.0)
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "loss")

    def __init__(
        self,
        name: str,
        batch_size: int,
        budget_samples: int,
        eval_every: int,
        metric: str = "accuracy",
        minimize: bool = False,
        target: float | None = None,
        precision: str = "fp32",
        compile: bool = False,
        eval_batch_size: int = 1000,
        **facts: Any,
    ) -> None:
        for key in ("batch_size", "budget_samples", "eval_every", "eval_batch_size"):
            if locals()[key] < 1:
                raise ValueError(f"{key} must be at least 1, got {locals()[key]}")
        if metric not in self.metrics:
            raise ValueError(f"metric must be one of {', '.join(self.metrics)}, got {metric}")
        self.name, self.batch_size, self.budget_samples = name, batch_size, budget_samples
        self.eval_every, self.eval_batch_size = eval_every, eval_batch_size
        self.metric, self.minimize, self.target = metric, minimize, target
        self.precision, self.compile, self.facts = precision, compile, facts
        self._data: Data | None = None
        self._on_device: dict[torch.device, Data] = {}

    @abstractmethod
    def load(self, root: Path) -> Data:
        """Read (and verify) the data under ``root``; every split on the CPU.

        Raises:
            UserError: when data is missing or damaged: which file, and what to do.
        """

    @abstractmethod
    def model(self) -> nn.Module:
        """A fresh model, its weights drawn from torch's global generator (which the harness seeds)."""

    def augment(self) -> Augment | None:
        """Augmentation of the training stream, on the device; none by default."""
        return None

    def param_kinds(self, model: nn.Module) -> Mapping[str, str]:
        """Parameter name -> role; by default from shapes: the last matrix is the head."""
        return default_param_kinds(model)

    def prepare(self, root: Path) -> None:
        """Load the data once; later calls are free."""
        if self._data is None:
            self._data = self.load(root)

    def checksums(self) -> dict[str, str]:
        """SHA-256 of the tensors of each split, for the manifest."""
        data = self._loaded()
        return {name: _digest(getattr(data, name)) for name in ("train", "validation", "test")}

    def build(self, seed: int, device: torch.device) -> tuple[Task, Evaluation]:
        """A task on the training split and an evaluation on the others, both fresh.

        Model weights come from torch's global generator; the order of the rows from ``seed``.
        """
        if device not in self._on_device:
            data = self._loaded()
            self._on_device[device] = Data(*(s.to(device) for s in (data.train, data.validation, data.test)))
        data, training = self._on_device[device], self._without_scored_splits()

        def build_model() -> nn.Module:
            return specialise(training.model().to(device), training.precision, training.compile)

        model = build_model()
        generator = torch.Generator(device).manual_seed(derive(seed, "augment"))
        augment = training.augment()
        stream = Stream(
            data.train.x,
            data.train.y,
            self.batch_size,
            derive(seed, "order"),
            Cost(),
            augment=augment,
            generator=None if augment is None else generator,
        )
        task = Task(build_model, stream, self._info(data, model), seed=seed, model=model)
        splits = {"validation": data.validation, "test": data.test}
        return task, Evaluation(self.task, splits, self.eval_batch_size)

    def _info(self, data: Data, model: nn.Module) -> Info:
        return Info(
            task=self.task,
            model=self.model_kind,
            metric=self.metric,
            target=self.target,
            minimize=self.minimize,
            num_train=len(data.train),
            num_classes=self.num_classes,
            input_shape=tuple(data.train.x.shape[1:]),
            input_range=self.input_range,
            batch_size=self.batch_size,
            budget_samples=self.budget_samples,
            has_batchnorm=bool(batch_norms(model)),
            param_kind=self.param_kinds(model),
        )

    def _without_scored_splits(self) -> Self:
        """This workload as a task may hold on to it: no scored row can be reached from there."""
        workload, train = copy.copy(self), self._loaded().train
        nothing = Split(train.x[:0].clone(), train.y[:0].clone())
        workload._data, workload._on_device = Data(train, nothing, nothing), {}
        return workload

    def _loaded(self) -> Data:
        if self._data is None:
            raise RuntimeError("prepare() comes before build()")
        return self._data


def default_param_kinds(model: nn.Module) -> dict[str, str]:
    """Roles by module type; the last Linear's weight is the head."""
    kinds: dict[str, str] = {}
    for name, module in model.named_modules():
        for key, _ in module.named_parameters(recurse=False):
            full = f"{name}.{key}" if name else key
            if key == "bias":
                kinds[full] = "bias"
            elif isinstance(module, nn.Embedding):
                kinds[full] = "embedding"
            elif isinstance(module, (nn.Linear, nn.Conv2d)):
                kinds[full] = "hidden"
            else:
                kinds[full] = "norm"
    linears = [name for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    if linears:
        kinds[f"{linears[-1]}.weight" if linears[-1] else "weight"] = "head"
    return kinds


def stratified_split(y: Tensor, sizes: tuple[int, ...], seed: int) -> list[Tensor]:
    """Disjoint sets of row ids, one of each size, with the classes of ``y`` in equal shares.

    The rows left over come last. The split is a function of ``seed`` alone, the same in every cell.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(y), generator=generator)
    # Deal the rows of every class out evenly: sorting by (rank within class / class size) interleaves them.
    rank = torch.empty(len(y))
    for label in y.unique():
        rows = shuffled[y[shuffled] == label]
        rank[rows] = (torch.arange(len(rows)) + 0.5) / len(rows)
    order = torch.argsort(rank, stable=True)
    parts, start = [], 0
    for size in sizes:
        parts.append(order[start : start + size].sort().values)
        start += size
    return [*parts, order[start:].sort().values]


def _digest(split: Split) -> str:
    digest = hashlib.sha256()
    for tensor in (split.x, split.y):
        digest.update(str((tuple(tensor.shape), tensor.dtype)).encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()

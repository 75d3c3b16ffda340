"""Workloads over tensors that fit on the device: a subclass loads the arrays and names the model."""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn

from runner.base.errors import UserError
from runner.contract.batch import Info
from runner.contract.batch_norm import batch_norms
from runner.contract.cost import Cost
from runner.contract.kinds import NO_CLASSES
from runner.contract.metrics import offered
from runner.contract.precision import specialise
from runner.contract.seeding import derive
from runner.contract.stream import Augment, Stream
from runner.contract.task import Task
from runner.parts.losses import build_loss
from workloads.evaluation import Evaluation
from workloads.foreign import model_from_elsewhere
from workloads.options import noisy_labels, set_aside
from workloads.splits import Data, Loaded, Split
from workloads.splits import stratified_split as stratified_split

PIXELS = (0.0, 1.0)  # the range of images that are kept as uint8, once they are decoded


class TensorWorkload(ABC):
    """Data + model + metric + target + budget; never changed by an algorithm.

    Args:
        name: the workload's name; part of the seed.
        batch_size: default rows a step.
        budget_samples: training rows that a cell may draw.
        eval_every: trained rows between two evaluations.
        metric: validation metric that is scored: one of ``metrics``, or of those that
            :mod:`runner.contract.metrics` measures for this kind of task.
        minimize: whether a smaller metric is better.
        target: value to reach; None where none is set.
        precision: ``fp32``, ``tf32`` (on a GPU) or ``bf16`` (autocast).
        compile: whether the model's forward pass is compiled.
        eval_batch_size: rows a forward pass at evaluation.
        label_noise: share of the training labels that say another class; the same ones in every cell. Zero
            where there are no classes.
        aux: name -> rows (a count, or a share below one) taken out of the training split for ``task.aux``.
            ``clean`` has true labels, the others those of the training split.
        loss: config of a loss (as for ``algorithm/loss``) that is this workload's own; None: the task's,
            cross-entropy or, for a regression, the squared error.
        model: config of a model that takes the place of this workload's own; None: its own.
        facts: what else the config says (data kind, resources); not used here.

    Raises:
        ValueError: for sizes below one, a metric that the workload does not have, or wrong labels on a
            regression.
    """

    # Facts of the class, or of an instance whose data decides them in load().
    task: str = "multiclass"
    model_kind: str = "cnn"
    num_classes: int = 10
    input_range: tuple[float, float] | None = None  # of inputs that have none that could be stated
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "loss")  # those that evaluations report anyway
    init_loss_note: ClassVar[str | None] = (
        None  # why the first loss is not that of a uniform guess, if it is not
    )

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
        label_noise: float = 0.0,
        aux: Mapping[str, float] | None = None,
        loss: Mapping[str, Any] | None = None,
        model: Mapping[str, Any] | None = None,
        **facts: Any,
    ) -> None:
        for key in ("batch_size", "budget_samples", "eval_every", "eval_batch_size"):
            if locals()[key] < 1:
                raise ValueError(f"{key} must be at least 1, got {locals()[key]}")
        if metric not in (known := offered(self.task, self.metrics)):
            raise ValueError(f"metric must be one of {', '.join(known)} ({self.task} task), got {metric}")
        if not (model is None or isinstance(model, Mapping)):
            raise ValueError(f"model must be null or {{_target_: package.module.Class, …}}, got {model!r}")
        if self.task == "regression" and label_noise:
            raise ValueError(f"label_noise must be 0, got {label_noise}: {NO_CLASSES}")
        self.name, self.batch_size, self.budget_samples = name, batch_size, budget_samples
        self.eval_every, self.eval_batch_size = eval_every, eval_batch_size
        self.metric, self.minimize, self.target = metric, minimize, target
        self.precision, self.compile, self.facts = precision, compile, facts
        self.label_noise, self.aux, self.loss = label_noise, dict(aux or {}), loss
        self.other_model = model
        self._data: Data | None = None
        self._on_device: dict[torch.device, Loaded] = {}

    @abstractmethod
    def load(self, root: Path) -> Data:
        """Read (and verify) the data under ``root``; every split on the CPU.

        Raises:
            UserError: when data is missing or damaged: which file, and what to do.
        """

    @abstractmethod
    def model(self) -> nn.Module:
        """A fresh model, its weights drawn from torch's global generator (which the harness seeds)."""

    def fresh_model(self) -> nn.Module:
        """A model to train: that of the config's ``model``, where there is one, or else :meth:`model`.

        Raises:
            UserError: where the config's does not fit the rows.
        """
        if self.other_model is None:
            return self.model()
        few = self._loaded().train.x[:2]
        return model_from_elsewhere(self.other_model, few, self.task, self.num_classes, self.batch_size)

    def augment(self) -> Augment | None:
        """Augmentation of the training stream, on the device; none by default."""
        return None

    def param_kinds(self, model: nn.Module) -> Mapping[str, str]:
        """Parameter name -> role; by default from shapes: the last matrix is the head."""
        return default_param_kinds(model)

    def widths(self, model: nn.Module) -> Mapping[str, tuple[int, int]]:
        """Parameter name -> (fan_in, fan_in at the width that settings are for); none by default."""
        return {}

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
            self._on_device[device] = self._put(device)
        data, training = self._on_device[device], self._without_scored_splits()

        def build_model() -> nn.Module:
            return specialise(training.fresh_model().to(device), training.precision, training.compile)

        model, cost, loss = build_model(), Cost(), self._own_loss()
        stream = training.stream(data.train, seed, cost)
        aux = {k: training.stream(split, derive(seed, "aux", k), cost) for k, split in data.aux.items()}
        task = Task(
            build_model, stream, self._info(data, model), seed=seed, aux=aux, model=model, own_loss=loss
        )
        if hasattr(loss, "setup"):
            loss.setup(task)
        return task, Evaluation(self.task, data.scored, self.eval_batch_size, loss, self.metric)

    def stream(self, split: Split, seed: int, cost: Cost) -> Stream:
        """An endless stream of the rows of ``split``, augmented as training rows are."""
        augment = self.augment()
        generator = torch.Generator(split.x.device).manual_seed(derive(seed, "augment"))
        return Stream(
            split.x,
            split.y,
            self.batch_size,
            derive(seed, "order"),
            cost,
            augment=augment,
            generator=None if augment is None else generator,
        )

    def _put(self, device: torch.device) -> Loaded:
        """Rows as a cell uses them, on its device."""
        data = self._loaded()
        labels = data.train.y
        # Numbers have no classes whose shares are to be equal.
        strata = torch.zeros_like(labels) if self.task == "regression" else labels
        rest, aside = set_aside(strata, self.aux)
        if self.label_noise:
            labels = noisy_labels(labels, self.num_classes, self.label_noise)
        rows = {name: (data.train.y if name == "clean" else labels, rows) for name, rows in aside.items()}
        whole = len(rest) == len(labels)  # then nothing is copied
        return Loaded(
            Split(data.train.x, labels).to(device)
            if whole
            else Split(data.train.x[rest], labels[rest]).to(device),
            {name: Split(data.train.x[at], y[at]).to(device) for name, (y, at) in rows.items()},
            {"validation": data.validation.to(device), "test": data.test.to(device)},
        )

    def _own_loss(self) -> Any:
        if self.loss is None:
            return None
        loss = build_loss(self.loss, prefix="workload.")
        if self.task == "regression" and not getattr(loss, "fits_numbers", False):
            raise UserError(f"workload.loss: takes logits and class ids; {NO_CLASSES}")
        return loss

    def _info(self, data: Loaded, model: nn.Module) -> Info:
        return Info(
            task=self.task,
            model=self.model_kind if self.other_model is None else "other",
            metric=self.metric,
            target=self.target,
            minimize=self.minimize,
            num_train=len(data.train),
            num_classes=self.num_classes,
            input_shape=tuple(data.train.x.shape[1:]),
            input_range=PIXELS if data.train.x.dtype == torch.uint8 else self.input_range,
            batch_size=self.batch_size,
            budget_samples=self.budget_samples,
            has_batchnorm=bool(batch_norms(model)),
            param_kind=self.param_kinds(model) if self.other_model is None else default_param_kinds(model),
            aux=tuple(data.aux),
            width=self.widths(model) if self.other_model is None else {},
            num_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
            target_range=(data.train.y.min().item(), data.train.y.max().item())
            if self.task == "regression"
            else None,
            compiled=self.compile,
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
    """Roles by module type, or by shape where the type says nothing; the last Linear's weight is the head."""
    kinds: dict[str, str] = {}
    for name, module in model.named_modules():
        for key, p in module.named_parameters(recurse=False):
            full = f"{name}.{key}" if name else key
            if key.endswith("bias"):
                kinds[full] = "bias"
            elif isinstance(module, nn.Embedding):
                kinds[full] = "embedding"
            elif isinstance(module, (nn.Linear, nn.Conv2d)) or (p.dim() > 1 and key.endswith("weight")):
                kinds[full] = "hidden"
            else:  # matrices that are no weights are added to inputs: positions, a class token
                kinds[full] = "norm" if p.dim() < 2 else "embedding"
    linears = [name for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    if linears:
        kinds[f"{linears[-1]}.weight" if linears[-1] else "weight"] = "head"
    return kinds


def _digest(split: Split) -> str:
    digest = hashlib.sha256()
    for tensor in (split.x, split.y):
        digest.update(str((tuple(tensor.shape), tensor.dtype)).encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()

"""Well-behaved workloads of every kind: checks must let them pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from workloads.base import Data, Split, TensorWorkload

SIZES = (203, 97, 101)  # rows for training, validation and test
FEATURES, CLASSES = 12, 5
TOKENS, WINDOW = 11, 16

CONFIG: dict[str, Any] = {
    "name": "double", "data": "synthetic", "batch_size": 8, "budget_samples": 8000, "eval_every": 160,
    "metric": "accuracy", "minimize": False, "target": None, "precision": "fp32", "compile": False,
    "label_noise": 0.0, "aux": {"clean": 0, "holdout": 0}, "eval_batch_size": 40,
}  # fmt: skip


def config(name: str, **changes: Any) -> dict[str, Any]:
    """The config of the double of that name, here or in the module that it names (``module.Name``)."""
    module, _, cls = name.rpartition(".")
    target = f"tests.doubles.{module or 'workloads'}.{cls}"
    metric = {"metric": "loss", "minimize": True} if lossy(target) else {}
    return {"_target_": target, **CONFIG, **metric, **changes}


def lossy(target: str) -> bool:
    """Whether its metric is the loss: text, and numbers that have no other."""
    module, _, cls = target.rpartition(".")
    return cls.startswith("Text") or cls == "Line" or module.endswith("_regression")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def parts(x: Tensor, y: Tensor) -> Data:
    """The rows in their order, dealt into splits of SIZES."""
    return Data(*map(Split, x.split(SIZES), y.split(SIZES)))


class Blobs(TensorWorkload):
    """Five clouds of points in [0, 1]; a small network."""

    model_kind = "mlp"
    num_classes = CLASSES
    input_range = (0.0, 1.0)

    def load(self, root: Path) -> Data:
        y = torch.randperm(sum(SIZES), generator=generator()) % CLASSES
        centres = torch.rand(CLASSES, FEATURES, generator=generator(1))
        noise = torch.randn(len(y), FEATURES, generator=generator(2))
        return parts((centres[y] + 0.1 * noise).clamp(0, 1), y)

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(FEATURES, 16), nn.Tanh(), nn.Linear(16, CLASSES))


class Moving(Blobs):
    """Augmented: points shake."""

    def augment(self) -> Any:
        return lambda x, g: (x + 0.02 * torch.randn(x.shape, generator=g)).clamp(0, 1)


class Normed(Blobs):
    """Batch norm and dropout."""

    def model(self) -> nn.Module:
        layers = (nn.Linear(FEATURES, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2))
        return nn.Sequential(*layers, nn.Linear(16, CLASSES))


class Hinged(Blobs):
    """A loss of its own: the squared hinge of one class against the others, with a penalty."""

    def _own_loss(self) -> Any:
        return SquaredHinge()


class SquaredHinge:
    """max(0, 1 − t·z)² with t = 1 for the right class and −1 for the others, summed; and ½·10⁻³·‖w‖²."""

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        signs = 2 * nn.functional.one_hot(targets, outputs.shape[1]) - 1
        return (1 - signs * outputs).clamp(min=0).square().sum(1)

    def penalty(self, params: Any) -> Tensor:
        return 5e-4 * torch.stack([p.square().sum() for p in params.values()]).sum()


class Loud(Blobs):
    """Large weights on purpose."""

    init_loss_note: ClassVar[str | None] = "weights as in a paper"

    def model(self) -> nn.Module:
        model = super().model()
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(30)
        return model


class Binary(Blobs):
    """The first two clouds; logistic regression from zero."""

    task = "binary"
    model_kind = "linear"
    num_classes = 2

    def load(self, root: Path) -> Data:
        data = super().load(root)
        return Data(*(Split(s.x, (s.y % 2).float()) for s in (data.train, data.validation, data.test)))

    def model(self) -> nn.Module:
        return OneLogit()


class OneLogit(nn.Module):
    """One logit a row, zero at first."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).squeeze(1)


class Line(Blobs):
    """A number for each point: linear in it, with noise; a linear model from zero."""

    task = "regression"
    model_kind = "linear"
    num_classes = 0

    def load(self, root: Path) -> Data:
        x = torch.rand(sum(SIZES), FEATURES, generator=generator(3))
        weights = torch.randn(FEATURES, generator=generator(4))
        return parts(x, x @ weights + 0.1 * torch.randn(len(x), generator=generator(5)))

    def model(self) -> nn.Module:
        return OneLogit()


class Text(TensorWorkload):
    """Next-token prediction in a drawn text, by the present token."""

    task = "lm"
    model_kind = "bigram"
    num_classes = TOKENS
    input_range = None
    metrics: ClassVar[tuple[str, ...]] = ("loss", "accuracy")

    def load(self, root: Path) -> Data:
        return Data(*(windows(text) for text in drawn_text().split([n * WINDOW + 1 for n in SIZES])))

    def model(self) -> nn.Module:
        model = nn.Sequential(nn.Embedding(TOKENS, 8), nn.Linear(8, TOKENS))
        nn.init.normal_(model[0].weight, std=0.1)
        return model


def drawn_text() -> Tensor:
    """Tokens for all splits, each with one token more than its windows."""
    return torch.randint(TOKENS, (sum(SIZES) * WINDOW + 3,), generator=generator())


def windows(text: Tensor) -> Split:
    """Windows side by side."""
    n = (len(text) - 1) // WINDOW
    x, y = text[: n * WINDOW], text[1 : n * WINDOW + 1]
    return Split(x.view(n, WINDOW).clone(), y.view(n, WINDOW).clone())

"""A few rows of the splits, models with other weights, and evaluations that are watched."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from runner.check.same import copied
from runner.check.workload_subject import SPLITS, Built
from runner.contract.generators import global_rng, set_global_rng
from runner.contract.stream import decode

SPREAD = 0.5  # standard deviation of outputs from which mistakes in a loss show
ROUNDS = 8


def access_fault(evaluate: Any) -> str | None:
    """What an evaluation lacks for its numbers to be held against anything."""
    splits = getattr(evaluate, "splits", None)
    wanted = "a mapping that holds validation and test, each with x and y"
    if not isinstance(splits, Mapping) or not set(SPLITS) <= set(splits):
        return f"{type(evaluate).__name__} needs `splits`, {wanted}: nothing to hold its numbers against"
    if not all(isinstance(getattr(splits[s], key, None), Tensor) for s in SPLITS for key in "xy"):
        return f"{type(evaluate).__name__}.splits must be {wanted}"
    if not isinstance(getattr(evaluate, "batch_size", None), int):
        return f"{type(evaluate).__name__} needs `batch_size`, rows a forward pass"
    return None


def some(n: int, most: int) -> Tensor:
    """Up to ``most`` of ``n`` positions, spread evenly: data may be sorted by class."""
    return torch.linspace(0, n - 1, min(n, most), dtype=torch.float64).round().long()


def enough(built: Built, targets: int) -> int:
    """Rows that have that many targets: a row of a language model has many."""
    return max(8, targets // built.task.data.y[:1].numel())


def cut(evaluate: Any, most: int, batch_size: int | None = None) -> Any:
    """The evaluation of a few rows of each split; not the same number of each."""
    small = copy.copy(evaluate)
    small.splits = {name: _rows(split, most - i) for i, (name, split) in enumerate(evaluate.splits.items())}
    small.batch_size = most if batch_size is None else batch_size
    return small


def _rows(split: Any, most: int) -> Any:
    rows, few = some(len(split.y), most).to(split.y.device), copy.copy(split)
    for key in ("x", "y"):
        object.__setattr__(few, key, getattr(split, key).index_select(0, rows))  # it may be frozen
    return few


class Watched:
    """What one call of an evaluation did.

    Attributes:
        metrics: what it answered.
        passed: rows that it passed through the model.
        graphs: whether it passed some with gradients enabled.
    """

    def __init__(self, model: nn.Module, evaluate: Any, split: str) -> None:
        self.passed, self.graphs = 0, False
        handle = model.register_forward_hook(self._note)
        try:
            self.metrics: dict[str, float] = evaluate(model, split, None)
        finally:
            handle.remove()

    def _note(self, _model: nn.Module, inputs: tuple[Any, ...], _outputs: object) -> None:
        self.passed += len(inputs[0])
        self.graphs |= torch.is_grad_enabled()

    def fault(self, rows: int, split: str) -> str | None:
        """Rows that were not passed exactly once."""
        if self.passed == rows:
            return None
        return (
            f"the evaluation passes {self.passed} rows through the model for the {rows} of {split}: "
            "it must read self.splits and self.batch_size at each call, and pass every row once"
        )


def evaluated(built: Built, evaluate: Any, split: str) -> Watched:
    """An evaluation as the loop asks for it: in evaluation mode, its forward passes not counted."""
    built.task.model.eval()
    with built.task.cost.paused():
        return Watched(built.task.model, evaluate, split)


def outputs(built: Built, x: Tensor) -> Tensor:
    """What the model answers to stored inputs, in the mode it is in."""
    with torch.no_grad(), built.task.cost.paused():
        return built.task.model(decode(x))


@contextmanager
def stirred(built: Built, x: Tensor, seed: int = 1) -> Iterator[None]:
    """Inside, weights that tell rows and classes apart: at zero, many a wrong loss is right.

    Noise is added until outputs spread, but not for ever: those of a softmax never do.
    """
    model = built.task.model
    saved, generator = copied(model.state_dict()), torch.Generator().manual_seed(seed)
    try:
        for _ in range(ROUNDS):
            _add_noise(model, generator)
            if outputs(built, x).std() > SPREAD:
                break
        yield
    finally:
        model.load_state_dict(saved)


@torch.no_grad()
def _add_noise(model: nn.Module, generator: torch.Generator) -> None:
    for p in model.parameters():
        noise = torch.randn(p.shape, generator=generator).to(p)
        p.add_(noise * (0.5 * p.square().mean().sqrt() + 0.05))


@contextmanager
def own_dice(device: torch.device) -> Iterator[None]:
    """Inside, torch's global generator may be used; afterwards it is as it was."""
    before = global_rng(device)
    try:
        yield
    finally:
        set_global_rng(before, device)

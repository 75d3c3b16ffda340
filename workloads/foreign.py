"""A model from elsewhere in the place of a workload's own, held against the rows it gets."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from runner.base.errors import UserError, one_line
from runner.contract.stream import decode
from runner.contract.targets import locate

Spec = Mapping[str, Any]  # the config of a model
SINGLE = ("binary", "regression")  # kinds of task with one number per row


class Outputs(nn.Module):
    """A model whose outputs are an object's ``logits``, or as (B, 1) where one number per row is needed."""

    def __init__(self, model: nn.Module, single: bool) -> None:
        super().__init__()
        self.model, self.single = model, single

    def forward(self, x: Tensor) -> Tensor:
        """Logits or numbers, as a workload's own model gives them."""
        return plain_outputs(self.model(x), self.single)


def plain_outputs(given: Any, single: bool) -> Tensor:
    """The tensor in what a model gives; (B,) of (B, 1) where ``single`` numbers are wanted.

    Raises:
        TypeError: where there is none.
    """
    outputs = given if isinstance(given, Tensor) else getattr(given, "logits", None)
    if not isinstance(outputs, Tensor):
        raise TypeError(f"gives {type(given).__name__}, which is no tensor and has none as its logits")
    return outputs.squeeze(-1) if single and outputs.dim() == 2 and outputs.shape[1] == 1 else outputs


def model_from_elsewhere(
    spec: Mapping[str, Any], rows: Tensor, task: str, num_classes: int, batch_size: int
) -> nn.Module:
    """A fresh model of that config, in training mode.

    Args:
        spec: its ``_target_`` and arguments; these may have targets of their own, as a config object.
        rows: a few training rows, as they are stored.
        task: the kind of task.
        num_classes: its classes, or tokens.
        batch_size: rows a step.

    Raises:
        UserError: where it cannot be built, does not take such rows or gives other outputs: in one line, with
            the shapes that are wanted and those there are.
    """
    name, x, single = f"workload.model ({spec.get('_target_')})", decode(rows), task in SINGLE
    model = _built(name, spec)
    if any(isinstance(p, UninitializedParameter) for p in model.parameters()):
        _passed(name, model.eval(), x)  # lazy layers learn their shapes
    given = _tried(name, model, x, batch_size)
    for out, sent in given:
        _check(name, plain_outputs(out, single), sent, wanted_shape(task, num_classes, rows))
    fits = all(isinstance(out, Tensor) and plain_outputs(out, single) is out for out, _ in given)
    return (model if fits else Outputs(model, single)).train()


def wanted_shape(task: str, num_classes: int, rows: Tensor) -> tuple[int, ...]:
    """Shape of the outputs of one row."""
    if task in SINGLE:
        return ()
    return (rows.shape[1], num_classes) if task == "lm" else (num_classes,)


def _built(name: str, spec: Mapping[str, Any]) -> nn.Module:
    from hydra.utils import instantiate

    if "_target_" not in spec:
        raise UserError("workload.model names no class: write {_target_: package.module.Class, …}")
    try:
        locate(spec["_target_"])
        model = instantiate(dict(spec), _convert_="all")
    except Exception as error:
        raise UserError(f"{name}: {one_line(str(error.__cause__ or error), 200)}") from error
    if not isinstance(model, nn.Module):
        raise UserError(f"{name}: is no torch.nn.Module but {type(model).__name__}")
    return model


def _tried(name: str, model: nn.Module, x: Tensor, batch_size: int) -> list[tuple[Any, Tensor]]:
    """What a copy gives in evaluation, and in training for no more rows than a step has; with the rows."""
    with torch.random.fork_rng([]):
        trial = copy.deepcopy(model)
        few = x[:batch_size]
        return [(_passed(name, trial.eval(), x), x), (_passed(name, trial.train(), few), few)]


def _passed(name: str, model: nn.Module, x: Tensor) -> Any:
    try:
        with torch.no_grad():
            given = model(x)
        plain_outputs(given, single=False)
    except Exception as error:
        mode = "training" if model.training else "evaluation"
        said = one_line(str(error) or type(error).__name__, 160)
        raise UserError(f"{name}: rows {_shape(x.shape)} fail in {mode}: {said}") from error
    return given


def _check(name: str, outputs: Tensor, x: Tensor, wanted: tuple[int, ...]) -> None:
    if tuple(outputs.shape) != (len(x), *wanted):
        got, rows = _shape(outputs.shape), _shape(x.shape)
        raise UserError(f"{name}: gives {got} for rows {rows}, and {_shape((len(x), *wanted))} is wanted")


def _shape(sizes: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, sizes))}{',' if len(sizes) == 1 else ''})"

"""Other activations in the place of a model's own, whether these are modules or function calls."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from runner.base.errors import UserError
from runner.contract.stream import decode
from runner.contract.task import Task

# Calls of modules (nn.ReLU) end up in these too.
ACTIVATIONS: tuple[Any, ...] = (
    F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.gelu, F.silu, F.leaky_relu, F.elu,
    F.celu, F.selu, F.hardswish, F.mish, F.softplus, torch.tanh, Tensor.tanh,
)  # fmt: skip


class _Replacing(TorchFunctionMode):
    """Inside, the k-th call of an activation is that of the k-th module."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.modules, self.calls = modules, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in ACTIVATIONS:
            return func(*args, **(kwargs or {}))
        self.calls += 1
        x = args[0] if args else (kwargs or {})["input"]
        return self.modules[self.calls - 1](x)


class _Counting(TorchFunctionMode):
    """Notes the shape that each call of an activation sees."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[torch.Size] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in ACTIVATIONS:
            self.shapes.append(result.shape)
        return result


def calls(model: nn.Module, task: Task) -> list[torch.Size]:
    """The shapes of what the activations of a forward pass return, in order, for one row."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    with torch.no_grad(), task.cost.paused(), _Counting() as counting:
        model(decode(task.data.x[:1]))
    task.cost.forward += 1
    for module, training in modes:
        module.training = training
    return counting.shapes


def replace(model: nn.Module, name: str, modules: Sequence[nn.Module]) -> nn.Module:
    """The same model, its k-th activation the k-th of ``modules``, which it has as a child ``name``.

    A sequence, whose children are its layers, has them as a child of its first layer. The class is subclassed
    rather than the instance patched, so that copies and functional calls do the same; parameters keep their
    names and identity.

    Raises:
        UserError: when there is nothing to replace.
    """
    if not modules:
        raise UserError(f"surgery {name}: the model calls no activation that it could replace")
    host, path = model, name
    while isinstance(host, (nn.Sequential, nn.ModuleList)):
        first, host = next(iter(host.named_children()))
        path = f"{path.removesuffix(name)}{first}.{name}"
    host.add_module(name, nn.ModuleList(modules))
    model.__class__ = _replaced(type(model), path)
    return model


@functools.cache
def _replaced(cls: type[nn.Module], path: str) -> type[nn.Module]:
    inner: Callable[[nn.Module, Tensor], Tensor] = cls.forward

    def forward(self: nn.Module, x: Tensor) -> Tensor:
        modules = list(self.get_submodule(path).children())
        with _Replacing(modules):
            return inner(self, x)

    return type(cls.__name__, (cls,), {"forward": forward, "__module__": cls.__module__})

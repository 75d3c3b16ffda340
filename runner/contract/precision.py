"""Precision and compilation of a model: the workload's choice, the same for every algorithm."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from runner.contract.precisions import PRECISIONS


def specialise(model: nn.Module, precision: str = "fp32", compile: bool = False) -> nn.Module:
    """Give ``model`` a forward pass under bf16 autocast and/or ``torch.compile``.

    TF32 is a switch of the process, which :func:`runner.machine.machine.configure` sets.

    The class is subclassed rather than the instance patched: a deep copy, a functional call and a
    direct call of the model then all run in the workload's precision.

    Raises:
        ValueError: for a precision other than ``"fp32"``, ``"tf32"`` or ``"bf16"``.
    """
    if precision not in PRECISIONS:
        *first, last = PRECISIONS
        raise ValueError(f"precision must be {', '.join(first)} or {last}, got {precision!r}")
    model.__class__ = _special(type(model), precision, compile)
    return model


def autocasts(model: nn.Module) -> bool:
    """Whether the model's forward pass runs under bf16 autocast."""
    return bool(getattr(type(model), "autocasts", False))


@functools.cache
def _special(cls: type[nn.Module], precision: str, compile: bool) -> type[nn.Module]:
    # One class for all models: compiled code belongs to it, and a new one would compile again, on the clock.
    if precision == "bf16":
        cls = _subclass(cls, _autocast_forward(cls))
        cls.autocasts = True  # type: ignore[attr-defined]
    if compile:
        cls = _subclass(cls, torch.compile(cls.forward))
    return cls


def _subclass(cls: type[nn.Module], forward: object) -> type[nn.Module]:
    return type(cls.__name__, (cls,), {"forward": forward, "__module__": cls.__module__})


def _autocast_forward(cls: type[nn.Module]) -> object:
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            outputs = cls.forward(self, x)
        return outputs.float()

    return forward

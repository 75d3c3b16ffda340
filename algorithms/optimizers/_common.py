"""What our own ``torch.optim.Optimizer`` classes share: checks of hyperparameters, closures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

ParamsT = Iterable[Tensor] | Iterable[dict[str, Any]]
Closure = Callable[[], Any]


def non_negative(**values: float) -> None:
    """Refuse negative (or NaN) hyperparameters.

    Raises:
        ValueError: naming the first one that is.
    """
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"{name} must be at least 0, got {value}")


def decay_rates(betas: Sequence[float]) -> None:
    """Refuse anything but two decay rates in [0, 1).

    Raises:
        ValueError: when there are not two, or one lies outside.
    """
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"betas must be two numbers in [0, 1), got {betas}")


def evaluate(closure: Closure | None) -> Any:
    """The loss that ``closure`` gives, with gradients enabled; None without one."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def with_grad(group: dict[str, Any], method: str) -> tuple[list[Tensor], list[Tensor]]:
    """The group's parameters that have a gradient, and their gradients.

    Raises:
        RuntimeError: for sparse gradients, as torch's own optimizers do.
    """
    params: list[Tensor] = [p for p in group["params"] if p.grad is not None]
    grads: list[Tensor] = [p.grad for p in params if p.grad is not None]
    if any(g.is_sparse for g in grads):
        raise RuntimeError(f"{method} does not support sparse gradients")
    return params, grads

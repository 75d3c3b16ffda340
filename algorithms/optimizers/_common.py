"""What our own ``torch.optim.Optimizer`` classes share: checks of hyperparameters, closures."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

ParamsT = Iterable[Tensor] | Iterable[dict[str, Any]]
Closure = Callable[[], Any]
Lists = tuple[list[Tensor], list[Tensor]]
BLOCK = 1 << 18  # numbers


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


def in_blocks(group: dict[str, Any], method: str) -> Iterator[Lists]:
    """:func:`with_grad`, in the pieces of :func:`cut`; none where nothing has a gradient."""
    return cut(*with_grad(group, method))


def cut(params: list[Tensor], grads: list[Tensor]) -> Iterator[Lists]:
    """Pieces of both lists: on a CPU some 2¹⁸ numbers, which its cache keeps from operation to operation."""
    start, numbers = 0, 0
    for end, p in enumerate(params, 1):
        numbers += p.numel() if p.device.type == "cpu" else 0
        if numbers >= BLOCK or end == len(params):
            yield params[start:end], grads[start:end]
            start, numbers = end, 0


def norms(tensors: Sequence[Tensor]) -> Tensor:
    """L2 norm of each tensor, (n,), in float32 or better: in float16 it would soon be infinite."""
    kinds = {t.dtype for t in tensors}
    wide = functools.reduce(torch.promote_types, kinds, torch.float32)
    return torch.stack(torch._foreach_norm(list(tensors), dtype=None if kinds == {wide} else wide))

"""Loss and accuracy in plain Python, one row and one class at a time: what a workload is held against.

A prediction of one number alone is a regression's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

Entry = tuple[list[float], float]  # logits and the right class; or a number, and the one that is wanted
KINDS = ("binary", "multiclass", "lm", "regression")
ENTRIES = 40_000  # logits that are worth going through in plain Python


class Reference(NamedTuple):
    """One row's share of the metrics."""

    loss: float
    right: float


def shape_fault(kind: str, outputs: Tensor, y: Tensor, num_classes: int) -> str | None:
    """Outputs that are not of the shape that the task has."""
    wanted = {
        "binary": (len(y),),
        "multiclass": (len(y), num_classes),
        "lm": (*y.shape, num_classes),
        "regression": (len(y),),
    }
    if tuple(outputs.shape) == wanted[kind]:
        return None
    return (
        f"the model's outputs are of shape {tuple(outputs.shape)}; "
        f"those of a {kind} task with {len(y)} rows are {wanted[kind]}"
    )


def entries(kind: str, outputs: Tensor, y: Tensor) -> list[list[Entry]]:
    """For each row, what its loss is the mean of."""
    values, targets = outputs.detach().double().tolist(), y.tolist()
    if kind == "binary":
        return [[([0.0, s], int(t))] for s, t in zip(values, targets, strict=True)]
    if kind == "multiclass":
        return [[(z, int(t))] for z, t in zip(values, targets, strict=True)]
    if kind == "regression":
        return [[([z], t)] for z, t in zip(values, targets, strict=True)]
    return [list(zip(zs, ts, strict=True)) for zs, ts in zip(values, targets, strict=True)]


def references(rows: Iterable[list[Entry]], own: Any = None) -> list[Reference]:
    """Each row's loss (the task's, or the workload's ``own``) and share of right answers."""
    return [_reference(row, own) for row in rows]


def _reference(row: list[Entry], own: Any) -> Reference:
    losses = [task_loss(z, t) if own is None else alone(own, z, t) for z, t in row]
    return Reference(mean(losses), mean([float(z.index(max(z)) == t) for z, t in row]))


def task_loss(z: list[float], target: float) -> float:
    """Cross-entropy of logits, the squared error of a number."""
    return (z[0] - target) ** 2 if len(z) == 1 else cross_entropy(z, target)


def cross_entropy(logits: list[float], target: float) -> float:
    """−log of the probability of the class ``target``, in nats."""
    top = max(logits)
    return top + math.log(sum(math.exp(z - top) for z in logits)) - logits[int(target)]


def alone(own: Any, logits: list[float], target: float) -> float:
    """A loss of one entry, without company."""
    return float(own(torch.tensor([logits]), torch.tensor([int(target)]))[0])


def softmax(logits: list[float]) -> list[float]:
    """Probabilities of the classes."""
    top = max(logits)
    total = sum(math.exp(z - top) for z in logits)
    return [math.exp(z - top) / total for z in logits]


def mean(values: list[float]) -> float:
    """Their mean, in double precision."""
    return math.fsum(values) / len(values)


def close(found: float, wanted: float, tolerance: float = 1e-4) -> bool:
    """Whether two numbers agree but for rounding in float32."""
    return abs(found - wanted) <= tolerance * abs(wanted) + 1e-6


def guess(found: float, wanted: float, rows: list[list[Entry]], own: Any, *counts: int) -> str:
    """``": what went wrong"``, where a known mistake gives the number that was found; else nothing.

    Args:
        found: the loss that was found.
        wanted: the loss of the reference.
        rows: outputs and targets that both are of.
        own: the workload's own loss, or None.
        counts: numbers, beside those of rows and tokens, by which a loss may have been divided.
    """
    counted = sorted({*counts, len(rows), len(rows[0])} - {1})
    divided = [(f"a mean is divided once more, by {n}", wanted / n) for n in counted]
    summed = [(f"a sum over {n}, not a mean", wanted * n) for n in counted]
    mistakes = [*divided, *summed, *(_mistaken(rows) if own is None else ())]
    return next((f": {text}" for text, value in mistakes if close(found, value)), "")


def _mistaken(rows: list[list[Entry]]) -> Iterator[tuple[str, float]]:
    """Losses that are taken for the task's, and what they give."""
    of_classes: dict[str, Callable[[list[float], float], float]] = {
        "a negative log-likelihood of probabilities, without the log": lambda z, t: -softmax(z)[int(t)],
        "softmax is applied twice; cross-entropy takes logits": lambda z, t: cross_entropy(softmax(z), t),
        "nll_loss of logits; it takes log-probabilities": lambda z, t: -z[int(t)],
    }
    of_numbers: dict[str, Callable[[list[float], float], float]] = {
        "half the squared error": lambda z, t: (z[0] - t) ** 2 / 2,
        "the absolute error, not its square": lambda z, t: abs(z[0] - t),
    }
    for text, loss in (of_numbers if len(rows[0][0][0]) == 1 else of_classes).items():
        yield text, mean([mean([loss(z, t) for z, t in row]) for row in rows])

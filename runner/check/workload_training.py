"""The task's losses and gradients against the row-by-row reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from runner.check import workload_numbers as numbers
from runner.check.workload_rows import own_dice, some
from runner.check.workload_subject import Built
from runner.contract.batch import Batch

WEIGHT = 2.0  # of every row, in the second of two passes


class Wanted:
    """What a task must answer to one batch: worked out from the model's outputs.

    Attributes:
        batch: the rows.
        rows: outputs and targets of each.
        losses: of each row, without a penalty.
        penalty: of the weights, which counts once, whatever the rows weigh.
        gradients: of the losses' mean, one tensor per parameter.
        pulls: gradients of the penalty, one tensor per parameter; None where there is none.
    """

    def __init__(self, built: Built, batch: Batch) -> None:
        own, model = built.own_loss, built.task.model
        logits = diced(built, lambda: model(batch.x))
        penalty = own.penalty(dict(model.named_parameters())) if hasattr(own, "penalty") else torch.zeros(())
        mean, params = _mean_loss(built.kind, logits, batch.y, own), built.task.params
        self.batch, self.rows = batch, numbers.entries(built.kind, logits, batch.y)
        self.losses = [row.loss for row in numbers.references(self.rows, own)]
        self.penalty = penalty.item()
        self.gradients = torch.autograd.grad(mean, params, allow_unused=True)
        self.pulls = (
            torch.autograd.grad(penalty, params, allow_unused=True)
            if penalty.requires_grad
            else [None] * len(params)
        )


def training_faults(built: Built, most: int) -> Iterator[str | None]:
    """What is wrong with losses and gradients of batches of up to ``most`` rows, in training mode."""
    task = built.task
    task.model.train()
    for size in (most, 5, 1):
        if size == 1 and task.info.has_batchnorm:
            continue  # one row has no statistics
        batch = task.data.take(some(task.data.n, size).to(task.data.x.device))
        wanted = Wanted(built, batch)
        yield _losses_fault(built, wanted)
        yield _backward_fault(built, wanted, None)
        yield _backward_fault(built, wanted, WEIGHT)


def _losses_fault(built: Built, wanted: Wanted) -> str | None:
    batch = wanted.batch
    with torch.no_grad():
        found = diced(built, lambda: built.task.losses(batch))
    if tuple(found.shape) != (len(batch),):
        return f"task.losses is of shape {tuple(found.shape)} for {len(batch)} rows, wanted ({len(batch)},)"
    for value, loss, row in zip(found.tolist(), wanted.losses, wanted.rows, strict=True):
        if not numbers.close(value, right := loss + wanted.penalty):
            why = numbers.guess(value, right, [row], built.own_loss, len(batch))
            return f"task.losses has {value:.6g} for a row whose loss is {right:.6g}{why}"
    return None


def _backward_fault(built: Built, wanted: Wanted, weight: float | None) -> str | None:
    batch, factor = wanted.batch, 1.0 if weight is None else weight
    batch.weights = None if weight is None else torch.full((len(batch),), weight, device=batch.y.device)
    try:
        found = float(diced(built, lambda: built.task.backward(batch)))
        gradients = [p.grad for p in built.task.params]
    finally:
        batch.weights = None
        for p in built.task.params:
            p.grad = None
    right = factor * numbers.mean(wanted.losses) + wanted.penalty
    if not numbers.close(found, right):
        why = numbers.guess(found, right, wanted.rows, built.own_loss)
        each = "" if weight is None else f", each weighing {weight:g},"
        return f"task.backward returns {found:.6g} for {len(batch)} rows{each} whose loss is {right:.6g}{why}"
    return _gradient_fault(gradients, wanted, factor)


def _gradient_fault(found: Any, wanted: Wanted, factor: float) -> str | None:
    gap = norm = actual = 0.0
    for tensors in zip(found, wanted.gradients, wanted.pulls, strict=True):
        g, w, pull = (torch.zeros(()) if t is None else t.double().cpu() for t in tensors)
        right = factor * w + pull
        gap += float((g - right).square().sum())
        norm += float(right.square().sum())
        actual += float(g.square().sum())
    if gap <= 1e-6 * norm + 1e-12:
        return None
    times, rows = math.sqrt(actual / norm) if norm else math.inf, len(wanted.batch)
    return (
        f"task.backward returns the mean loss over {rows} rows, but leaves other gradients than its own: "
        f"{times:.4g} times as long"
    )


def _mean_loss(kind: str, logits: Tensor, y: Tensor, own: Any) -> Tensor:
    """The mean over rows, and over the tokens of each, with its graph."""
    if kind == "regression":
        return (logits.double() - y.double()).square().mean()
    z = torch.stack([torch.zeros_like(logits), logits], dim=1) if kind == "binary" else logits
    z, targets = z.reshape(-1, z.shape[-1]), y.reshape(-1).long()
    if own is not None:
        return own(z, targets).mean()
    z = z.double()
    return (z.logsumexp(1) - z.gather(1, targets[:, None])[:, 0]).mean()


def diced(built: Built, action: Callable[[], Any]) -> Any:
    """What ``action`` answers: under the same dropout at every call, and not counted."""
    with own_dice(built.task.data.x.device), built.task.cost.paused():
        torch.manual_seed(0)
        return action()

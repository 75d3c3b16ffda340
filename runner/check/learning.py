"""Checks of plain good conduct: the loss falls, bf16 stays finite, a step does what a step must."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from runner.check.result import Result, failed, not_applicable, ok, verdict
from runner.check.same import difference
from runner.check.subject import LONG, Subject
from runner.check.trial import Step

STILL_STEPS = 4
MOVING = ("sampler", "objective", "reweighting")  # parts whose loss may mean another thing later on
BF16_STEPS = 6


def check_learns(subject: Subject) -> Result:
    """The validation metric improves over a short run, and the training loss does not rise.

    A training loss may rise by two standard errors; where a sampler, an objective or a reweighting shapes
    it, it is not comparable over time and only the workload's own, unweighted validation loss (or accuracy)
    counts.
    """
    trial = subject.long
    if trial.ended != "budget":
        return failed(f"the run of {LONG} steps ended as {trial.ended} after {len(trial.steps)} steps")
    first, last = trial.rows[0], trial.rows[-1]
    loss = [row["validation/loss"] for row in (first, last)]
    better = loss[1] < loss[0] or last.get("validation/accuracy", 0) > first.get("validation/accuracy", 0)
    if not better:
        return failed(
            f"after {len(trial.steps)} steps the validation loss went from {loss[0]:.4g} to {loss[1]:.4g}"
        )
    kinds = {kind for kind, _ in subject.targets()}
    rise = None if kinds & set(MOVING) else _rise([v for v in trial.losses if v is not None])
    return verdict(rise and f"the training loss rose from {rise[0]:.4g} to {rise[1]:.4g} in {LONG} steps")


def _rise(losses: list[Tensor]) -> tuple[float, float] | None:
    """Means of the first and the last quarter, when the last is higher by over two standard errors."""
    values = torch.stack([loss.reshape(()) for loss in losses]).double().cpu()
    quarter = max(2, len(values) // 4)
    first, last = values[:quarter], values[-quarter:]
    error = math.sqrt((first.var().item() + last.var().item()) / quarter)
    rises = last.mean() > first.mean() + 2 * error
    return (first.mean().item(), last.mean().item()) if rises else None


def check_still(subject: Subject) -> Result:
    """At a learning rate of 0 in the groups, where a schedule puts it, the weights stand still."""
    with subject.fresh():
        pieces = subject.pieces(LONG)
        groups = getattr(getattr(pieces.algorithm, "optimizer", None), "param_groups", None)
        if groups is None:
            return not_applicable("no schedule scales its steps: it is no composed algorithm")
        if any(group.get("lr") is None for group in groups):
            return not_applicable("no schedule scales its steps: it has no lr")
        before = [p.detach().clone() for p in pieces.task.params]
        for _ in range(STILL_STEPS):
            for group in groups:  # again and again: a schedule from elsewhere writes into the groups
                group["lr"] = group["initial_lr"] = 0.0
            pieces.algorithm.step(pieces.task)
            pieces.task.cost.steps += 1
    moved = [(p - start).abs().max().item() for p, start in zip(pieces.task.params, before, strict=True)]
    still = all(torch.allclose(p, start) for p, start in zip(pieces.task.params, before, strict=True))
    fault = f"at lr 0 in every group the weights move by {max(moved):.3g}: the step follows no schedule"
    return verdict(None if still else fault)


def check_bf16(subject: Subject) -> Result:
    """Under bf16 autocast, losses and weights stay finite."""
    trial = subject.train(BF16_STEPS, precision="bf16")
    for number, value in enumerate(trial.losses, start=1):
        if value is not None and not bool(torch.isfinite(value).all()):
            return failed(f"in bf16 the loss of step {number} is not finite")
    model = trial.pieces.task.model
    bad = [name for name, p in model.named_parameters() if not bool(torch.isfinite(p).all())]
    return verdict(f"in bf16 {bad[0]} is not finite after {len(trial.steps)} steps" if bad else None)


def check_step(subject: Subject) -> Result:
    """A step draws rows, returns a fresh detached 0-d float tensor and leaves the model in training mode."""
    for number, step in enumerate(subject.short.steps, start=1):
        fault = _step_fault(step)
        if fault is not None:
            return failed(f"step {number} {fault}")
    return ok()


def _step_fault(step: Step) -> str | None:
    loss = step.loss
    if step.cost["drawn"] < 1:
        return "drew no rows"
    if not isinstance(loss, Tensor):
        return f"returned a {type(loss).__name__}, not a tensor"
    if loss.dim() != 0 or not loss.is_floating_point():
        return f"returned a {loss.dtype} of shape {tuple(loss.shape)}, not a float scalar of shape ()"
    if loss.requires_grad:
        return "returned a loss that still hangs on its graph; detach it"
    if difference(step.value, loss) is not None:
        return "returned a tensor that later steps overwrite; return a new one"
    return None if step.training else "left the model in evaluation mode"

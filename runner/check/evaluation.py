"""Checks around evaluations: they leave training alone, and the model as it is."""

from __future__ import annotations

import math
from typing import Any

import torch

from runner.check.result import Result, failed, not_applicable, verdict
from runner.check.same import copied, difference
from runner.check.subject import Subject
from runner.check.trajectory import departure
from runner.check.trial import Pieces, Trial
from runner.contract.task import Task

BEFORE, AFTER = 6, 3  # steps before and after the swaps


def check_inert(subject: Subject) -> Result:
    """Evaluating at every step or now and then: the same training, bit for bit, last metrics, and cost."""
    if subject.short.pieces.algorithm.uses_metrics:
        return not_applicable("it uses_metrics: evaluations are meant to steer it")
    often, seldom = subject.train(eval_every=1), subject.short
    fault = departure(seldom, often, ("losses",)) or difference(_trained(seldom.state), _trained(often.state))
    if fault is not None:
        return failed(f"evaluating more often changes training: {fault}")
    fault = difference(_metrics(seldom), _metrics(often))
    if fault is not None:
        return failed(f"evaluating more often changes the last evaluation: {fault}")
    fault = difference(seldom.state["cost"], often.state["cost"])
    return verdict(fault and f"evaluating more often costs more: {fault}")


def check_promise(subject: Subject) -> Result:
    """Behind training, the weights that are evaluated are what every part promises of them."""
    task, algorithm = subject.long.pieces.task, subject.long.pieces.algorithm
    algorithm.enter_eval(task)
    fault = algorithm.broken_promise(task)
    algorithm.exit_eval(task)
    return verdict(fault)


def check_swap(subject: Subject) -> Result:
    """enter_eval twice is once; exit_eval puts the weights back by itself; neither rebuilds the model."""
    with subject.fresh():
        pieces = subject.pieces()
        before = [_step(pieces) for _ in range(BEFORE)]
        return verdict(_swap_fault(pieces) or _jump(pieces, before))


def _swap_fault(pieces: Pieces) -> str | None:
    task, algorithm = pieces.task, pieces.algorithm
    shape, weights = Shape(task), copied(task.model.state_dict())
    algorithm.enter_eval(task)
    if fault := shape.fault(task):
        return f"enter_eval {fault}"
    inside = copied(task.model.state_dict())
    algorithm.enter_eval(task)
    if fault := difference(inside, task.model.state_dict()):
        return f"a second enter_eval is not a no-op: {fault}"
    algorithm.exit_eval(task)
    if fault := shape.fault(task):
        return f"exit_eval {fault}"
    if shape.memory != _memory(task):
        return "exit_eval leaves parameters in other memory; copy into them instead (p.copy_)"
    if fault := _far(weights, task):
        return f"exit_eval does not put the training weights back: {fault}"
    return None


def _jump(pieces: Pieces, before: list[float]) -> str | None:
    most = max(map(abs, before))  # not the last alone: of a batch that LBFGS has fitted nothing is left
    for _ in range(AFTER):
        loss = _step(pieces)
        if not math.isfinite(loss) or loss > 10 * most + 10:
            return f"after enter_eval and exit_eval the loss jumps from {before[-1]:.3g} to {loss:.3g}"
    return None


def _step(pieces: Pieces) -> float:
    loss = pieces.algorithm.step(pieces.task)
    pieces.task.cost.steps += 1
    return float(loss.detach())


class Shape:
    """What an evaluation may not change of a model: its modules and parameters, by name and identity."""

    def __init__(self, task: Task) -> None:
        self.model = task.model
        self.modules = dict(task.model.named_modules())
        self.parameters = dict(task.model.named_parameters())
        self.trainable = {name: p.requires_grad for name, p in self.parameters.items()}
        self.memory = _memory(task)

    def fault(self, task: Task) -> str | None:
        """What has changed since, or None."""
        now = Shape(task)
        if now.model is not self.model:
            return "puts another model object in place (task.model); copy weights into the one there is"
        for what in ("modules", "parameters"):
            before, after = getattr(self, what), getattr(now, what)
            odd = [n for n in sorted({*before, *after}) if before.get(n) is not after.get(n)]
            if odd:
                return f"adds, removes or replaces {what} of the model: {', '.join(odd[:3])}"
        if now.trainable != self.trainable:
            return "changes which parameters require gradients"
        if [id(p) for p in task.params] != [id(p) for p in now.parameters.values() if p.requires_grad]:
            return "leaves task.params out of step with the model"
        return None


def _memory(task: Task) -> list[int]:
    return [p.data_ptr() for p in task.model.parameters()]


def _far(weights: dict[str, Any], task: Task) -> str | None:
    for name, parameter in task.model.named_parameters():
        if not torch.allclose(parameter, weights[name], rtol=1e-4, atol=1e-6):
            return f"{name} is off by {(parameter - weights[name]).abs().max().item():.3g}"
    return None


def _metrics(trial: Trial) -> dict[str, float]:
    return {key: value for key, value in trial.rows[-1].items() if key.startswith(("validation/", "test/"))}


def _trained(state: dict[str, Any]) -> dict[str, Any]:
    """What training left, without what evaluations may count or draw for themselves."""
    task = {key: state["task"][key] for key in ("model", "data", "aux")}
    return {
        "task": task,
        "algorithm": state["algorithm"],
        "drawn": state["cost"]["drawn"],
        "rng": state["rng"],
    }

"""The loop: train between points of the evaluation grid, evaluate on them, stop at the target.

Everything here is the same for every algorithm and every workload.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from runner.base.errors import Complete, Diverged
from runner.contract.algorithm import Algorithm
from runner.contract.diagnostic import Diagnostics
from runner.contract.generators import global_rng, set_global_rng
from runner.contract.task import Task
from runner.train.clock import Clock

HEARTBEAT = 1.0  # seconds between two progress messages


class Evaluate(Protocol):
    """The scored splits of a workload. Algorithms never get hold of it."""

    def __call__(
        self, model: nn.Module, split: str, predict: Callable[[Tensor], Tensor] | None
    ) -> dict[str, float]:
        """Metrics of ``model`` on ``"validation"`` or ``"test"``, in evaluation mode, without gradients."""
        ...


@dataclass(frozen=True)
class Plan:
    """When to evaluate and when to stop; the same for every algorithm on a workload.

    Attributes:
        eval_every: trained samples between two points of the evaluation grid.
        stop_at_target: end the run at the first hit.
        max_seconds: charged seconds after which the run ends; None for no limit.
        checkpoint_every: seconds between two checkpoints.
    """

    eval_every: int
    stop_at_target: bool = True
    max_seconds: float | None = None
    checkpoint_every: float = 60.0


@dataclass
class Progress:
    """What a run remembers beside the states of task and algorithm."""

    boundary: int = 0
    losses: list[Tensor] = field(default_factory=list)
    rows: int = 0
    hit: dict[str, Any] | None = None


class Alarm:
    """A moment after which the loop looks up from training; a signal sets it to now."""

    def __init__(self) -> None:
        self.at = 0.0
        self.preempted = False

    def ring(self) -> None:
        """Ask the loop to checkpoint and stop; safe inside a signal handler."""
        self.preempted = True
        self.at = 0.0


class Unsound(Exception):  # noqa: N818 - an outcome, not a fault
    """Nothing has been trained yet, and a metric is no number: no algorithm can be to blame."""


class Observer(Protocol):
    """What the loop tells the outside."""

    def row(self, row: dict[str, Any]) -> str | None:
        """An evaluation was made; returns why training is to stop here, None to go on."""
        ...

    def heartbeat(self, steps: int, drawn: int) -> None:
        """Training goes on."""
        ...

    def checkpoint(self) -> None:
        """Save now."""
        ...


@dataclass
class Loop:
    """One cell's training run. ``run`` returns why it ended."""

    task: Task
    algorithm: Algorithm
    evaluate: Evaluate
    plan: Plan
    clock: Clock
    observer: Observer
    alarm: Alarm = field(default_factory=Alarm)
    progress: Progress = field(default_factory=Progress)
    diagnostics: Diagnostics = field(default_factory=Diagnostics)

    def run(self) -> str:
        """Train to the target, the budget or a limit.

        Returns:
            ``"target"``, ``"budget"``, ``"complete"``, ``"max_seconds"``, ``"diverged"``, ``"stopped"`` or
            ``"preempted"``.
        """
        self._saved_at = time.perf_counter()
        while True:
            try:
                stopped = self._train_to(self.progress.boundary)
            except Diverged:
                stopped = "diverged"
            except Complete:
                stopped = "complete"
            if stopped == "preempted":
                return stopped
            ended = self._evaluate(stopped)
            if ended is not None:
                return ended

    # -- training ----------------------------------------------------------------------------------

    def _train_to(self, boundary: int) -> str | None:
        task, cost, alarm, step = self.task, self.task.cost, self.alarm, self.algorithm.step
        losses, now = self.progress.losses, time.perf_counter
        self.clock.switch("train")
        self._set_alarm()
        while (drawn := cost.drawn) < boundary:
            loss = step(task)
            losses.append(loss.detach() if loss.requires_grad else loss)
            cost.steps += 1
            if cost.drawn == drawn:
                raise RuntimeError("step() drew no rows from the task's streams: the budget would never end")
            if now() >= alarm.at and (stopped := self._look_up()) is not None:
                return stopped
        return None

    def _look_up(self) -> str | None:
        """Off the hot path: a signal, a checkpoint, the limit in seconds, a heartbeat."""
        if self.alarm.preempted or time.perf_counter() - self._saved_at >= self.plan.checkpoint_every:
            with self.clock.on("checkpoint"):
                self.observer.checkpoint()
            self._saved_at = time.perf_counter()
            if self.alarm.preempted:
                return "preempted"
        limit = self.plan.max_seconds
        if limit is not None and time.perf_counter() >= self.clock.charged_until(limit):
            return "max_seconds"
        self.observer.heartbeat(self.task.cost.steps, self.task.cost.drawn)
        self._set_alarm()
        return None

    def _set_alarm(self) -> None:
        at = min(time.perf_counter() + HEARTBEAT, self._saved_at + self.plan.checkpoint_every)
        if self.plan.max_seconds is not None:
            at = min(at, self.clock.charged_until(self.plan.max_seconds))
        self.alarm.at = 0.0 if self.alarm.preempted else at

    @property
    def past_budget(self) -> bool:
        """Whether training is a batch or more past the budget, where rivals were cut off: no hit counts."""
        info = self.task.info
        return self.task.cost.drawn >= info.budget_samples + info.batch_size

    # -- evaluation --------------------------------------------------------------------------------

    def _evaluate(self, stopped: str | None) -> str | None:
        task, info, progress, plan = self.task, self.task.info, self.progress, self.plan
        self.clock.switch("log")
        train_loss = mean_loss(progress.losses)
        if stopped in (None, "complete") and train_loss is not None and not math.isfinite(train_loss):
            stopped = "diverged"
        if stopped is None and task.cost.drawn >= info.budget_samples:
            stopped = "budget"
        if stopped is None and plan.max_seconds is not None and self.clock.charged >= plan.max_seconds:
            stopped = "max_seconds"
        metrics, reached = self._measure(final=stopped is not None)
        fault = unsound(metrics, f"validation/{info.metric}")
        if stopped in (None, "budget", "complete") and fault is not None:
            stopped = "diverged"
        row = self._row(metrics, train_loss)
        if reached and progress.hit is None and stopped != "diverged" and not self.past_budget:
            progress.hit = row
        if progress.hit is row and plan.stop_at_target:
            stopped = "target"
        progress.losses.clear()
        progress.boundary = self._next_boundary()
        progress.rows += 1
        reason = self.observer.row(row)
        if fault is not None and progress.rows == 1:
            raise Unsound(fault)
        if self.algorithm.uses_metrics and stopped is None:
            self.clock.switch("train")
            self.algorithm.observe({k: v for k, v in metrics.items() if k.startswith("validation/")})
        if stopped is None and reason is not None:
            with self.clock.on("checkpoint"):
                self.observer.checkpoint()
            return "stopped"
        return stopped

    def _measure(self, final: bool) -> tuple[dict[str, float], bool]:
        """Metrics of the weights that the algorithm wants evaluated; training state is left untouched."""
        task, clock, info = self.task, self.clock, self.task.info
        clock.switch("eval")
        guard = Guard(task.model, task.data.x.device)
        clock.switch("swap")
        self.algorithm.enter_eval(task)
        clock.switch("eval")
        task.model.eval()
        with task.cost.paused():
            metrics = self._split("validation")
            reached = hits(metrics[f"validation/{info.metric}"], info.target, info.minimize)
            if final or (reached and self.progress.hit is None):
                metrics |= self._split("test")
        guard.restore_mode()
        clock.switch("swap")
        self.algorithm.exit_eval(task)
        clock.switch("eval")
        guard.restore()
        if self.diagnostics.parts:
            metrics |= self.diagnostics.measure(task, guard.restore)
            guard.restore()
        clock.switch("log")
        return metrics, reached

    def _split(self, split: str) -> dict[str, float]:
        values = self.evaluate(self.task.model, split, self.algorithm.predict)
        return {f"{split}/{name}": value for name, value in values.items()}

    def _row(self, metrics: Mapping[str, float], train_loss: float | None) -> dict[str, Any]:
        cost, clock = self.task.cost, self.clock
        report = {k: v for k, v in self.algorithm.report().items() if math.isfinite(v)}
        return {
            "eval_index": self.progress.rows,
            "drawn": cost.drawn,
            "steps": cost.steps,
            "samples": cost.samples,
            "seconds": clock.charged,
            **metrics,
            **({} if train_loss is None else {"train/loss": train_loss}),
            **{f"report/{key}": value for key, value in report.items()},
            **{f"cost/{k}": v for k, v in cost.state_dict().items() if k not in ("drawn", "steps")},
            **{f"clock/{account}": seconds for account, seconds in clock.accounts.items()},
        }

    def _next_boundary(self) -> int:
        grid = self.plan.eval_every
        return min((self.task.cost.drawn // grid + 1) * grid, self.task.info.budget_samples)


class Guard:
    """Keeps the training state safe across an evaluation: weights, buffers, modes, global generators."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.model, self.device = model, device
        self.saved = [t.clone() for t in self._tensors()]
        self.modes = [(module, module.training) for module in model.modules()]
        self.rng = global_rng(device)

    def _tensors(self) -> list[Tensor]:
        return [t.detach() for t in (*self.model.parameters(), *self.model.buffers())]

    def restore_mode(self) -> None:
        """Put every module back into the mode it had."""
        for module, training in self.modes:
            module.training = training

    def restore(self) -> None:
        """Put all of it back, bit for bit, wherever the model keeps its tensors by now."""
        for tensor, saved in zip(self._tensors(), self.saved, strict=True):
            tensor.copy_(saved)
        self.restore_mode()
        set_global_rng(self.rng, self.device)


def mean_loss(losses: list[Tensor]) -> float | None:
    """Mean of the segment's losses, read from the device once; None for an empty segment."""
    if not losses:
        return None
    return torch.stack(losses).double().mean().item()


def unsound(metrics: Mapping[str, float], scored: str) -> str | None:
    """``validation/loss is nan``: what of the validation split is no number, or the scored metric infinite.

    NaN outputs still have an accuracy, so every metric is looked at. The test split never decides anything.
    """
    if not math.isfinite(metrics[scored]):
        return f"{scored} is {metrics[scored]}"
    odd = (key for key, value in metrics.items() if key.startswith("validation/") and math.isnan(value))
    return next((f"{key} is nan" for key in odd), None)


def hits(value: float, target: float | None, minimize: bool) -> bool:
    """Whether ``value`` is at least as good as the target; NaN and the infinities never are."""
    if target is None or not math.isfinite(value):
        return False
    return value <= target if minimize else value >= target

"""Schedules from elsewhere, as torch, timm and transformers have them: built on an optimizer and stepped.

What makes a schedule of this kind is an argument for the optimizer. It writes into the optimizer's groups,
momentum too, where a schedule of ours is a factor on every learning rate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from runner.base.errors import UserError
from runner.contract.instantiate import build_part, target_of
from runner.contract.targets import arguments

if TYPE_CHECKING:
    from runner.contract.batch import Batch
    from runner.contract.task import Task

EVERY = ("step", "epoch")
LOSSES = ("metrics", "metric", "loss")  # what step() may want, by the name of its argument
COUNTS = ("epoch", "step", "t", "num_updates")


def optimizer_argument(spec: Any) -> str | None:
    """The argument for the optimizer that a class or function has; None for what is no such schedule."""
    target = target_of(spec)
    taken = arguments(target).values()
    typed = (arg.name for arg in taken if str(arg.annotation).rpartition(".")[2].strip("'>") == "Optimizer")
    return next((arg.name for arg in taken if arg.name == "optimizer"), next(typed, None))


class Stepped:
    """One such schedule on its optimizer.

    Args:
        spec: its config, without placeholders; ``every: epoch`` steps it as often as the training rows have
            been drawn, ``every: step`` (default) behind each step. One with a ``step_update`` beside its
            ``step``, as timm's, gets both: the first behind a step, the other behind an epoch.
        optimizer: what moves the weights, within any wrapper.

    Raises:
        UserError: where it cannot be built, or its ``step`` wants what there is none of.
    """

    def __init__(self, spec: Any, optimizer: Any) -> None:
        own = dict(spec) if isinstance(spec, Mapping) else {}
        every = own.pop("every", "step")
        self.schedule: Any = _built("schedule", own or spec, optimizer)
        self._updates = getattr(self.schedule, "step_update", None)
        if every not in EVERY or (self._updates is not None and "every" in (spec or ())):
            raise UserError(f"algorithm.schedule.every: {self._options()}, got {every}")
        self._by_epoch = every == "epoch" or self._updates is not None
        self._wants = _wanted(self.schedule)
        self.follows_loss = self._wants in LOSSES
        self.epoch = self.updates = self.seen = 0
        self.total: Tensor | None = None

    def setup(self, task: Task) -> None:
        """Learn how long an epoch is."""
        self._rows = task.info.num_train
        epoch = max(1, task.info.num_train // task.info.batch_size)
        self.syncs_every = (epoch if self._by_epoch else 1) if self.follows_loss else 0

    def listening(self, estimator: Callable[[Task, Batch], Tensor]) -> Callable[[Task, Batch], Tensor]:
        """The estimator, its losses noted for a schedule that follows them."""

        def noted(task: Task, batch: Batch) -> Tensor:
            loss = estimator(task, batch)
            value = loss.detach().float()
            self.total = value if self.total is None else self.total + value
            self.seen += 1
            return loss

        return noted if self.follows_loss else estimator

    def after_step(self, task: Task) -> None:
        """Step the schedule, where it is its turn."""
        self.updates += 1
        if self._updates is not None:
            self._updates(self.updates)
        if not self._by_epoch:
            self._step(self.updates)
        elif (epoch := task.cost.drawn // self._rows) > self.epoch:
            self.epoch = epoch
            self._step(epoch)

    def state_dict(self) -> dict[str, Any]:
        """The schedule's own state, and where it is."""
        counts = {name: getattr(self, name) for name in ("epoch", "updates", "seen", "total")}
        return {"schedule": self.schedule.state_dict(), **counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.schedule.load_state_dict(state["schedule"])
        for name in ("epoch", "updates", "seen", "total"):
            setattr(self, name, state[name])

    def _step(self, count: int) -> None:
        if self._wants is None:
            self.schedule.step()
        elif not self.follows_loss:
            self.schedule.step(count)
        elif self.total is not None:
            self.schedule.step((self.total / self.seen).item())
            self.total, self.seen = None, 0

    def _options(self) -> str:
        both = "this schedule knows both kinds of step; its own arguments decide which counts"
        return f"must be one of {', '.join(EVERY)}" if self._updates is None else both


def refuse_stepped(who: str, schedule: Any) -> None:
    """Raise where ``who`` reads the factor that a schedule of ours is, and ``schedule`` is none.

    Raises:
        ValueError: with the reason.
    """
    if schedule is not None and optimizer_argument(schedule) is not None:
        raise ValueError(f"{who} reads a schedule's factor, which one from elsewhere does not have")


def _built(where: str, spec: Any, optimizer: Any) -> Any:
    """A schedule with its inner ones, each on ``optimizer``; other parts in it as they are written."""
    if isinstance(spec, list):
        return [_built(f"{where}.{place}", one, optimizer) for place, one in enumerate(spec)]
    if isinstance(spec, Mapping) and "_target_" not in spec:
        return {key: _built(f"{where}.{key}", one, optimizer) for key, one in spec.items()}
    argument = optimizer_argument(spec) if callable(spec) or isinstance(spec, Mapping) else None
    if not isinstance(spec, Mapping):
        return spec(optimizer) if argument is not None else spec
    inner = {key: _built(f"{where}.{key}", value, optimizer) for key, value in spec.items()}
    return build_part(where, inner if argument is None else {**inner, argument: optimizer})


def _wanted(schedule: Any) -> str | None:
    """The argument without which ``step`` cannot be called, if any."""
    if not all(hasattr(schedule, name) for name in ("step", "state_dict", "load_state_dict")):
        raise UserError(
            f"algorithm.schedule: takes an optimizer, but gives a {type(schedule).__name__}: step(), "
            "state_dict() and load_state_dict() are needed"
        )
    taken = arguments(schedule.step).values()
    needed = [arg.name for arg in taken if arg.default is arg.empty and arg.kind <= arg.POSITIONAL_OR_KEYWORD]
    if len(needed) > 1 or any(name not in LOSSES + COUNTS for name in needed):
        raise UserError(
            f"algorithm.schedule ({type(schedule).__name__}): step() needs {', '.join(needed)}; a step here "
            f"has a training loss ({LOSSES[0]}) or a count ({COUNTS[0]})"
        )
    return needed[0] if needed else None

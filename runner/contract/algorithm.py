"""What the loop knows of a training algorithm, and the protocols of its parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from runner.contract.batch import Batch, Info
from runner.contract.task import Task


class Algorithm:
    """A training algorithm. The loop calls these methods and no others.

    A whole algorithm subclasses this and writes its own :meth:`step`; most methods are one part of
    :class:`runner.parts.composed.Composed` instead.

    Attributes:
        predict: parameter-free map of model outputs, same shape, used at evaluation; or None.
        syncs_every: steps between two waits for the device; 0 means that a step never waits.
        uses_metrics: whether :meth:`observe` changes training.
        open_division: whether the algorithm changes what the model computes.
        notices: what set-up has found that whoever runs the cell should know; shown, and kept.
    """

    predict: Callable[[Tensor], Tensor] | None = None
    syncs_every: int = 0
    uses_metrics: bool = False
    open_division: bool = False
    notices: tuple[str, ...] = ()

    def compatible(self, info: Info) -> str | None:
        """Why this algorithm cannot run on such a workload, or None when it can."""
        return None

    def setup(self, task: Task) -> None:
        """Prepare for ``task``; charged. Runs again, from the same seed, before a resume."""

    def cycle(self, info: Info) -> int:
        """Steps until it has done all that it does now and then; an evaluation a step where ``uses_metrics``.

        Asked behind :meth:`setup`, by checks and tests, which train at least that long where they can.
        """
        return 0

    def step(self, task: Task) -> Tensor:
        """Draw at least one training row and update the model; returns the training loss, detached, 0-d.

        Raises:
            Complete: in place of training, where the algorithm wants to end before the budget does.
        """
        raise NotImplementedError

    def enter_eval(self, task: Task) -> None:
        """Put the weights in place that are to be evaluated; charged. Idempotent."""

    def exit_eval(self, task: Task) -> None:
        """Put the training weights back; charged. The harness restores them bit for bit afterwards."""

    def broken_promise(self, task: Task) -> str | None:
        """How the weights now in the model break what the method promises of them, or None; cheap.

        Called between :meth:`enter_eval` and :meth:`exit_eval`, by checks alone.
        """
        return None

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Validation metrics of the last evaluation; called only where ``uses_metrics`` is true."""

    def report(self) -> dict[str, float]:
        """Scalars to log at evaluations (a step size, a norm); off the clock."""
        return {}

    def found(self) -> dict[str, str]:
        """What set-up found out that nobody had said, for the log and the manifest: part -> a line."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """All that training changes here: tensors, numbers, strings, lists and dicts alone."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""


class Part:
    """Optional base of a part: every hook a part may have, as a no-op. A part may have any subset of these.

    ``setup(task)`` runs once, charged · ``compatible(info)`` gives a reason why not · ``after_step(task)``
    runs behind each optimizer step · ``swap_in/swap_out(task)`` put other weights in place around an
    evaluation, charged · ``map_evaluated(task, trained)`` changes in place the weights that are evaluated,
    whichever they are; ``trained`` are copies of those that train · ``broken_promise(task, trained)`` says
    how the evaluated weights break what the part promises of them, or None · ``observe(metrics)`` needs
    ``uses_metrics = True`` · ``cycle(info)`` gives the steps until it has done all that it does now and
    then · ``report()`` gives scalars to log · ``found()`` a line of what set-up found out, or
    None · ``state_dict/load_state_dict`` hold all that training changes.
    """

    syncs_every: ClassVar[int] = 0
    uses_metrics: ClassVar[bool] = False


class OptimizerLike(Protocol):
    """Any ``torch.optim.Optimizer``. With ``needs_loss = True`` the step gets ``loss=`` a device scalar."""

    param_groups: list[dict[str, Any]]

    def step(self) -> Any:
        """Update the parameters from their ``.grad``."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """State and hyperparameters."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        ...


# {"params": […], …}. The optimizer fills in the rest; lr_scale and weight_decay_scale are factors on that.
Groups = Callable[[Task], list[dict[str, Any]]]
Wrapper = Callable[[torch.optim.Optimizer], OptimizerLike]
Schedule = Callable[[float], float]
Sampler = Callable[[Task], Batch]
Estimator = Callable[[Task, Batch], Tensor]
Transform = Callable[[list[Tensor], list[Tensor]], None]
Surgery = Callable[[nn.Module, Task], nn.Module]


@runtime_checkable
class Average(Protocol):
    """Weights that are evaluated in place of the training weights."""

    def update(self, task: Task) -> None:
        """Take the present weights in; behind each optimizer step."""
        ...

    def swap_in(self, task: Task) -> None:
        """Put the averaged weights into the model."""
        ...

    def swap_out(self, task: Task) -> None:
        """Put the training weights back."""
        ...

"""Averages from elsewhere: a copy of the model that takes the weights in after each step."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from runner.base.errors import UserError
from runner.contract.instantiate import build_part, target_of
from runner.contract.swap import Swap
from runner.contract.targets import arguments
from runner.contract.task import Task

MODEL = "model"  # what such a class is built with, before all else
NAMES = ("module", "ema", "ema_model")  # of the attribute that is the copy; others are looked at, too
UPDATES = ("update_parameters", "update")  # methods by which it takes the weights of a model in


def build_average(spec: Any) -> Any:
    """An average from its config (or its factory): ours, a class that keeps a copy of a model, or a function.

    A function takes averaged and present weights and how many went before, one parameter at a time or all in
    lists, as torch's ``get_ema_avg_fn`` and ``get_ema_multi_avg_fn`` return them.

    Raises:
        UserError: as :func:`runner.contract.instantiate.build_part`.
    """
    if isinstance(spec, Mapping) and _takes_model(target_of(spec)):
        return AveragedCopy(lambda model: build_part("average", _with_functions(spec), model))
    part = build_part("average", spec)
    if hasattr(part, "swap_in") or not inspect.isroutine(part):
        return part
    given: dict[str, Any] = {_argument_for(part): part}
    return AveragedCopy(lambda model: AveragedModel(model, **given))


class AveragedCopy:
    """A copy of the model, kept by a class from elsewhere; its weights and buffers are evaluated.

    Args:
        make: from a model to what keeps a copy of it.
    """

    def __init__(self, make: Callable[[nn.Module], Any]) -> None:
        self.make = make

    def setup(self, task: Task) -> None:
        """Start at the present weights.

        Raises:
            UserError: where it keeps no copy, or takes no weights in.
        """
        self.copy, self.steps = self.make(task.model), 0
        self._update = next((getattr(self.copy, name) for name in UPDATES if hasattr(self.copy, name)), None)
        module = _copy_in(self.copy, task.model)
        if self._update is None or module is None:
            raise UserError(
                f"algorithm.average ({type(self.copy).__name__}): needs a copy of the model as an attribute, "
                f"such as {NAMES[0]}, with the same parameters, and {' or '.join(UPDATES)}"
            )
        taken = arguments(self._update)
        self._counts, self._is_given = (
            "step" in taken,
            len(taken) > 0,
        )  # one without arguments keeps the model
        self._kept = self.copy if hasattr(self.copy, "state_dict") else module
        live, mean = (one.state_dict(keep_vars=True) for one in (task.model, module))
        self._swap = Swap(*([tensors[name].data for name in live] for tensors in (live, mean)))

    @torch.no_grad()
    def update(self, task: Task) -> None:
        """Take the present weights in."""
        assert self._update is not None
        self.steps += 1
        given = (task.model,) if self._is_given else ()
        self._update(*given, **({"step": self.steps} if self._counts else {}))

    def swap_in(self, task: Task) -> None:
        """Put the copy's weights into the model; a second call changes nothing."""
        self._swap.enter()

    def swap_out(self, task: Task) -> None:
        """Put the training weights back, bit for bit; without a :meth:`swap_in` before, nothing."""
        self._swap.leave()

    def state_dict(self) -> dict[str, Any]:
        """What the class keeps, and the number of updates."""
        return {"steps": self.steps, "copy": self._kept.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.steps = state["steps"]
        self._kept.load_state_dict(state["copy"])


def _copy_in(keeper: Any, model: nn.Module) -> nn.Module | None:
    """The copy of ``model`` that ``keeper`` has: of the usual names the first, else any."""
    held = {**vars(keeper), **getattr(keeper, "_modules", {})}
    candidates = [*(held[name] for name in NAMES if name in held), *held.values()]
    names = model.state_dict().keys()
    return next(
        (
            one
            for one in candidates
            if isinstance(one, nn.Module) and one is not model and one.state_dict().keys() == names
        ),
        None,
    )


def _takes_model(target: Any) -> bool:
    """Whether a class or function is called with a model, and is no part of ours."""
    if target is None or hasattr(target, "swap_in"):
        return False
    first = next(iter(arguments(target).values()), None)
    return first is not None and first.name == MODEL and first.default is first.empty


def _with_functions(spec: Mapping[str, Any]) -> dict[str, Any]:
    """``spec`` with the functions that its own targets return in their place."""
    return {
        key: build_part(f"average.{key}", value)
        if isinstance(value, Mapping) and "_target_" in value
        else value
        for key, value in spec.items()
    }


def _argument_for(function: Callable[..., Any]) -> str:
    """Torch's name for it: for one parameter, of which it returns the average, or for lists of them."""
    try:
        one = function(torch.zeros(1), torch.ones(1), torch.ones((), dtype=torch.int64))
    except Exception:  # it wants lists
        one = None
    return "avg_fn" if isinstance(one, Tensor) else "multi_avg_fn"

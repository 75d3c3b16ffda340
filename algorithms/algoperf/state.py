"""A submission's ``optimizer_state`` as data for a checkpoint, and back into what set-up has made."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Mapping
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# What stands in the place of an object: its state_dict(), its attributes, its name in the model, nothing.
STATE, ATTRIBUTES, PARAMETER, MEMORY, MADE, FIELDS, GENERATOR = (
    "of state_dict", "of attributes", "parameter", "memory of parameter", "as made", "of fields",
    "of generator",
)  # fmt: skip
DATA = (bool, int, float, complex, str, bytes, type(None))


class Unheld(Exception):  # noqa: N818 - an outcome, not a fault
    """Something that no checkpoint can hold; the message says what and where."""


def held(value: Any, model: nn.Module, where: str = "optimizer_state") -> Any:
    """``value`` in tensors, numbers, text, lists and dicts; parameters of ``model`` by their names.

    Raises:
        Unheld: for what cannot be put so.
    """
    return _Held(model).of(value, where)


class _Held:
    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._memory = {_place(parameter): name for name, parameter in model.named_parameters()}

    def of(self, value: Any, where: str) -> Any:
        """See :func:`held`."""
        if id(value) in self._names:
            return {PARAMETER: self._names[id(value)]}
        if isinstance(value, Tensor) and _place(value) in self._memory:
            return {MEMORY: self._memory[_place(value)]}
        if type(value) in DATA or isinstance(value, (Tensor, np.ndarray, np.generic)):
            return value
        if type(value) is dict:
            return {key: self.of(item, f"{where}.{key}") for key, item in value.items()}
        if type(value) in (list, tuple, deque):
            return _like(value, [self.of(item, f"{where}.{place}") for place, item in enumerate(value)])
        return self._object(value, where)

    def _object(self, value: Any, where: str) -> Any:
        if value is self._model or _never_changes(value):
            return {MADE: type(value).__name__}
        if isinstance(value, torch.Generator):
            return {GENERATOR: value.get_state()}
        if isinstance(value, tuple):  # a named one
            return {FIELDS: [self.of(item, f"{where}.{place}") for place, item in enumerate(value)]}
        if hasattr(value, "state_dict") and hasattr(value, "load_state_dict"):
            return {STATE: self.of(_state_dict(value, where), where)}
        if isinstance(value, Mapping):
            return {STATE: {key: self.of(item, f"{where}.{key}") for key, item in value.items()}}
        if hasattr(value, "__dict__"):
            return {ATTRIBUTES: {key: self.of(item, f"{where}.{key}") for key, item in vars(value).items()}}
        raise Unheld(f"{where} is a {type(value).__name__}")


def _place(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.data_ptr(), tensor.shape, tensor.dtype


def _state_dict(value: Any, where: str) -> Any:
    try:
        return dict(value.state_dict())
    except Exception as error:
        raise Unheld(f"{where}.state_dict() raises {type(error).__name__}") from error


def _never_changes(value: Any) -> bool:
    """Whether an object is the same throughout training: a function, a constant, a frozen record."""
    constant = isinstance(value, (enum.Enum, torch.dtype, torch.device, torch.Size, FunctionType, type))
    return constant or getattr(getattr(value, "__dataclass_params__", None), "frozen", False)


def _like(value: Any, items: list[Any]) -> Any:
    return deque(items, value.maxlen) if isinstance(value, deque) else type(value)(items)


def restored(saved: Any, made: Any, model: nn.Module) -> Any:
    """What :func:`held` was given, in the objects of ``made``: what set-up has made in its place.

    Raises:
        Unheld: where set-up has made nothing that an object's state belongs to.
    """
    if type(saved) is dict and len(saved) == 1 and (kind := next(iter(saved))) in _BACK:
        return _BACK[kind](saved[kind], made, model)
    if type(saved) is dict:
        before = made if isinstance(made, Mapping) else {}
        return {key: restored(item, before.get(key), model) for key, item in saved.items()}
    if type(saved) in (list, tuple, deque):
        before = list(made) if isinstance(made, (list, tuple, deque)) else []
        before += [None] * (len(saved) - len(before))
        return _like(saved, [restored(*pair, model) for pair in zip(saved, before, strict=False)])
    return saved


def _into_state(saved: Any, made: Any, model: nn.Module) -> Any:
    _need(made)
    if hasattr(made, "load_state_dict"):
        state = restored(saved, dict(made.state_dict()), model)
        made.load_state_dict(state)
        if isinstance(made, torch.optim.Optimizer):
            _in_own_types(made, state["state"])
    else:
        made.update(restored(saved, made, model))
    return made


def _in_own_types(optimizer: torch.optim.Optimizer, state: Mapping[int, Mapping[str, Any]]) -> None:
    """Put tensors back in the types that they had, where torch has cast them to those of the weights."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for place, values in state.items():
        own = optimizer.state[parameters[place]]
        for name, value in values.items():
            if isinstance(value, Tensor) and value.dtype != getattr(own.get(name), "dtype", value.dtype):
                own[name] = value.to(own[name].device)


def _into_attributes(saved: Any, made: Any, model: nn.Module) -> Any:
    _need(made)
    vars(made).update(restored(saved, vars(made), model))
    return made


def _into_fields(saved: Any, made: Any, model: nn.Module) -> Any:
    _need(made)
    return type(made)(*restored(saved, list(made), model))


def _into_generator(saved: Any, made: Any, model: nn.Module) -> Any:
    _need(made)
    made.set_state(saved.cpu())
    return made


def _as_made(saved: Any, made: Any, model: nn.Module) -> Any:
    _need(made)
    return made


def _need(made: Any) -> None:
    if made is None:
        raise Unheld("training has made an object that set-up does not make")


_BACK = {
    STATE: _into_state,
    ATTRIBUTES: _into_attributes,
    PARAMETER: lambda saved, made, model: model.get_parameter(saved),
    MEMORY: lambda saved, made, model: model.get_parameter(saved).data,
    FIELDS: _into_fields,
    GENERATOR: _into_generator,
    MADE: _as_made,
}

"""An optimizer's state comes back in the types in which it was saved; torch casts it to the weights'."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor

HOOKS = "_optimizer_load_state_dict_pre_hooks"  # of an optimizer that has called torch's constructor


def keep_types(optimizer: Any) -> None:
    """Have every ``load_state_dict`` of a torch optimizer bring back float64 and bf16 state as it was.

    Args:
        optimizer: changed in place; one that loads by code of its own is left as it is.
    """
    if not isinstance(optimizer, torch.optim.Optimizer) or not hasattr(optimizer, HOOKS):
        return
    states: list[Mapping[str, Any]] = []
    optimizer.register_load_state_dict_pre_hook(lambda _, state: states.append(state))
    optimizer.register_load_state_dict_post_hook(lambda loaded: _retype(loaded, states.pop()))


def _retype(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    numbers = chain.from_iterable(group["params"] for group in saved["param_groups"])
    params = chain.from_iterable(group["params"] for group in optimizer.param_groups)
    for number, param in zip(numbers, params, strict=True):
        if number in saved["state"]:
            optimizer.state[param] = _as_saved(optimizer.state[param], saved["state"][number])


def _as_saved(loaded: Any, saved: Any) -> Any:
    if isinstance(loaded, Tensor) and isinstance(saved, Tensor):
        return loaded if loaded.dtype == saved.dtype else saved.detach().clone().to(loaded.device)
    if isinstance(loaded, dict) and isinstance(saved, Mapping):
        return {key: _as_saved(value, saved[key]) for key, value in loaded.items()}
    if type(loaded) in (list, tuple) and isinstance(saved, (list, tuple)) and len(loaded) == len(saved):
        return type(loaded)(map(_as_saved, loaded, saved))
    return loaded

"""What our own ``torch.optim.Optimizer`` classes are made of: refusals, copies, hooks, steps by blocks."""

from __future__ import annotations

import contextlib
import copy
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from algorithms.optimizers._common import Closure, evaluate, in_blocks

STATE_HOOKS = tuple(
    f"_optimizer_{name}_hooks"
    for name in ("state_dict_pre", "state_dict_post", "load_state_dict_pre", "load_state_dict_post")
)


class Base(torch.optim.Optimizer):
    """An optimizer whose copies, pickled ones too, and whose loaded states go on as their originals.

    What a rule remembers belongs into ``self.state[p]`` (of one parameter), ``self.shared`` (of all of them)
    or the groups, and hyperparameters into the groups. All of that is saved, and passes through the hooks.

    Attributes:
        shared: name -> tensor or number, the state that belongs to no single parameter; empty at first.
    """

    shared: dict[str, Any]

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        self.shared = {}
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """See :meth:`torch.optim.Optimizer.add_param_group`.

        Raises:
            ValueError: for a group that :meth:`check` refuses; the optimizer is then as it was.
        """
        self._append(param_group)
        try:
            self.check(self.param_groups[-1])
        except ValueError:
            self.param_groups.pop()
            raise

    def _append(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)

    def check(self, group: dict[str, Any]) -> None:
        """Refuse a group that is not for this rule; a subclass adds its reasons.

        Raises:
            ValueError: with the reason.
        """
        if any(p.is_complex() for p in group["params"]):
            name = type(self).__name__
            raise ValueError(f"{name} is not for complex parameters: make them real (torch.view_as_real)")

    # -- copies and states -----------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """All attributes; hooks, and torch's schedulers' patch of ``step``, stay behind, as torch has it."""
        return {
            key: value
            for key, value in vars(self).items()
            if not (key == "step" or (key.startswith("_optimizer_") and key.endswith("_hooks")))
        }

    def state_dict(self) -> dict[str, Any]:
        """State by parameter number, groups with all hyperparameters, and what is shared."""
        for hook in self._optimizer_state_dict_pre_hooks.values():
            hook(self)
        with self._hooks_off():
            state = self._packed()
        for hook in self._optimizer_state_dict_post_hooks.values():
            changed = hook(self, state)
            state = state if changed is None else changed
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken; the given tensors are copied."""
        state = dict(state_dict)
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            changed = hook(self, state)
            state = state if changed is None else changed
        with self._hooks_off():
            self._unpack(copy.deepcopy(state))
        for hook in self._optimizer_load_state_dict_post_hooks.values():
            hook(self)

    def _packed(self) -> dict[str, Any]:
        """The whole state, before any hook sees it."""
        return {**super().state_dict(), "shared": dict(self.shared)}

    def _unpack(self, state: dict[str, Any]) -> None:
        """Take up a state that belongs to nobody else."""
        super().load_state_dict({key: value for key, value in state.items() if key != "shared"})
        device = next((p.device for group in self.param_groups for p in group["params"]), None)
        self.shared = {
            key: value.to(device) if isinstance(value, Tensor) else value
            for key, value in state["shared"].items()
        }

    @contextlib.contextmanager
    def _hooks_off(self) -> Iterator[None]:
        # torch's own methods run the hooks on what they know, which is not the whole state.
        kept = {name: getattr(self, name) for name in STATE_HOOKS}
        vars(self).update({name: OrderedDict() for name in STATE_HOOKS})
        try:
            yield
        finally:
            vars(self).update(kept)


class Blockwise(Base):
    """A rule that looks at some tensors of a group at a time: a subclass writes :meth:`_update`."""

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """Update every parameter that has a gradient; returns what ``closure`` gives."""
        loss = evaluate(closure)
        for group in self.param_groups:
            for params, grads in in_blocks(group, type(self).__name__):
                self._update(plain(group), params, grads)
        return loss

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        """Move ``params``, all of ``group``."""
        raise NotImplementedError


def plain(group: dict[str, Any]) -> dict[str, Any]:
    """The group, with the number in place of an lr that is a tensor, as torch allows it to be."""
    return group | {"lr": float(group["lr"])} if isinstance(group["lr"], Tensor) else group

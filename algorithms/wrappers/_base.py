"""An optimizer around another one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Wrapped(torch.optim.Optimizer):
    """Shares ``base``'s parameter groups, so that schedules reach them, and keeps a state of its own.

    A subclass writes :meth:`step` and keeps what it remembers in ``self.state[p]`` (tensors of one
    parameter) and ``self.shared`` (tensors of all of them): both are saved. Whatever it lacks (``setup``,
    ``needs_loss``, ``report``, ...) is ``base``'s.

    Args:
        base: the optimizer inside.

    Attributes:
        base: the optimizer inside.
        shared: name -> tensor, the state that belongs to no single parameter.
    """

    def __init__(self, base: torch.optim.Optimizer) -> None:
        super().__init__(base.param_groups, base.defaults)
        self.base = base
        self.param_groups = base.param_groups
        self.shared: dict[str, Tensor] = {}
        self._around: Wrapped | None = None
        if isinstance(base, Wrapped):
            base._around = self

    @property
    def outermost(self) -> Wrapped:
        """The wrapper around all others: what moves the weights in the end."""
        return self if self._around is None else self._around.outermost

    def state_dict(self) -> dict[str, Any]:
        """State of the base, and of the wrapper by parameter number and by name."""
        own = {i: dict(self.state[p]) for i, p in enumerate(self._params()) if p in self.state}
        return {"base": self.base.state_dict(), "own": own, "shared": dict(self.shared)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken; the given tensors are copied."""
        self.base.load_state_dict(state_dict["base"])
        self.param_groups = self.base.param_groups
        self.state.clear()
        params = self._params()
        for i, entries in state_dict["own"].items():
            self.state[params[i]] = {k: _copy(v, params[i]) for k, v in entries.items()}
        self.shared = {k: _copy(v, params[0]) for k, v in state_dict["shared"].items()}

    def step_size(self, group: dict[str, Any]) -> Tensor | float:
        """What the base multiplies its direction by: its lr, unless it has a ``step_size`` of its own."""
        own = getattr(self.base, "step_size", None)
        return group["lr"] if own is None else own(group)

    def rescale(self, params: Sequence[Tensor], factors: Sequence[Tensor]) -> None:
        """Tell the base that ``params`` were multiplied by ``factors``, where it remembers weights."""
        if (own := getattr(self.base, "rescale", None)) is not None:
            own(params, factors)

    def _params(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def __getattr__(self, name: str) -> Any:
        if name == "base" or name.startswith("__"):  # not there yet: while unpickling, or before __init__
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.base, name)


def _copy(value: Any, like: Tensor) -> Any:
    return value.detach().clone().to(like.device) if isinstance(value, Tensor) else value

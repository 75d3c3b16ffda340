"""An optimizer around another one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from algorithms.optimizers._base import Base


class Wrapped(Base):
    """Shares ``base``'s parameter groups, so that schedules reach them, and keeps a state of its own.

    A subclass writes :meth:`step` and keeps what it remembers in ``self.state[p]`` (tensors of one
    parameter) and ``self.shared`` (tensors of all of them): both are saved. Whatever it lacks (``setup``,
    ``needs_loss``, ``report``, ...) is ``base``'s.

    Args:
        base: the optimizer inside.

    Attributes:
        base: the optimizer inside.
        shared: name -> tensor, the state that belongs to no single parameter.
        settings: names of the attributes that are its hyperparameters: a loaded state restores them too.
    """

    settings: ClassVar[tuple[str, ...]] = ()

    def __init__(self, base: torch.optim.Optimizer) -> None:
        super().__init__(base.param_groups, base.defaults)
        self.base = base
        self.param_groups = base.param_groups
        self._around: Wrapped | None = None
        if isinstance(base, Wrapped):
            base._around = self

    @property
    def outermost(self) -> Wrapped:
        """The wrapper around all others: what moves the weights in the end."""
        return self if self._around is None else self._around.outermost

    def _append(self, param_group: dict[str, Any]) -> None:
        if "base" in vars(self):
            self.base.add_param_group(param_group)  # it knows what belongs into a group
        else:  # one of the base's own, while this is built
            super()._append(param_group)

    def _packed(self) -> dict[str, Any]:
        settings = {name: getattr(self, name) for name in self.settings}
        return {**super()._packed(), "settings": settings, "base": self.base.state_dict()}

    def _unpack(self, state: dict[str, Any]) -> None:
        super()._unpack({key: state[key] for key in ("state", "param_groups", "shared")})
        vars(self).update(state["settings"])
        self.base.load_state_dict(state["base"])
        self.param_groups = self.base.param_groups

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

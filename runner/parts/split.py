"""Two optimizers as one: the matrices to the first, all else to the second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

Groups = list[dict[str, Any]]
FLAG = "use_muon"  # groups that say themselves which parameters are the first's


def split(groups: Groups) -> tuple[Groups, Groups]:
    """``groups`` cut into those of matrices, or of what they call hidden, and the others; none is empty."""
    sides: tuple[Groups, Groups] = ([], [])
    for group in groups:
        plain = {key: value for key, value in group.items() if key not in ("params", FLAG)}
        for side, wanted in zip(sides, (True, False), strict=True):
            params = [p for p in group["params"] if group.get(FLAG, p.ndim == 2) is wanted]
            if params:
                side.append({**plain, "params": params})
    return sides


class Split(torch.optim.Optimizer):
    """Optimizers side by side, with the groups of all.

    Args:
        parts: the optimizers, on parameters of their own.
    """

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        groups = [group for part in parts for group in part.param_groups]
        super().__init__([p for group in groups for p in group["params"]], {})
        self.parts = list(parts)
        self._link()

    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A step of each."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """The state of each."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._link()

    def _link(self) -> None:
        self.param_groups = [group for part in self.parts for group in part.param_groups]
        for part in self.parts:
            self.state.update(part.state)

"""One line on what the method does."""

from __future__ import annotations

from typing import Any

import torch


class MyMethod:
    """SUMMARY.

    Paper: title (authors, year, arXiv id).
    Update: the base optimizer's; every ``period`` steps x ← x₀ + share · (x − x₀), x₀ ← x.
    Defaults: period 5, share 0.5 (ours).
    State: 1 tensor per parameter (x₀), and the base optimizer's.
    Cost: 1 forward, 1 backward.
    Pitfalls: none known.
    Deviations: none.
    """

    def __init__(self, base: torch.optim.Optimizer, period: int = 5, share: float = 0.5) -> None:
        if period < 1:
            raise ValueError(f"period must be at least 1, got {period}")
        self.base, self.period, self.share = base, period, share
        self.params = [p for group in base.param_groups for p in group["params"]]
        self.anchors = [p.detach().clone() for p in self.params]
        self.steps = 0

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The base optimizer's groups, so that a schedule reaches them."""
        return self.base.param_groups

    @torch.no_grad()
    def step(self) -> None:
        """One step of the base optimizer, and a step back every ``period``."""
        self.base.step()
        self.steps += 1
        if self.steps % self.period == 0:
            torch._foreach_lerp_(self.anchors, self.params, self.share)
            torch._foreach_copy_(self.params, self.anchors)

    def state_dict(self) -> dict[str, Any]:
        """State of the base optimizer and our own."""
        return {"base": self.base.state_dict(), "anchors": self.anchors, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.base.load_state_dict(state["base"])
        torch._foreach_copy_(self.anchors, state["anchors"])
        self.steps = state["steps"]

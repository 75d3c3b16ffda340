"""Exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from runner.contract.batch_norm import running_statistics
from runner.contract.swap import Swap
from runner.contract.task import Task


class EMA:
    """Evaluate an exponential moving average of the weights; training does not see it.

    Paper: Polyak & Juditsky 1992 for averaging; the exponential form is a convention of the field.
    Update: w̄ ← d w̄ + (1 − d) w after each step t = 1, 2, …; d = min(decay, (1 + t) / (10 + t)) with ramp.
    Defaults: decay 0.999, ramp true (conventions; the ramp is that of TensorFlow's moving averages).
    State: 1 tensor per parameter.
    Cost: 1 forward, 1 backward.
    Pitfalls: without the ramp the initial weights keep a share of decay^t. The average looks back
        1 / (1 − decay) steps, whatever the length of the run.
    Deviations: running means and variances of batch norms are averaged like weights, which costs no
        forward passes; re-estimating them at w̄ would be exact. Other buffers stay the model's own.

    Args:
        decay: share of the past kept at a step, in [0, 1).
        ramp: start with a smaller decay.

    Raises:
        ValueError: for a decay outside [0, 1).
    """

    def __init__(self, decay: float = 0.999, ramp: bool = True) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {decay}")
        self.decay, self.ramp = decay, ramp

    def setup(self, task: Task) -> None:
        """Start at the present weights."""
        self._live = [*task.params, *running_statistics(task.model)]
        self._mean = [tensor.detach().clone() for tensor in self._live]
        self._swap = Swap(self._live, self._mean)
        self.steps = 0

    @torch.no_grad()
    def update(self, task: Task) -> None:
        """Take the present weights in."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps)) if self.ramp else self.decay
        torch._foreach_lerp_(self._mean, self._live, 1 - decay)

    def swap_in(self, task: Task) -> None:
        """Put the average into the model; a second call changes nothing."""
        self._swap.enter()

    def swap_out(self, task: Task) -> None:
        """Put the training weights back, bit for bit; without a :meth:`swap_in` before, nothing."""
        self._swap.leave()

    def state_dict(self) -> dict[str, Any]:
        """The average and the number of updates."""
        return {"steps": self.steps, "mean": self._mean}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.steps = state["steps"]
        torch._foreach_copy_(self._mean, state["mean"])

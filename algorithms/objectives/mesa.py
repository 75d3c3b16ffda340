"""Cross-entropy, and staying near what an average of the past weights says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from algorithms.objectives._common import cross_entropy, divergence, logits_of, per_row
from runner.contract.batch import Batch, Info
from runner.contract.kinds import NO_CLASSES
from runner.contract.task import Task


class MESA:
    """MESA: SAF with a moving average of the weights as the teacher, in place of a memory of logits.

    Paper: Sharpness-Aware Training for Free (Du et al. 2022, NeurIPS, arXiv 2205.14083), and the authors'
        code.
    Update: ℓ = CE + λ T² · KL(softmax(zₜ / T) ‖ softmax(z / T)), zₜ the teacher's logits on the same rows, in
        evaluation mode, once the share ``start`` of the budget is spent; before, ℓ = CE. After step
        t = 1, 2, … the teacher, its batch-norm statistics too, moves: w̄ ← d w̄ + (1 − d) w,
        d = min(decay, (1 + t) / (10 + t)).
    Defaults: lam 0.3, temperature 5 (authors' code; its scripts have 0.8 for λ); decay 0.999 (ours, for short
        runs; the code has 0.9998); start 0.05 (ours; the code has 5 epochs).
    State: 1 tensor per parameter.
    Cost: 1.95 forward, 1 backward.
    Pitfalls: a slow average of a short run is still near the initial weights: that is what the ramp of the
        decay is for. A row of a language model counts as the mean over its tokens.
    Deviations: what is evaluated are the trained weights, where the authors report the teacher's: add
        ``average=ema`` for those. The ramp of the decay, and the start as a share of the budget. The teacher
        stays to the end, where the code lets go of it after 360 epochs.

    Args:
        lam: λ, at least 0.
        temperature: T, above 0.
        decay: the largest d, in [0, 1).
        start: share of the budget before the teacher is listened to, in [0, 1).

    Raises:
        ValueError: for a value outside its range.
    """

    def __init__(
        self, lam: float = 0.3, temperature: float = 5.0, decay: float = 0.999, start: float = 0.05
    ) -> None:
        if not lam >= 0:
            raise ValueError(f"lam must be at least 0, got {lam}")
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        if not 0 <= decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {decay}")
        if not 0 <= start < 1:
            raise ValueError(f"start must lie in [0, 1), got {start}")
        self.lam, self.temperature, self.decay, self.start = lam, temperature, decay, start

    def compatible(self, info: Info) -> str | None:
        """Needs logits."""
        return f"compares softmaxes of logits; {NO_CLASSES}" if info.task == "regression" else None

    def cycle(self, info: Info) -> int:
        """One step without the teacher, and those with it."""
        return info.steps_to_see(self.start)

    def setup(self, task: Task) -> None:
        """The teacher begins as a copy of the network."""
        self.teacher = task.spawn(name="mesa teacher")
        self.teacher.model.eval()
        pairs = [
            *zip(self.teacher.params, task.params, strict=True),
            *zip(self.teacher.model.buffers(), task.model.buffers(), strict=True),
        ]
        self._averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]
        self.steps = 0

    @torch.no_grad()
    def restart(self, task: Task) -> None:
        """The teacher of a second phase begins as a copy of the network of that."""
        for mine, its in (*self._averaged, *self._copied):
            mine.copy_(its)

    def __call__(self, task: Task, batch: Batch) -> Tensor:
        """The rows' losses, (B,), in nats."""
        outputs = task.outputs(batch)
        losses = cross_entropy(task, outputs, batch)
        if task.progress < self.start:
            return losses
        with torch.no_grad():
            target = logits_of(self.teacher.outputs(batch))
        distances = divergence(target, logits_of(outputs), self.temperature)
        return losses + self.lam * self.temperature**2 * per_row(distances, batch)

    @torch.no_grad()
    def after_step(self, task: Task) -> None:
        """Move the teacher."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        averages, live = (list(side) for side in zip(*self._averaged, strict=True))
        torch._foreach_lerp_(averages, live, 1 - decay)
        for mine, its in self._copied:
            mine.copy_(its)

    def state_dict(self) -> dict[str, Any]:
        """The number of steps; the teacher's weights are kept by the task."""
        return {"steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.steps = state["steps"]

"""Inverse square root decay."""

from __future__ import annotations

import math

from algorithms.schedules._shape import Warmup


class InverseSqrt(Warmup):
    """Linear warm-up to 1, then decay with the inverse square root of the steps made.

    Paper: Attention Is All You Need (Vaswani et al. 2017, arXiv 1706.03762, §5.3).
    Update: lr ← lr₀ · min(t / w, √(w / t)), t = 1, 2, … counting steps and w the steps of warm-up.
    Defaults: warmup 0.05 (ours, as in the other schedules; the paper's is 4,000 of 100,000 steps).
    State: none.
    Cost: 1 forward, 1 backward.
    Pitfalls: the learning rate ends at √warmup of its peak, far above zero: the last iterate is noisy, and
        averaging helps. Without warm-up it decays from the first step on.
    Deviations: the peak is the base learning rate; the paper's is 1 / √(width · w).
    """

    def __init__(self, warmup: float = 0.05) -> None:
        super().__init__(warmup)

    def decay(self, progress: float) -> float:
        """See :class:`Warmup`."""
        made = self.warmup + progress * (1 - self.warmup) + self.step_share
        return math.sqrt(min(1.0, max(self.warmup, self.step_share) / made))

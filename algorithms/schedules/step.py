"""Piecewise constant learning rate."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from algorithms.schedules._shape import Warmup, share


class Step(Warmup):
    """Constant learning rate, multiplied by ``gamma`` at each milestone, behind linear warm-up.

    Paper: Deep Residual Learning for Image Recognition (He et al. 2016, arXiv 1512.03385, §4.2).
    Update: lr ← lr₀ · gammaᵏ, k the number of milestones at or before progress.
    Defaults: milestones 0.5 and 0.75 of the whole budget, gamma 0.1 (paper, CIFAR-10: 32k and 48k of 64k
        iterations); warmup 0.05 (ours, as in the other schedules).
    State: none.
    Cost: 1 forward, 1 backward.
    Pitfalls: most of the gain comes right behind a milestone: a target between two levels is reached there
        and hardly anywhere else.
    Deviations: none.

    Args:
        warmup: share of the budget, in [0, 1).
        milestones: shares of the budget at which the learning rate drops, rising.
        gamma: what it is multiplied by there, in [0, 1].

    Raises:
        ValueError: for a value outside its range, or milestones that do not rise.
    """

    def __init__(
        self, warmup: float = 0.05, milestones: Sequence[float] = (0.5, 0.75), gamma: float = 0.1
    ) -> None:
        super().__init__(warmup)
        self.milestones = [share("milestones", milestone) for milestone in milestones]
        if self.milestones != sorted(set(self.milestones)):
            raise ValueError(f"milestones must rise, got {list(milestones)}")
        self.gamma = share("gamma", gamma)

    def __call__(self, progress: float) -> float:
        """See :class:`Warmup`."""
        # Not in decay(): milestones are shares of the whole budget, and rounding must not move one.
        return super().__call__(progress) * self.gamma ** bisect_right(self.milestones, progress)

    def decay(self, progress: float) -> float:
        """See :class:`Warmup`."""
        return 1.0

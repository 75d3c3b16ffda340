"""No decay."""

from __future__ import annotations

from algorithms.schedules._shape import Warmup


class Constant(Warmup):
    """The base learning rate throughout, behind linear warm-up.

    Paper: none; the control of every schedule.
    Update: lr ← lr₀.
    Defaults: warmup 0.05 (ours, as in the other schedules; 0 for none).
    State: none.
    Cost: 1 forward, 1 backward.
    Pitfalls: the last iterate is noisy; averaging helps.
    Deviations: none.
    """

    def __init__(self, warmup: float = 0.05) -> None:
        super().__init__(warmup)

    def decay(self, progress: float) -> float:
        """See :class:`Warmup`."""
        return 1.0

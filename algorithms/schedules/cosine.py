"""Cosine decay."""

from __future__ import annotations

import math

from algorithms.schedules._shape import Warmup, share


class Cosine(Warmup):
    """Cosine decay from 1 to ``final``, behind linear warm-up.

    Paper: SGDR, without restarts (Loshchilov & Hutter 2017, arXiv 1608.03983).
    Update: lr ← lr₀ · (final + (1 − final) · (1 + cos(π·progress)) / 2).
    Defaults: warmup 0.05, final 0 (ours).
    State: none.
    Cost: 1 forward, 1 backward.
    Pitfalls: tied to the budget; a run cut short never sees the small learning rates.
    Deviations: none.
    """

    def __init__(self, warmup: float = 0.05, final: float = 0.0) -> None:
        super().__init__(warmup)
        self.final = share("final", final)

    def decay(self, progress: float) -> float:
        """See :class:`Warmup`."""
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2

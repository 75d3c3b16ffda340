"""Linear decay."""

from __future__ import annotations

from algorithms.schedules._shape import Warmup, share


class Linear(Warmup):
    """Linear decay from 1 to ``final``, behind linear warm-up.

    Paper: Optimal Linear Decay Learning Rate Schedules and Further Refinements (Defazio et al. 2023,
        arXiv 2310.07831), without the refinement.
    Update: lr ← lr₀ · (final + (1 − final) · (1 − progress)); without warm-up, step t = 0 … T − 1 of T has
        lr₀ · (1 − t/T).
    Defaults: warmup 0.05, final 0 (ours; warm-up is optional in the paper).
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
        return self.final + (1 - self.final) * (1 - progress)

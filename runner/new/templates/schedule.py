"""One line on what the method does."""

from __future__ import annotations


class MyMethod:
    """SUMMARY.

    Paper: title (authors, year, arXiv id).
    Update: lr ← lr₀ · (1 − progress)^power.
    Defaults: power 1 (ours).
    State: none.
    Cost: 1 forward, 1 backward.
    Pitfalls: none known.
    Deviations: none.
    """

    def __init__(self, power: float = 1.0) -> None:
        if not power >= 0:
            raise ValueError(f"power must be at least 0, got {power}")
        self.power = power

    def __call__(self, progress: float) -> float:
        """Multiplier of every base learning rate at ``progress`` in [0, 1]."""
        return (1 - progress) ** self.power

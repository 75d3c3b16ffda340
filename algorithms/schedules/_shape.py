"""Linear warm-up, shared by the schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.contract.task import Task


class Warmup:
    """Multiplier that climbs linearly to 1 over the first ``warmup`` share of the budget, then :meth:`decay`.

    The climb counts the step that is about to be made, so that the first step does move. A subclass
    writes :meth:`decay` alone.

    Args:
        warmup: share of the budget, in [0, 1).

    Raises:
        ValueError: for a warm-up outside [0, 1).
    """

    def __init__(self, warmup: float = 0.0) -> None:
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup must lie in [0, 1), got {warmup}")
        self.warmup = warmup
        self.step_share = 0.0

    def setup(self, task: Task) -> None:
        """Learn what share of the budget one default batch is."""
        self.step_share = 1 / task.info.steps_at_default_batch

    def __call__(self, progress: float) -> float:
        """Multiplier of every base learning rate at ``progress`` in [0, 1]."""
        if progress < self.warmup:
            return min(1.0, (progress + self.step_share) / self.warmup)
        return self.decay((progress - self.warmup) / (1 - self.warmup))

    def decay(self, progress: float) -> float:
        """Multiplier after warm-up, at ``progress`` in [0, 1] of what is left."""
        raise NotImplementedError


def share(name: str, value: float) -> float:
    """``value``, which must lie in [0, 1].

    Raises:
        ValueError: when it does not; ``name`` says which hyperparameter.
    """
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie in [0, 1], got {value}")
    return value

"""A learning rate that drops where validation accuracy stands still."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.contract.batch import Info
from runner.contract.kinds import NO_CLASSES

ACCURACY = "validation/accuracy"


class AccelAT:
    """AccelAT: the learning rate drops once the moving mean of the validation accuracy hardly rises any more.

    Paper: AccelAT: A Framework for Accelerating the Adversarial Training of Deep Neural Networks through
        Accuracy Gradient (IEEE Access 2022, 10.1109/ACCESS.2022.3213734); the code is farzadnikfam/AccelAT.
    Update: at the end of each epoch: ā is the mean of the last ``window`` accuracies; quiet ← quiet + 1;
        where more than ``window`` means came before, quiet > ``patience`` and ā − ā₋₁ < ``least``:
        lr ← max(lr·factor, lr₀·floor) and quiet ← 1. quiet starts at ``patience``.
    Defaults: factor 0.8, window 5, patience 5, least 0.005, floor 1e-3 (authors' code: 1e-6 for an lr₀ of
        1e-3).
    State: a few numbers.
    Cost: 1 forward, 1 backward. The validation passes that it follows are the evaluations every run has: off
        the clock, and free to it.
    Pitfalls: it reads the scored validation split (uses_metrics), as the paper's does. An epoch here is the
        stretch between two evaluations: how fast lr falls hangs on the workload's evaluation grid, so that
        runs with another grid are other runs. Noise in the accuracy below ``least`` sets it off.
    Deviations: the paper accelerates adversarial training; on clean training it is an extension, ours. An
        epoch is an evaluation; the one before the first step does not count.

    Args:
        factor: what lr is multiplied by, in (0, 1).
        window: accuracies that the mean is taken over, at least 1.
        patience: epochs between two drops, at least 0.
        least: rise of the mean, in accuracy, that is enough.
        floor: smallest lr, as a share of lr₀, in [0, 1].

    Raises:
        ValueError: for a hyperparameter outside its range.
    """

    uses_metrics = True

    def __init__(
        self,
        factor: float = 0.8,
        window: int = 5,
        patience: int = 5,
        least: float = 0.005,
        floor: float = 1e-3,
    ) -> None:
        if not 0 < factor < 1:
            raise ValueError(f"factor must lie in (0, 1), got {factor}")
        if not window >= 1:
            raise ValueError(f"window must be at least 1, got {window}")
        if not patience >= 0:
            raise ValueError(f"patience must be at least 0, got {patience}")
        if not 0 <= floor <= 1:
            raise ValueError(f"floor must lie in [0, 1], got {floor}")
        self.factor, self.window, self.patience, self.least, self.floor = (
            factor, int(window), int(patience), float(least), floor,
        )  # fmt: skip
        self.scale, self.quiet, self.means, self.last = 1.0, self.patience, 0, 0.0
        self.recent: list[float] = []
        self.trained = False

    def compatible(self, info: Info) -> str | None:
        """Needs an accuracy."""
        return f"follows the validation accuracy; {NO_CLASSES}" if info.task == "regression" else None

    def cycle(self, info: Info) -> int:
        """Until an epoch in which the rate may drop."""
        return max(self.window + 2, self.patience) + 2

    def __call__(self, progress: float) -> float:
        """Multiplier of every base learning rate."""
        self.trained = True
        return self.scale

    def observe(self, metrics: Mapping[str, float]) -> None:
        """End an epoch; before the first step there was none.

        Raises:
            RuntimeError: where the workload measures no accuracy.
        """
        if ACCURACY not in metrics:
            raise RuntimeError(f"accelat needs {ACCURACY}; the workload has {', '.join(sorted(metrics))}")
        if not self.trained:
            return
        self.recent = [*self.recent, metrics[ACCURACY]][-self.window :]
        mean = sum(self.recent) / len(self.recent)
        self.quiet += 1
        if self.means > self.window and self.quiet > self.patience and mean - self.last < self.least:
            self.scale = max(self.scale * self.factor, self.floor)
            self.quiet = 1
        self.means, self.last, self.trained = self.means + 1, mean, False

    def state_dict(self) -> dict[str, Any]:
        """The multiplier, and what the next one hangs on."""
        names = ("scale", "quiet", "means", "last", "recent", "trained")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        for name, value in state.items():
            setattr(self, name, value)

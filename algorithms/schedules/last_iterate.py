"""Step sizes with guarantees for the last iterate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.contract.task import Task

FORMS = ("linear", "constant", "anytime")


class LastIterate:
    """Step sizes of SGD under which the last iterate, rather than an average, converges; three forms.

    Paper: Revisiting the Last-Iterate Convergence of Stochastic Gradient Methods (Liu & Zhou 2023, arXiv
        2312.08531). The step sizes are from memory, unverified.
    Update: step t = 1 … T of T has lr₀ times min(cap, a): a = 1/√t (anytime), 1/√T (constant), or
        (T − t + 1) / T^{3/2} (linear; Zamani & Glineur).
    Defaults: form linear, cap null (ours). In the paper the cap is 1/(2L) for a loss with an L-Lipschitz
        gradient, in units of lr, and the preset's lr is to be tuned.
    State: none.
    Cost: 1 forward, 1 backward.
    Pitfalls: T enters the values: lr₀ is far larger than another schedule's, by √T. Made for SGD without
        momentum or decay, which the preset has. Linear ends at 1/T^{3/2}, not at 0; but for its scale it is
        ``linear`` without warm-up. The guarantees are of high probability: compare many seeds.
    Deviations: T counts default batches, and t is read off the share of the budget that is gone: where
        batches have another size, t is no whole number. The strongly convex forms are left out.

    Args:
        form: linear, constant or anytime.
        cap: the largest multiplier; None for no limit.

    Raises:
        ValueError: for another form, or a cap that is not positive.
    """

    def __init__(self, form: str = "linear", cap: float | None = None) -> None:
        if form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form}")
        if cap is not None and not cap > 0:
            raise ValueError(f"cap must be greater than 0, got {cap}")
        self.form, self.cap = form, math.inf if cap is None else cap
        self.steps = 1.0

    def setup(self, task: Task) -> None:
        """Learn how many default batches the budget holds."""
        self.steps = max(1.0, task.info.budget_samples / task.info.batch_size)

    def __call__(self, progress: float) -> float:
        """Multiplier of every base learning rate at ``progress`` in [0, 1]."""
        total, made = self.steps, progress * self.steps
        if self.form == "anytime":
            value = 1 / math.sqrt(made + 1)
        elif self.form == "constant":
            value = 1 / math.sqrt(total)
        else:
            value = (total - made) / total**1.5
        return min(self.cap, value)

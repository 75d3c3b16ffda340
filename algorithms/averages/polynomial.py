"""Polynomial-decay average of the weights."""

from __future__ import annotations

import torch

from algorithms.averages.ema import EMA
from runner.contract.task import Task


class Polynomial(EMA):
    """Evaluate an average of the weights that looks back over a fixed share of the steps, about 1 / γ.

    Paper: Stochastic Gradient Descent for Non-smooth Optimization (Shamir & Zhang 2013, arXiv 1212.1824; the
        title is from memory), as DoG's authors use it (Ivgi, Hinder & Carmon 2023, arXiv 2302.12022).
    Update: w̄ ← (1 − c)·w̄ + c·w after each step t = 1, 2, …; c = (γ + 1) / (t + γ), so that w̄ = w at first.
    Defaults: gamma 8 (DoG's authors).
    State: 1 tensor per parameter, and a count.
    Cost: 1 forward, 1 backward.
    Pitfalls: under a schedule that decays to zero the last iterate needs no average.
    Deviations: running means and variances of batch norms are averaged like weights, as in ``ema``.

    Args:
        gamma: γ, at least 0; 0 is the mean of all iterates.

    Raises:
        ValueError: for a negative gamma.
    """

    def __init__(self, gamma: float = 8.0) -> None:
        if not gamma >= 0:
            raise ValueError(f"gamma must be at least 0, got {gamma}")
        super().__init__()
        self.gamma = gamma

    @torch.no_grad()
    def update(self, task: Task) -> None:
        """Take the present weights in."""
        self.steps += 1
        torch._foreach_lerp_(self._mean, self._live, (self.gamma + 1) / (self.steps + self.gamma))

"""Normalized gradient descent for logistic regression: a perceptron's speed from gradient descent."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from runner.contract.algorithm import Algorithm
from runner.contract.batch import Info
from runner.contract.task import Task


class NormalizedLRGD(Algorithm):
    """Full-batch gradient descent on the logistic loss, divided by the mean probability of error.

    Paper: From Logistic Regression to the Perceptron Algorithm: Exploring Gradient Descent with Large Step
        Sizes (Tyurin 2025, arXiv 2412.08424).
    Update: with labels yᵢ ∈ {−1, 1} and σᵢ = 1/(1 + exp(yᵢ·aᵢᵀθ)): θ ← θ + lr · Σᵢ σᵢ·yᵢ·aᵢ / Σᵢ σᵢ, which is
        gradient descent with the step lr·β, β = n / Σᵢ σᵢ. normalized=false is plain gradient descent, β = 1.
    Defaults: lr 1 (ours).
    State: none.
    Cost: 1 forward, 1 backward.
    Pitfalls: made for separable data, where the number of steps to full training accuracy is at most
        R²/μ² + 2·log(2n − 1)/(lr·μ²) (R: largest row norm, μ: margin); the loss grows with lr and is not
        what it minimises. The whole training split passes at every step, in one piece.
    Deviations: starts from the workload's initial weights, in the paper from 0; goes on after the training
        rows are separated, where the paper stops; trains a bias where the model has one, in the paper a
        constant feature.

    Args:
        lr: step size γ.
        normalized: whether to divide by the mean of σ.

    Raises:
        ValueError: for a step size that is not positive.
    """

    def __init__(self, lr: float = 1.0, normalized: bool = True) -> None:
        if not lr > 0:
            raise ValueError(f"lr must be greater than 0, got {lr}")
        self.lr, self.normalized = lr, normalized

    def compatible(self, info: Info) -> str | None:
        """Needs one logit per row and a linear model."""
        if info.task != "binary":
            return f"needs a binary task (one logit per row), this one is {info.task}"
        if info.model != "linear":
            return f"needs a linear model, this one is {info.model}"
        return None

    def step(self, task: Task) -> Tensor:
        """One pass over the training split and one update; returns the mean logistic loss."""
        batch = task.data.all()
        outputs = task.outputs(batch)
        margins = (2 * batch.y.to(outputs.dtype) - 1) * outputs
        with torch.no_grad():
            shares = self._shares(margins)
        # d(Σ wᵢ·marginᵢ)/dθ = Σ wᵢ·yᵢ·aᵢ, whatever the model puts in front of its linear map.
        params: list[Tensor] = list(task.params)
        ascent = torch.autograd.grad((shares * margins).sum(), params)
        with torch.no_grad():
            torch._foreach_add_(params, ascent, alpha=self.lr)
        return F.softplus(-margins.detach()).mean()

    def _shares(self, margins: Tensor) -> Tensor:
        """Weight of each row, (n,): σᵢ/Σσ, or σᵢ/n."""
        if not self.normalized:
            return torch.sigmoid(-margins) / margins.shape[0]
        # In logarithms: once the rows are separated every σᵢ underflows, but not their ratios.
        errors = F.logsigmoid(-margins)
        return torch.exp(errors - torch.logsumexp(errors, 0))

"""Least squares on numbers drawn from a seed: convex, its spectrum and its noise as one likes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from workloads.base import TensorWorkload
from workloads.logreg import DenseLinear
from workloads.splits import Data, Split

SEED = 20240501  # of the rows and of what they are made with; part of the workload
SIZES = (8192, 2048, 2048)  # training, validation, test


class LeastSquares(TensorWorkload):
    """12,288 rows x ~ N(0, diag(λ)), λᵢ = i^−decay, with y = xᵀw + noise · ε; a linear model from zero.

    w is drawn once from N(0, I) and scaled so that xᵀw has variance 1: the squared error begins at about
    1 + noise², and noise² is the least there is. Rows are used as drawn, since the spectrum is the problem:
    the largest curvature is 2, in the first feature and in the bias, and features^decay times the smallest.

    8,192 rows are for training, 2,048 each for validation and test.

    Args:
        features: of a row, at least 1.
        decay: of the spectrum, at least 0; at 0 all directions are alike.
        noise: standard deviation of the targets' noise, at least 0.

    The other arguments are those of :class:`TensorWorkload`.

    Raises:
        ValueError: for a value outside its range.
    """

    task = "regression"
    model_kind = "linear"
    num_classes = 0

    def __init__(
        self, *args: Any, features: int = 100, decay: float = 1.0, noise: float = 0.1, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        if not features >= 1 or features != int(features):
            raise ValueError(f"features must be an integer of at least 1, got {features}")
        if not decay >= 0:
            raise ValueError(f"decay must be at least 0, got {decay}")
        if not noise >= 0:
            raise ValueError(f"noise must be at least 0, got {noise}")
        self.features, self.decay, self.noise = int(features), decay, noise

    def load(self, root: Path) -> Data:
        """See :meth:`TensorWorkload.load`; nothing is read."""
        numbers = draw_rows(sum(SIZES), self.features, self.decay, self.noise)[:2]
        x, y = (torch.from_numpy(drawn).float().split(SIZES) for drawn in numbers)
        train, validation, test = (Split(*rows) for rows in zip(x, y, strict=True))
        self.input_range = (train.x.min().item(), train.x.max().item())
        return Data(train, validation, test)

    def model(self) -> nn.Module:
        """A weight for each feature and a bias, all zero."""
        return DenseLinear(nn.Identity(), self.features, 1)


def draw_rows(
    n: int, features: int, decay: float, noise: float, seed: int = SEED
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``n`` rows, (n, features), their targets, (n,), and the weights behind them, in double precision."""
    rng = np.random.RandomState(seed)  # rather than a Generator: NumPy has frozen its stream (NEP 19)
    spectrum = np.arange(1, features + 1, dtype=np.float64) ** -decay
    weights = rng.standard_normal(features)
    weights /= np.sqrt((spectrum * weights**2).sum())
    x = rng.standard_normal((n, features)) * np.sqrt(spectrum)
    y = noise * rng.standard_normal(n)
    for column, weight in zip(x.T, weights, strict=True):  # not @, whose rounding hangs on the machine
        y += column * weight
    return x, y, weights

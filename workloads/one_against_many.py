"""One positive row against many copies of a negative one: the hardest separable rows for gradient descent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from workloads.base import Data, Split, TensorWorkload


class OneAgainstMany(TensorWorkload):
    """One row (0.5, −1) of class 1 and ``rows`` − 1 copies of (−0.5, −1) of class 0; aᵀθ from θ = 0.

    What is asked is how many full-batch steps separate the training rows. So validation and test hold the two
    distinct rows at half and at a quarter of their length: without a bias they are right (accuracy 1) exactly
    when those are.

    Source: From Logistic Regression to the Perceptron Algorithm: Exploring Gradient Descent with Large Step
    Sizes (Tyurin 2025, arXiv 2412.08424), the worst case of its Table 1 at 1,000 rows.

    Args:
        rows: n, at least 2.

    The other arguments are those of :class:`TensorWorkload`.

    Raises:
        ValueError: for fewer than two rows.
    """

    task = "binary"
    model_kind = "linear"
    num_classes = 2
    input_range = (-1.0, 0.5)

    def __init__(self, *args: Any, rows: int = 1000, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not rows >= 2:
            raise ValueError(f"rows must be at least 2, got {rows}")
        self.rows = int(rows)

    def load(self, root: Path) -> Data:
        """See :meth:`TensorWorkload.load`; no files."""
        pair = Split(torch.tensor([[0.5, -1.0], [-0.5, -1.0]]), torch.tensor([1.0, 0.0]))
        which = torch.ones(self.rows, dtype=torch.int64)
        which[0] = 0
        scored = (Split(pair.x * share, pair.y) for share in (0.5, 0.25))
        return Data(Split(pair.x[which], pair.y[which]), *scored)

    def model(self) -> nn.Module:
        """Logits aᵀθ, (B,), of rows (B, 2)."""
        return Homogeneous(2)


class Homogeneous(nn.Module):
    """aᵀθ, (B,), of rows (B, features); θ starts at zero and there is no bias."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 1, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.linear(x).squeeze(1)

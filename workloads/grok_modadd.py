"""Arithmetic modulo a prime, from a share of all pairs: a network fits it long before it generalises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runner.base.errors import UserError
from workloads.base import Data, Split, TensorWorkload

SPLIT_SEED = 20240501  # of the split into training, validation and test; part of the workload
WIDTH = 200  # of both hidden layers
OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "product": torch.mul,
    "subtract": torch.sub,
}


class GrokModAdd(TensorWorkload):
    """All pairs (a, b) below 113, the target (a + b) mod 113; a network of two hidden layers, no biases.

    The task, network and training share of Grokking at the Edge of Numerical Stability (Prieto et al. 2025,
    arXiv 2501.04697). An input is two one-hots side by side, the first for a; the network has weights of
    (200, 2p), (200, 200) and (p, 200), drawn as torch does, with ReLU between. A random 40 % of the pairs are
    for training; of the others one half is for validation and one for test. The paper has no such halves.

    The batch size is the whole training split, so that an epoch is a step; another modulus or share wants
    another batch size. Training accuracy is 1 after tens of steps, validation accuracy near chance: what is
    scored is how soon, and whether, the network finds the rule.

    Args:
        operation: ``add``, ``product`` or ``subtract``, of a and b.
        modulus: p, a row is a pair of numbers below it; at least 2.
        train_fraction: share of the pairs for training, above 0 and below 1; rounded down.

    The other arguments are those of :class:`TensorWorkload`.

    Raises:
        ValueError: for an option that is none of these.
    """

    model_kind = "mlp"
    input_range = (0.0, 1.0)

    def __init__(
        self,
        *args: Any,
        operation: str = "add",
        modulus: int = 113,
        train_fraction: float = 0.4,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if operation not in OPERATIONS:
            raise ValueError(f"operation must be one of {', '.join(OPERATIONS)}, got {operation!r}")
        if isinstance(modulus, bool) or not isinstance(modulus, int) or modulus < 2:
            raise ValueError(f"modulus must be an integer of at least 2, got {modulus!r}")
        if not 0 < train_fraction < 1:
            raise ValueError(f"train_fraction must be above 0 and below 1, got {train_fraction}")
        self.operation, self.train_fraction = operation, train_fraction
        self.num_classes = modulus

    def load(self, root: Path) -> Data:
        """See :meth:`TensorWorkload.load`; 5,107 training, 3,831 validation and 3,831 test rows."""
        x, y = pairs(self.operation, self.num_classes)
        size = int(self.train_fraction * len(y))
        rest = (len(y) - size) // 2
        if size < 1 or rest < 1:
            raise UserError(
                f"workload.train_fraction={self.train_fraction:g} leaves a split of the {len(y)} pairs empty"
            )
        if self.batch_size > size:
            raise UserError(
                f"workload.batch_size={self.batch_size} is more than the {size} training rows: "
                f"workload.batch_size={size} is all of them"
            )
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(SPLIT_SEED))
        parts = order.split((size, rest, len(y) - size - rest))
        return Data(*(Split(x[rows], y[rows]) for rows in (part.sort().values for part in parts)))

    def model(self) -> nn.Module:
        """Logits, (B, p), of rows (B, 2p)."""
        return nn.Sequential(
            nn.Linear(2 * self.num_classes, WIDTH, bias=False),
            nn.ReLU(),
            nn.Linear(WIDTH, WIDTH, bias=False),
            nn.ReLU(),
            nn.Linear(WIDTH, self.num_classes, bias=False),
        )


def pairs(operation: str, modulus: int) -> tuple[Tensor, Tensor]:
    """Every pair (a, b) as two one-hots, (p², 2p) float32, b fastest; and its class, (p²,) int64."""
    row = torch.arange(modulus * modulus)
    a, b = row // modulus, row % modulus
    x = torch.cat([F.one_hot(a, modulus), F.one_hot(b, modulus)], 1).float()
    return x, OPERATIONS[operation](a, b) % modulus

"""A batch that grows when its gradient is too noisy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from runner.contract.batch import Batch, Info
from runner.contract.task import Task


class BatchNormTest:
    """Norm test: the batch grows once the variance of its mean gradient exceeds a share of its square.

    Paper: AdAdaGrad: Adaptive Batch Size Schemes for Adaptive Gradient Methods (2024, arXiv 2402.11215), and
        the authors' code (timlautk/AdAdaGrad).
    Update: every ``every`` steps, with gradients gᵢ of the B rows, ḡ their mean and
        Varⱼ = Σᵢ (gᵢⱼ − ḡⱼ)² / (B − 1): B ← min(most, max(B, ⌈Σⱼ Varⱼ / (η²·‖ḡ‖²)⌉)).
    Defaults: eta 0.5, initial 8 (authors' CIFAR-10 runs with ResNet-18; η 0.1 for smaller models); every 10,
        most 1024 (ours).
    State: two numbers.
    Cost: 1.1 forward, 1.1 backward.
    Pitfalls: not about batch normalisation, with which a row has no gradient of its own. B never falls. The
        budget is in rows, so larger batches are fewer steps. The test waits for the device, and holds
        ``chunk`` gradients in memory. A step takes all B rows in one pass.
    Deviations: the variance is merged exactly over chunks of the whole batch. Rows count as much as a
        reweighting has them count, at the price of one more forward pass a test.

    Args:
        eta: η, in (0, 1) in the paper; positive.
        initial: first batch size, at least 2.
        most: largest batch size, at least 2; never more than there are training rows. None: those.
        every: steps between two tests, at least 1.
        chunk: rows whose gradients are held at a time, at least 1.

    Raises:
        ValueError: for a hyperparameter outside its range.
    """

    per_example: ClassVar[bool] = True

    def __init__(
        self,
        eta: float = 0.5,
        initial: int = 8,
        most: int | None = 1024,
        every: int = 10,
        chunk: int = 64,
    ) -> None:
        if not eta > 0:
            raise ValueError(f"eta must be greater than 0, got {eta}")
        least = {"initial": (initial, 2), "most": (2 if most is None else most, 2), "every": (every, 1)}
        for name, (value, low) in (least | {"chunk": (chunk, 1)}).items():
            if not value >= low:
                raise ValueError(f"{name} must be at least {low}, got {value}")
        self.eta, self.initial, self.most = float(eta), int(initial), most
        self.every, self.chunk = int(every), int(chunk)
        self.syncs_every = self.every
        self.least_rows = self.initial
        self.size: int = self.initial
        self.steps = 0

    def compatible(self, info: Info) -> str | None:
        """Needs a model whose rows have gradients of their own."""
        return "batch norm mixes rows: they have no gradients of their own" if info.has_batchnorm else None

    def cycle(self, info: Info) -> int:
        """Until the batch that a test has sized."""
        return self.every + 1

    def setup(self, task: Task) -> None:
        """Start with the first batch size, within what there is."""
        self._cap = task.data.n if self.most is None else min(int(self.most), task.data.n)
        self.size, self.steps = min(self.initial, self._cap), 0

    def __call__(self, task: Task) -> Batch:
        """The next rows of the stream; in every so many steps they say how many the next one takes."""
        batch = task.data.next(self.size)
        self.steps += 1
        if self.steps % self.every == 0 and self.size < self._cap:
            task.weigh(batch, self.chunk)
            variance, square = moments(task.per_sample_grads(part) for part in batch.chunks(self.chunk))
            rows = wanted(float(variance), float(square), self.size, self.eta)
            self.size = int(min(self._cap, rows))
        return batch

    def report(self) -> dict[str, float]:
        """The batch size."""
        return {"batch_size": float(self.size)}

    def state_dict(self) -> dict[str, Any]:
        """Batch size and number of steps."""
        return {"size": self.size, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.size, self.steps = state["size"], state["steps"]


def wanted(variance: float, square: float, size: int, eta: float) -> float:
    """The batch size that passes the test, at least ``size``; infinite where the mean gradient is 0.

    Args:
        variance: Σⱼ Varⱼ.
        square: ‖ḡ‖².
        size: the present batch size.
        eta: η.
    """
    if square == 0:
        return math.inf if variance > 0 else size
    rows = variance / (eta**2 * square)
    return max(size, math.ceil(rows)) if math.isfinite(rows) else size


def moments(chunks: Iterable[Mapping[str, Tensor]]) -> tuple[Tensor, Tensor]:
    """Σⱼ Varⱼ, unbiased, and ‖ḡ‖² of per-row gradients that come in chunks, name -> (rows, *shape); 0-d."""
    count, mean, spread = 0, torch.zeros(()), torch.zeros(())
    for chunk in chunks:
        rows = torch.cat([g.flatten(1) for g in chunk.values()], dim=1)
        n, own = len(rows), rows.mean(0)
        inside = (rows - own).square().sum().double()
        # Chan's rule for joining two samples, the first with none: all chunks call the same kernels.
        step = own - mean
        spread = spread + inside + step.square().sum().double() * (count * n / (count + n))
        mean = mean + step * (n / (count + n))
        count += n
    return spread / max(1, count - 1), mean.double().square().sum()

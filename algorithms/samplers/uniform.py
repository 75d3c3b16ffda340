"""Rows drawn independently, with replacement."""

from __future__ import annotations

import torch

from runner.contract.batch import Batch, Info
from runner.contract.task import Task


class Uniform:
    """Independent uniform draws with replacement, where the default passes over shuffled epochs.

    Paper: the sampling that the theory of stochastic gradients assumes; no source of its own.
    Update: index ~ Uniform{0, …, n − 1}, B times a step.
    Defaults: batch_size null: the workload's.
    State: none of its own; the draws come from a named generator.
    Cost: 1 forward, 1 backward.
    Pitfalls: after n draws about 37 % of the rows have not been seen.
    Deviations: none.

    Args:
        batch_size: rows a step; None for the workload's.

    Raises:
        ValueError: for a batch size below 1.
    """

    def __init__(self, batch_size: int | None = None) -> None:
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.batch_size = self.least_rows = batch_size

    def step_rows(self, info: Info) -> int:
        """Rows a step."""
        return info.batch_size if self.batch_size is None else self.batch_size

    def __call__(self, task: Task) -> Batch:
        """The next rows of the training split, augmented as the workload augments them."""
        data = task.data
        size = (data.batch_size if self.batch_size is None else self.batch_size,)
        generator = task.rng("uniform sampler")
        index = torch.randint(data.n, size, generator=generator, device=generator.device)
        return data.take(index, augment=True)

"""Batches in which every worker has rows of its own part of the classes."""

from __future__ import annotations

import torch

from runner.contract.batch import Batch, Info
from runner.contract.task import Task


class LabelShards:
    """Each worker draws from its own shard of the training rows, which are sorted by label: unlike workers.

    Paper: the usual set-up of heterogeneous workers in papers on compressed gradients; no source of its own.
    Update: sort the rows by label, cut them into ``workers`` shards of equal size; a step draws B / workers
        rows from each, independently and with replacement, in the order of the workers. With B the whole
        training split every worker has its whole shard, in order, at every step.
    Defaults: workers 10, as the estimators that simulate workers.
    State: none of its own; the draws come from a named generator.
    Cost: 1 forward, 1 backward.
    Pitfalls: of use with an estimator that splits batches in order among as many workers (econtrol, ef,
        ef21); to all others it is stratified sampling. A batch size that is no multiple of ``workers`` is
        cut to one; rows that do not fill the shards are never drawn.
    Deviations: none.

    Args:
        workers: how many shards, at least 1.

    Raises:
        ValueError: for fewer than one.
    """

    def __init__(self, workers: int = 10) -> None:
        if not workers >= 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        self.workers = int(workers)

    def compatible(self, info: Info) -> str | None:
        """Needs one label per row, and a row for each worker."""
        if info.task == "lm":
            return "rows of tokens have no labels to sort by"
        if info.batch_size < self.workers:
            return f"needs a row for each of {self.workers} workers, a batch has {info.batch_size}"
        return None

    def step_rows(self, info: Info) -> int:
        """Rows a step: as many from each shard, or all where a batch is."""
        shard = info.num_train // self.workers if info.batch_size >= info.num_train else 0
        return self.workers * (shard or max(1, info.batch_size // self.workers))

    def setup(self, task: Task) -> None:
        """Cut the shards."""
        per_shard = task.data.n // self.workers
        order = task.data.y.argsort(stable=True)[: per_shard * self.workers]
        self._shards = order.view(self.workers, per_shard)
        self._rows = max(1, task.data.batch_size // self.workers)
        self._whole = task.data.batch_size >= task.data.n

    def __call__(self, task: Task) -> Batch:
        """As many rows from each shard, augmented as the workload augments them."""
        if self._whole:
            return task.data.take(self._shards.flatten(), augment=True)
        shape, generator = (self.workers, self._rows), task.rng("label shards")
        places = torch.randint(self._shards.shape[1], shape, generator=generator, device=generator.device)
        return task.data.take(self._shards.gather(1, places).flatten(), augment=True)

"""Simulated workers that send compressed gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from runner.contract.batch import Batch, Info
from runner.contract.memory_layout import like
from runner.contract.task import Task

COMPRESSORS = ("top_k", "rand_k")


class Workers:
    """Splits each batch among workers, who compress what they send; the bytes are counted.

    A subclass names the tensors that a worker keeps in :attr:`keeps`, each (workers, weights), and writes
    :meth:`exchange`.

    A reweighting weighs the whole batch, in a forward pass of its own, before the workers have their shares.

    Args:
        workers: how many, at least 1; each takes an equal share of a batch, in order.
        ratio: share of the coordinates that a message holds, k / d over the whole gradient, in (0, 1].
        compressor: ``top_k``, the largest coordinates, or ``rand_k``, random ones, unscaled.

    Raises:
        ValueError: for a value outside its range.
    """

    keeps: ClassVar[tuple[str, ...]] = ()
    splits_batches: ClassVar[bool] = True
    changes_gradient: ClassVar[bool] = True

    def __init__(self, workers: int = 10, ratio: float = 0.1, compressor: str = "top_k") -> None:
        if not workers >= 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        if not 0 < ratio <= 1:
            raise ValueError(f"ratio must lie in (0, 1], got {ratio}")
        if compressor not in COMPRESSORS:
            raise ValueError(f"compressor must be one of {', '.join(COMPRESSORS)}, got {compressor}")
        self.workers, self.ratio, self.compressor = int(workers), ratio, compressor
        self.rounds = 0

    def compatible(self, info: Info) -> str | None:
        """Needs a row for each worker."""
        if info.batch_size < self.workers:
            return f"needs a row for each of {self.workers} workers, a batch has {info.batch_size}"
        return None

    def setup(self, task: Task) -> None:
        """Start every worker's memory at zero."""
        sizes = [p.numel() for p in task.params]
        self._size = sum(sizes)
        self._sent = max(1, round(self.ratio * self._size))
        self.memory = {key: task.params[0].new_zeros(self.workers, self._size) for key in self.keeps}
        self.rounds = 0
        self._task = task

    def __call__(self, task: Task, batch: Batch) -> Tensor:
        """Fill ``.grad`` with what the server steps along; returns the mean of the workers' losses, 0-d.

        Raises:
            ValueError: for a batch with fewer rows than there are workers.
        """
        losses, grads = self._gradients(task, batch)
        with torch.no_grad():
            direction = self.exchange(grads)
        self.rounds += 1
        pieces = direction.split([p.numel() for p in task.params])
        for p, piece in zip(task.params, pieces, strict=True):
            p.grad = like(piece, p)
        return torch.stack(losses).mean()

    def exchange(self, grads: Tensor) -> Tensor:
        """One round: gradients of the workers, (workers, d), to the server's direction, a new (d,)."""
        raise NotImplementedError

    def compress(self, vectors: Tensor) -> Tensor:
        """What the server gets of each row: k numbers of 32 bits, and their places; counted as sent."""
        self.count(self._sent * (32 + math.ceil(math.log2(self._size))))
        if self._sent == self._size:
            return vectors.clone()
        scores = vectors.abs() if self.compressor == "top_k" else self._random(vectors)
        places = scores.topk(self._sent, dim=1, sorted=False).indices
        return torch.zeros_like(vectors).scatter_(1, places, vectors.gather(1, places))

    def count(self, bits: int) -> None:
        """A message of ``bits`` from every worker."""
        self._task.cost.bytes_sent += self.workers * math.ceil(bits / 8)

    def _random(self, vectors: Tensor) -> Tensor:
        generator = self._task.rng("compressor")
        return torch.rand(vectors.shape, generator=generator, device=vectors.device)

    def _gradients(self, task: Task, batch: Batch) -> tuple[list[Tensor], Tensor]:
        losses, rows = [], []
        task.weigh(batch)
        for piece in self._pieces(batch):
            for p in task.params:
                p.grad = None
            losses.append(task.backward(piece))
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in task.params]
            rows.append(torch.cat([g.flatten() for g in grads]))
        return losses, torch.stack(rows)

    def _pieces(self, batch: Batch) -> Iterator[Batch]:
        if len(batch) < self.workers:
            raise ValueError(f"a batch of {len(batch)} rows is too small for {self.workers} workers")
        small, larger = divmod(len(batch), self.workers)
        start = 0
        for worker in range(self.workers):
            end = start + small + (worker < larger)
            yield batch.select(slice(start, end))
            start = end

    def state_dict(self) -> dict[str, Any]:
        """The number of rounds, and the workers' memory."""
        return {"rounds": self.rounds, "memory": dict(self.memory)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken; the given tensors are copied."""
        self.rounds = state["rounds"]
        for key, value in self.memory.items():
            value.copy_(state["memory"][key])


class FirstInFull(Workers):
    """Workers whose estimates ``h`` start at their first gradient, sent whole, or at zero.

    Args:
        workers: see :class:`Workers`.
        ratio: see :class:`Workers`.
        compressor: see :class:`Workers`.
        init_compressed: whether ``h`` starts at zero.
    """

    def __init__(
        self,
        workers: int = 10,
        ratio: float = 0.1,
        compressor: str = "top_k",
        init_compressed: bool = False,
    ) -> None:
        super().__init__(workers, ratio, compressor)
        self.init_compressed = init_compressed

    def starts(self, grads: Tensor) -> bool:
        """Whether this is the first round, in which gradients are sent whole; then it takes them."""
        if self.rounds > 0 or self.init_compressed:
            return False
        self.memory["h"].copy_(grads)
        self.count(32 * self._size)
        return True

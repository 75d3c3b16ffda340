"""Training data on the device, in an order that is a function of (seed, epoch) alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from runner.batch import Batch
from runner.cost import Cost
from runner.seeding import derive

Augment = Callable[[Tensor, torch.Generator], Tensor]
MAX_AHEAD, AHEAD_BYTES = 64, 1 << 20  # batches, and bytes of their inputs, gathered in one go


class Stream:
    """An endless sequence of shuffled epochs over tensors that stay on the device.

    A batch may straddle two epochs, so no row is dropped and every batch is full. The order is
    that of ``torch.randperm`` seeded by (seed, epoch), so the position alone resumes the stream.

    Args:
        x: inputs, (n, ...); uint8 images are handed out as float32 in [0, 1].
        y: targets, (n, ...).
        batch_size: rows of :meth:`next` when no size is given.
        seed: seed of the order.
        cost: where drawn rows are counted.
        index: row ids in the training set, (n,) int64; 0 … n-1 when None.
        augment: applied to the stored inputs of :meth:`next`, and of :meth:`take` where asked for, before
            they become floats: ``augment(x, generator)``.
        generator: the generator that ``augment`` draws from (checkpointed by the task).
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        batch_size: int,
        seed: int,
        cost: Cost | None = None,
        index: Tensor | None = None,
        augment: Augment | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        self.x, self.y, self.index = x, y, index
        self.batch_size, self.seed = batch_size, seed
        self.cost = cost if cost is not None else Cost()
        self.augment, self.generator = augment, generator
        self.n = x.shape[0]
        self.position = 0
        self._order: Tensor | None = None
        self._order_epoch = -1
        self._ready: list[tuple[Tensor, Tensor, Tensor]] = []  # x, y, index of coming batches, last one first
        self._ready_at, self._ready_size, self._ready_from = 0, 0, self._stored()
        self._ahead = 1

    @property
    def epoch(self) -> int:
        """The epoch of the next row."""
        return self.position // self.n

    def next(self, size: int | None = None) -> Batch:
        """The next ``size`` rows (default: the batch size) of the shuffled sequence, augmented.

        Raises:
            ValueError: when ``size`` is less than one.
        """
        size = self.batch_size if size is None else size
        if size < 1:
            raise ValueError(f"a batch needs at least one row, got size={size}")
        steady = self._ready_at == self.position and self._ready_size == size
        if not (self._ready and steady and self._ready_from == self._stored()):
            self._look_ahead(size, steady)
        x, y, index = self._ready.pop()
        self.position = self._ready_at = self.position + size
        self.cost.drawn += size
        if self.augment is not None:
            assert self.generator is not None
            x = self.augment(x, self.generator)
        return Batch(decode(x), y, index)

    def take(self, index: Tensor, augment: bool = False) -> Batch:
        """The rows at positions ``index`` of this stream's data, (B,) int64.

        Args:
            index: positions, from 0 to n − 1; a row may occur more than once.
            augment: augment them as :meth:`next` does: a sampler that trains on the rows wants this.
        """
        self.cost.drawn += index.shape[0]
        return self._gather(index, self.augment if augment else None)

    def all(self) -> Batch:
        """Every row once, in storage order, without augmentation."""
        self.cost.drawn += self.n
        index = torch.arange(self.n, device=self.x.device) if self.index is None else self.index
        return Batch(decode(self.x), self.y, index)

    def clone(self, name: str) -> Stream:
        """The same rows on the same meters, in another order and from the start."""
        seed = derive(self.seed, name)
        generator = None
        if self.generator is not None:
            generator = torch.Generator(self.x.device).manual_seed(derive(seed, "augment"))
        return Stream(
            self.x, self.y, self.batch_size, seed, self.cost, self.index, self.augment, generator
        )

    def state_dict(self) -> dict[str, int | Tensor]:
        """Seed and position, and the state of the augmentation's generator where there is one."""
        state: dict[str, int | Tensor] = {"seed": self.seed, "position": self.position}
        if self.generator is not None:
            state["generator"] = self.generator.get_state()
        return state

    def load_state_dict(self, state: dict[str, int | Tensor]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.seed, self.position = int(state["seed"]), int(state["position"])
        self._order_epoch = -1
        self._ready.clear()
        if self.generator is not None:
            generator_state = state["generator"]
            assert isinstance(generator_state, Tensor)
            self.generator.set_state(generator_state.cpu())

    def _look_ahead(self, size: int, steady: bool) -> None:
        """Gather the next batch; where one size follows another, the next 2, 4, … 64 in one go.

        On small data the gathers of a batch cost more than its forward pass; once in 64 steps they do not.
        """
        self._ahead = min(2 * self._ahead, self._most_ahead(size)) if steady else 1
        self._ready_at, self._ready_size, self._ready_from = self.position, size, self._stored()
        rows = self._sequence(self.position, size * self._ahead)
        index = rows if self.index is None else self.index.index_select(0, rows)
        block = (self.x.index_select(0, rows), self.y.index_select(0, rows), index)
        # Unsafe only in that autograd does not tie the pieces together, and they do not overlap.
        self._ready = list(zip(*(torch.unsafe_split(t, size) for t in block), strict=True))[::-1]

    def _stored(self) -> tuple[int, ...]:
        """Changes when a part puts other rows in, or writes to these."""
        return id(self.x), self.x._version, id(self.y), self.y._version, id(self.index)

    def _most_ahead(self, size: int) -> int:
        """Batches in one block: 1 unless each piece is aligned as a fresh tensor would be.

        Kernels may round differently at another alignment, and a resumed run cuts its blocks elsewhere.
        """
        align = 64 if self.x.device.type == "cpu" else 512  # of torch's allocators, in bytes
        nbytes = [size * t[:1].nbytes for t in (self.x, self.y)]
        return 1 if any(n % align for n in nbytes) else max(1, min(MAX_AHEAD, AHEAD_BYTES // max(nbytes)))

    def _sequence(self, position: int, count: int) -> Tensor:
        epoch, start = divmod(position, self.n)
        parts, missing = [], count
        while missing > 0:
            parts.append(self._epoch_order(epoch)[start : start + missing])
            missing -= parts[-1].shape[0]
            epoch, start = epoch + 1, 0
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _epoch_order(self, epoch: int) -> Tensor:
        if epoch != self._order_epoch or self._order is None:
            # Drawn on the CPU, so that the order is the same on every device.
            generator = torch.Generator().manual_seed(derive(self.seed, epoch))
            self._order = torch.randperm(self.n, generator=generator).to(self.x.device)
            self._order_epoch = epoch
        return self._order

    def _gather(self, rows: Tensor, augment: Augment | None = None) -> Batch:
        index = rows if self.index is None else self.index.index_select(0, rows)
        x = self.x.index_select(0, rows)
        if augment is not None:
            assert self.generator is not None
            x = augment(x, self.generator)
        return Batch(decode(x), self.y.index_select(0, rows), index)


def decode(x: Tensor) -> Tensor:
    return x.to(torch.float32).div_(255) if x.dtype == torch.uint8 else x

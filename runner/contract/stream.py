"""Training data on the device, in an order that is a function of (seed, epoch) alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from runner.contract.batch import Batch
from runner.contract.cost import Cost
from runner.contract.seeding import derive

Augment = Callable[[Tensor, torch.Generator], Tensor]
SMALL = 32 << 20  # bytes of inputs up to which whole epochs are shuffled in one go
SMALL_ROWS = 4096  # of them, where an epoch is shorter, several at once
MOST_CUT = 64  # batches that are cut from the shuffled rows in one go
Rows = tuple[Tensor, Tensor, Tensor]  # x, y, index


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
        self._shuffled: Rows = (x, y, y)
        self._shuffled_key: tuple[int, ...] = ()
        self._cut: dict[tuple[int, int], Rows] = {}  # (start, size) -> shuffled rows
        # A constant of the data: where a slice starts in memory hangs on the position alone, resumed or not.
        self._epochs_at_once = max(1, min(SMALL_ROWS // self.n, SMALL // max(1, x.nbytes)))

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
        x, y, index = self._rows(self.position, size)
        self.position += size
        self.cost.drawn += size
        return self._batch(x, y, index, self.augment)

    def take(self, index: Tensor, augment: bool = False) -> Batch:
        """The rows at positions ``index`` of this stream's data, (B,) int64.

        Args:
            index: positions, from 0 to n − 1; a row may occur more than once.
            augment: augment them as :meth:`next` does: a sampler that trains on the rows wants this.
        """
        self.cost.drawn += index.shape[0]
        return self._batch(*self._stored(index), self.augment if augment else None)

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
        return Stream(self.x, self.y, self.batch_size, seed, self.cost, self.index, self.augment, generator)

    def state_dict(self) -> dict[str, int | Tensor]:
        """Seed and position, and the state of the augmentation's generator where there is one."""
        state: dict[str, int | Tensor] = {"seed": self.seed, "position": self.position}
        if self.generator is not None:
            state["generator"] = self.generator.get_state()
        return state

    def load_state_dict(self, state: dict[str, int | Tensor]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.seed, self.position = int(state["seed"]), int(state["position"])
        self._order_epoch, self._shuffled_key = -1, ()
        if self.generator is not None:
            generator_state = state["generator"]
            assert isinstance(generator_state, Tensor)
            self.generator.set_state(generator_state.cpu())

    def _batch(self, x: Tensor, y: Tensor, index: Tensor, augment: Augment | None) -> Batch:
        if augment is not None:
            assert self.generator is not None
            x = augment(x, self.generator)
        return Batch(decode(x), y, index)

    def _rows(self, position: int, size: int) -> Rows:
        """``size`` stored rows from ``position`` of the shuffled sequence."""
        span = self.n * self._epochs_at_once
        part, start = divmod(position, span)
        if start + size > span or self.x.nbytes > SMALL:
            return self._stored(self._sequence(position, size))
        # On small data the gathers of a batch cost more than its forward pass: shuffle all, then cut.
        # A part that puts other rows in, or writes to them, is noticed.
        key = (part, self.seed, id(self.x), self.x._version, id(self.y), self.y._version, id(self.index))
        if key != self._shuffled_key:
            self._shuffled, self._shuffled_key = self._stored(self._sequence(part * span, span)), key
            self._cut.clear()
        if (start, size) not in self._cut:
            self._cut_batches(start, size)
        return self._cut.pop((start, size))

    def _cut_batches(self, start: int, size: int) -> None:
        """The batch at ``start`` and those behind it: slicing each alone costs as much as gathering."""
        stop = start + MOST_CUT * size
        # Unsafe in that autograd does not tie the pieces together: a part may write to its own.
        pieces = [torch.unsafe_split(t[start:stop], size) for t in self._shuffled]
        self._cut |= {(start + i * size, size): rows for i, rows in enumerate(zip(*pieces, strict=True))}

    def _sequence(self, position: int, count: int) -> Tensor:
        """Where ``count`` rows from ``position`` on are stored."""
        epoch, start = divmod(position, self.n)
        parts, missing = [], count
        while missing > 0:
            parts.append(self._epoch_order(epoch)[start : start + missing])
            missing -= parts[-1].shape[0]
            epoch, start = epoch + 1, 0
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _stored(self, positions: Tensor) -> Rows:
        index = positions if self.index is None else self.index.index_select(0, positions)
        return self.x.index_select(0, positions), self.y.index_select(0, positions), index

    def _epoch_order(self, epoch: int) -> Tensor:
        if epoch != self._order_epoch or self._order is None:
            # Drawn on the CPU, so that the order is the same everywhere; pinned, so that no step waits.
            generator = torch.Generator().manual_seed(derive(self.seed, epoch))
            drawn = torch.randperm(self.n, generator=generator, pin_memory=self.x.is_cuda)
            self._order = drawn.to(self.x.device, non_blocking=True)
            self._order_epoch = epoch
        return self._order


def decode(x: Tensor) -> Tensor:
    """Stored inputs as a model takes them: uint8 images as float32 in [0, 1], the rest as it is."""
    return x.to(torch.float32).div_(255) if x.dtype == torch.uint8 else x

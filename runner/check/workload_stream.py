"""Do training streams hand out the rows that they say, each once an epoch?"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from runner.check.result import Result, ok
from runner.check.same import copied, difference
from runner.check.workload_rows import some
from runner.check.workload_subject import Built, WorkloadSubject, first_fault
from runner.contract.batch import Batch
from runner.contract.generators import torch_rng
from runner.contract.stream import Stream, decode

LARGE = 2048  # rows a batch, to get through an epoch
COMPARED = 256  # rows that are compared with others
WHOLE = 1 << 28  # bytes of floats up to which all() is asked for


def check_stream(subject: WorkloadSubject) -> Result:
    """An epoch holds every row once, inputs and labels belong together, augmentation keeps to its range."""
    built = subject.build()
    streams = {"task.data": built.task.data} | {f"task.aux[{k}]": s for k, s in built.task.aux.items()}
    faults = (fault for name, stream in streams.items() for fault in _faults(built, name, stream))
    return first_fault(faults) or ok()


def _faults(built: Built, name: str, stream: Stream) -> Iterator[str | None]:
    yield from (fault and f"{name}.{fault}" for fault in _batch_faults(built, stream))
    yield from (fault and f"{name}: {fault}" for fault in _epoch_faults(stream))
    yield from (fault and f"{name}.{fault}" for fault in _row_faults(stream))
    yield from (fault and f"{name}: {fault}" for fault in _augment_faults(stream))


def _batch_faults(built: Built, stream: Stream) -> Iterator[str | None]:
    """One batch of the default size: shapes, types, device, and what drawing it leaves alone."""
    before, state, drawn = torch_rng(stream.x.device), copied(stream.state_dict()), stream.cost.drawn
    batch = stream.next()
    if difference(before, torch_rng(stream.x.device)) is not None:
        yield "next() draws from torch's global generator: augment(x, generator) is given one"
    if len(batch) != stream.batch_size or stream.cost.drawn != drawn + stream.batch_size:
        counted = stream.cost.drawn - drawn
        yield f"next() has {len(batch)} rows and counts {counted}, wanted {stream.batch_size}"
    wanted = (tuple(built.task.info.input_shape), decode(stream.x[:1]).dtype, stream.x.device)
    if (found := (tuple(batch.x.shape[1:]), batch.x.dtype, batch.x.device)) != wanted:
        yield f"next() has inputs of {_words(*found)}, wanted {_words(*wanted)}"
    yield _range_fault(built, batch.x)
    stream.load_state_dict(state)
    fault = difference([batch.x, batch.y, batch.index], _as_list(stream.next()))
    yield (
        fault and f"next() after load_state_dict differs: {fault}; does augmentation keep a state of its own?"
    )


def _words(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> str:
    return f"shape {shape}, {dtype} on {device}"


def _kind(x: Tensor) -> str:
    return f"{tuple(x.shape)} {x.dtype}"


def _as_list(batch: Batch) -> list[Tensor | None]:
    return [batch.x, batch.y, batch.index]


def _range_fault(built: Built, x: Tensor) -> str | None:
    stated = built.task.info.input_range
    if stated is None or (stated[0] - 1e-6 <= float(x.min()) and float(x.max()) <= stated[1] + 1e-6):
        return None
    return (
        f"next() has inputs from {float(x.min()):.4g} to {float(x.max()):.4g}, beyond "
        f"info.input_range={tuple(stated)}: augmentation must keep to it"
    )


def _epoch_faults(stream: Stream) -> Iterator[str | None]:
    first, second = _epoch(stream, "a"), _epoch(stream, "b")
    for index in (first, second):
        if len(index) != stream.n or not torch.equal(index.sort().values, torch.arange(stream.n)):
            missing = stream.n - len(index.unique())
            yield f"an epoch is no permutation of its {stream.n} rows: {missing} of them are missing"
    if stream.n > 10 and torch.equal(first, second):
        yield "two streams of other seeds have the rows in the same order"
    if stream.n > 10 and torch.equal(first, torch.arange(stream.n)):
        yield "the rows come in storage order: they are not shuffled"


def _epoch(stream: Stream, name: str) -> Tensor:
    """Positions of an epoch of the stream, in an order of its own; in batches of odd sizes."""
    own, left, found = stream.clone(name), stream.n, []
    ids = torch.arange(own.n) if own.index is None else own.index.cpu()
    sizes = [min(7, left), min(own.batch_size, left)]
    while left > 0:
        size = min(sizes.pop() if sizes else LARGE, left)
        batch = own.next(size)
        assert batch.index is not None
        found.append(batch.index.cpu())
        left -= size
    return torch.searchsorted(ids, torch.cat(found))


def _row_faults(stream: Stream) -> Iterator[str | None]:
    """Batches against the stored rows."""
    positions = some(stream.n, COMPARED).to(stream.x.device)
    taken, stored = stream.take(positions), decode(stream.x.index_select(0, positions))
    if difference(taken.x, stored) is not None or difference(taken.y, stream.y[positions]) is not None:
        yield "take(index) answers other rows than those stored at index"
    drawn = stream.next(min(COMPARED, stream.n))
    again = stream.take(_positions(stream, drawn))
    if difference(drawn.y, again.y) is not None:
        yield "next() has targets that are not those of batch.index"
    if stream.augment is None and difference(drawn.x, again.x) is not None:
        yield "next() has inputs that are not those of batch.index"
    if stream.x.numel() * 4 <= WHOLE:
        whole = stream.all()
        same = (
            difference(whole.x[positions], taken.x) is None
            and difference(whole.y[positions], taken.y) is None
        )
        if not same or len(whole) != stream.n:
            yield "all() is not every row once, in storage order"


def _positions(stream: Stream, batch: Batch) -> Tensor:
    assert batch.index is not None
    return batch.index if stream.index is None else torch.searchsorted(stream.index, batch.index)


def _augment_faults(stream: Stream) -> Iterator[str | None]:
    """An augmented input still resembles its own row more than the next one: labels stay right."""
    if stream.augment is None:
        return
    positions = some(stream.n, COMPARED).to(stream.x.device)
    plain, changed = stream.take(positions).x, stream.take(positions, augment=True).x
    if changed.shape != plain.shape or changed.dtype != plain.dtype:
        yield f"augmentation turns {_kind(plain)} into {_kind(changed)}"
        return
    own, other = (changed - plain).abs().mean(), (changed - plain.roll(1, 0)).abs().mean()
    if own >= other:
        yield "augmented inputs resemble other rows as much as their own: are rows moved within the batch?"

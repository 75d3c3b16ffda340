"""The training stream: order, epochs, resuming, augmentation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from runner.contract.cost import Cost
from runner.contract.seeding import derive
from runner.contract.stream import Stream
from tests.problems import through_disk
from tests.tasks import NoSync, generators_untouched, normal

N = 20


def make(seed: int = 7, n: int = N, batch_size: int = 6, features: int = 3, **more: object) -> Stream:
    return Stream(normal(0, n, features), torch.arange(n) % 4, batch_size, seed, **more)  # type: ignore[arg-type]


def noisy(seed: int = 7) -> Stream:
    def augment(x: Tensor, generator: torch.Generator) -> Tensor:
        return x + torch.rand(x.shape, generator=generator, dtype=x.dtype)

    return make(seed, augment=augment, generator=torch.Generator().manual_seed(3))


def rows(stream: Stream, *sizes: int) -> list[int]:
    ids = []
    for size in sizes:
        batch = stream.next(size)
        assert batch.index is not None
        assert len(batch) == len(batch.y) == len(batch.index) == size
        assert torch.equal(batch.x, stream.x[batch.index])
        assert torch.equal(batch.y, stream.y[batch.index])
        ids += batch.index.tolist()
    return ids


def epochs(seed: int, count: int, n: int = N) -> list[int]:
    order = []
    for epoch in range(count):
        generator = torch.Generator().manual_seed(derive(seed, epoch))
        order += torch.randperm(n, generator=generator).tolist()
    return order


def test_order_is_a_function_of_seed_and_epoch() -> None:
    with generators_untouched():
        assert rows(make(seed=7), *[5] * 12) == epochs(7, 3)
    torch.manual_seed(99)
    assert rows(make(seed=7), *[5] * 12) == epochs(7, 3)
    assert rows(make(seed=8), *[5] * 12) == epochs(8, 3) != epochs(7, 3)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=25))
def test_any_sizes_cut_one_endless_sequence(sizes: list[int]) -> None:
    """Batches that straddle epochs, or hold several, are full; no row is lost or comes twice."""
    stream = make()
    total = sum(sizes)
    assert rows(stream, *sizes) == epochs(7, total // N + 1)[:total]
    assert (stream.position, stream.epoch, stream.cost.drawn) == (total, total // N, total)


def test_every_row_comes_once_an_epoch_whatever_the_batch_size() -> None:
    stream = make(batch_size=6)
    counts = torch.bincount(torch.tensor(rows(stream, *[6] * 100)), minlength=N)
    assert counts.tolist() == [30] * N  # 600 rows are 30 epochs; 6 does not divide 20


@pytest.mark.parametrize("before", [0, 1, 2, 3, 7, 50, 131])
@pytest.mark.parametrize(("features", "size"), [(3, 6), (16, 8)])
def test_resumes_anywhere_bit_for_bit(before: int, features: int, size: int) -> None:
    first = make(features=features, batch_size=size)
    second = make(seed=1234, features=features, batch_size=size)
    for stream in (first, second):
        for _ in range(before):
            stream.next()
    second.load_state_dict(through_disk(first.state_dict()))
    for count in (size, size, size, 25, 1, size, size, size, size):
        a, b = first.next(count), second.next(count)
        assert a.index is not None
        assert b.index is not None
        assert torch.equal(a.index, b.index)
        assert torch.equal(a.x, b.x)
    assert first.state_dict() == second.state_dict()


def test_augmentation_resumes_bit_for_bit() -> None:
    first, second = noisy(), noisy()
    for _ in range(5):
        first.next()
    second.load_state_dict(through_disk(first.state_dict()))
    for _ in range(6):
        assert torch.equal(first.next().x, second.next().x)


def test_only_training_batches_are_augmented() -> None:
    stream = noisy()
    generator = torch.Generator().manual_seed(3)
    batch = stream.next(4)
    assert batch.index is not None
    noise = torch.rand((4, 3), generator=generator, dtype=torch.float64)
    assert torch.equal(batch.x, stream.x[batch.index] + noise)
    assert torch.equal(stream.take(batch.index).x, stream.x[batch.index])
    assert torch.equal(stream.all().x, stream.x)
    again = stream.take(batch.index, augment=True)
    assert torch.equal(
        again.x, stream.x[batch.index] + torch.rand((4, 3), generator=generator, dtype=torch.float64)
    )


def test_take_and_all_leave_the_sequence_alone_and_are_counted() -> None:
    stream = make()
    picked = stream.take(torch.tensor([3, 3, 19]))
    assert picked.index is not None
    assert picked.index.tolist() == [3, 3, 19]
    everything = stream.all()
    assert everything.index is not None
    assert everything.index.tolist() == list(range(N))
    assert (stream.cost.drawn, stream.position) == (3 + N, 0)
    assert rows(stream, 10) == epochs(7, 1)[:10]


def test_rows_of_a_part_of_the_data_keep_their_ids() -> None:
    ids = torch.arange(N) * 10 + 5
    stream = make(index=ids)
    batch = stream.next(7)
    assert batch.index is not None
    assert batch.index.tolist() == [10 * row + 5 for row in epochs(7, 1)[:7]]
    assert torch.equal(batch.x, stream.x[(batch.index - 5) // 10])
    picked, everything = stream.take(torch.tensor([2, 0])), stream.all()
    assert picked.index is not None
    assert everything.index is not None
    assert picked.index.tolist() == [25, 5]
    assert torch.equal(everything.index, ids)


def test_a_clone_has_the_same_rows_and_meters_in_another_order_from_the_start() -> None:
    stream = make()
    rows(stream, 6, 6)
    clone = stream.clone("teacher")
    order = rows(clone, *[5] * 4)
    assert sorted(order) == list(range(N))
    assert order == epochs(derive(7, "teacher"), 1)
    assert order != epochs(7, 1)
    assert clone.cost is stream.cost
    assert stream.cost.drawn == 12 + N
    assert rows(stream, 8) == epochs(7, 1)[12:]
    assert rows(make().clone("teacher"), *[5] * 4) == order
    assert rows(make().clone("student"), *[5] * 4) != order


def test_a_clone_augments_from_a_generator_of_its_own() -> None:
    plain, stream = noisy(), noisy()
    clone = stream.clone("teacher")
    noise = clone.next().x - clone.x[epochs(clone.seed, 1)[:6]]
    assert 0 < noise.min() < noise.max() < 1
    assert not torch.allclose(noise, plain.take(torch.arange(6), augment=True).x - plain.x[:6])
    assert torch.equal(stream.next().x, noisy().next().x)


def test_bytes_become_floats_in_the_unit_interval() -> None:
    x = torch.arange(0, 256, 5, dtype=torch.uint8).view(-1, 1)
    stream = Stream(x, torch.zeros(len(x)), 4, 0)
    for batch in (stream.next(), stream.take(torch.tensor([0, 51])), stream.all()):
        assert batch.x.dtype == torch.float32
        assert batch.index is not None
        assert torch.equal(batch.x, x[batch.index].float() / 255)
    assert stream.x.dtype == torch.uint8


def test_changing_a_batch_changes_no_data() -> None:
    stream, before = make(features=16, batch_size=8), normal(0, N, 16)
    for _ in range(40):
        batch = stream.next()
        batch.x.mul_(0)
        batch.y.mul_(0)
    assert torch.equal(stream.x, before)
    assert torch.equal(stream.y, torch.arange(N) % 4)
    rows(stream, 4, 4, 4, 4, 4)


def test_data_that_is_put_in_or_written_to_is_handed_out_at_once() -> None:
    stream = make(features=16)
    rows(stream, *[8] * 9)
    stream.x.add_(1)
    rows(stream, *[8] * 9)  # compares with stream.x
    stream.x = stream.x * 2
    rows(stream, *[8] * 9)
    stream.y[:] = 0
    rows(stream, *[8] * 9)


def test_meters_are_the_ones_given() -> None:
    cost = Cost()
    stream = make(cost=cost)
    stream.next()
    assert cost.drawn == 6
    stream.cost = other = Cost()
    stream.next()
    assert (cost.drawn, other.drawn) == (6, 6)


def test_batches_do_not_wait_for_the_device() -> None:
    stream = noisy()
    with NoSync():
        for size in (6, 6, 6, 6, 45):
            stream.next(size)
        stream.take(torch.arange(3))


@pytest.mark.parametrize("size", [0, -1])
def test_empty_batches_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"at least one row, got size={size}"):
        make().next(size)

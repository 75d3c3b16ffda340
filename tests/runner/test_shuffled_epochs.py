"""Small data is shuffled an epoch at a time: nobody may notice but the clock."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from runner.contract import stream as stream_module
from runner.contract.seeding import derive
from runner.contract.stream import Stream
from runner.parts.composed import Composed
from tests.tasks import make_task, mlp, train, weights


def stored(n: int, features: int = 16) -> tuple[Tensor, Tensor]:
    return torch.arange(n * features, dtype=torch.float32).view(n, features), torch.arange(n)


def sequence(seed: int, n: int, count: int) -> list[int]:
    """The shuffled epochs, written out."""
    rows: list[int] = []
    for epoch in range(count // n + 1):
        rows += torch.randperm(n, generator=torch.Generator().manual_seed(derive(seed, epoch))).tolist()
    return rows[:count]


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 40),
    st.lists(st.tuples(st.integers(1, 70), st.integers(1, 9)), min_size=1, max_size=5),
    st.sampled_from([1, 90, 4096]),
)
def test_the_rows_are_those_of_the_shuffled_epochs_whatever_the_sizes(
    n: int, runs: list[tuple[int, int]], at_once: int
) -> None:
    x, y = stored(n)
    with mock.patch.object(stream_module, "SMALL_ROWS", at_once):
        stream = Stream(x, y, 4, seed=5)
    sizes = [size for size, times in runs for _ in range(times)]
    batches = [stream.next(size) for size in sizes]
    assert [len(batch) for batch in batches] == sizes
    assert torch.cat([batch.index for batch in batches]).tolist() == sequence(5, n, sum(sizes))
    for batch in batches:
        assert torch.equal(batch.x, x[batch.index]) and torch.equal(batch.y, y[batch.index])
    assert stream.position == stream.cost.drawn == sum(sizes)


@pytest.mark.parametrize("size", [16, 8, 5])
def test_a_resumed_run_reads_its_rows_from_the_same_alignment(size: int) -> None:
    """Kernels may round differently at another alignment, so a slice has to start where it did before."""
    x = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
    run, again = (make_task(mlp, x, torch.arange(100) % 3, batch_size=size) for _ in range(2))
    for _ in range(33):
        run.data.next()
    again.data.load_state_dict(run.data.state_dict())
    for _ in range(50):
        one, other = run.data.next(), again.data.next()
        assert one.x.data_ptr() % 64 == other.x.data_ptr() % 64
        assert torch.equal(one.x, other.x)


@pytest.mark.parametrize("size", [16, 5])
def test_training_is_the_same_with_and_without(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))

    def trained(small: int) -> list[Tensor]:
        monkeypatch.setattr(stream_module, "SMALL", small)
        task = make_task(mlp, x, torch.arange(100) % 3, batch_size=size)
        algorithm = Composed(optimizer=lambda groups: torch.optim.AdamW(groups, lr=0.01))
        algorithm.setup(task)
        train(algorithm, task, 150)
        return weights(task)

    for one, other in zip(trained(0), trained(1 << 20), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_a_resume_in_the_middle_of_an_epoch_goes_on_with_the_next_row() -> None:
    x, y = stored(50)
    stream, resumed = Stream(x, y, 8, seed=1), Stream(x, y, 8, seed=1)
    for _ in range(37):
        stream.next()
    resumed.load_state_dict(stream.state_dict())
    for _ in range(30):
        assert torch.equal(resumed.next().x, stream.next().x)
    stream.load_state_dict({"seed": 2, "position": stream.position})
    assert stream.next().index.tolist() == sequence(2, 50, stream.position)[-8:]
    stream.position = 8
    assert stream.next().index.tolist() == sequence(2, 50, 16)[8:]


def test_large_data_is_gathered_batch_by_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(*stored(64), 8, seed=0)
    assert stream.next().x.untyped_storage().nbytes() == stream.x.nbytes * (stream_module.SMALL_ROWS // 64)
    monkeypatch.setattr(stream_module, "SMALL", 0)
    batch = stream.next()
    assert batch.x.untyped_storage().nbytes() == batch.x.nbytes


@pytest.mark.parametrize("change", ["put x", "put y", "write x", "write y"])
def test_rows_that_a_part_puts_in_or_writes_to_are_seen_at_once(change: str) -> None:
    how, name = change.split()
    x, y = stored(32)
    stream = Stream(x.clone(), y.clone(), 8, seed=0)
    for _ in range(9):
        stream.next()
    old = getattr(stream, name)
    setattr(stream, name, old.add_(100) if how == "write" else old + 100)
    batch = stream.next()
    assert torch.equal(batch.x, x[batch.index] + 100 * (name == "x"))
    assert torch.equal(batch.y, y[batch.index] + 100 * (name == "y"))


def test_a_part_may_write_to_its_batch_while_an_older_graph_lives() -> None:
    x, y = stored(32)
    stream, weight = Stream(x, y, 8, seed=0), torch.ones(16, requires_grad=True)
    for _ in range(9):
        stream.next()
    first, second = stream.next(), stream.next()
    loss = (first.x * weight).sum()
    second.x.zero_()
    loss.backward()
    assert weight.grad is not None and torch.equal(weight.grad, x[first.index].sum(0))
    third = stream.next()
    assert torch.equal(third.x, x[third.index])


def test_what_a_part_wrote_to_its_batch_is_gone_after_going_back() -> None:
    x, y = stored(32)
    stream = Stream(x, y, 8, seed=0)
    stream.next()
    state = stream.state_dict()
    stream.next().x.zero_()
    stream.load_state_dict(state)
    batch = stream.next()
    assert torch.equal(batch.x, x[batch.index])

"""Uniform sampling: its generator, its rows, its augmentation."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

from algorithms.samplers.uniform import Uniform
from runner.contract.instantiate import build_part
from runner.contract.seeding import derive
from runner.contract.stream import Stream
from runner.parts.composed import Composed
from tests.problems import part_config
from tests.tasks import assert_no_sync, assert_resumes, classification, follow, make_info

SGD = functools.partial(torch.optim.SGD, lr=0.1)


def test_rows_come_from_the_named_generator() -> None:
    task, sampler = classification(seed=3), Uniform()
    generator = torch.Generator().manual_seed(derive(3, "rng", "uniform sampler"))
    for _ in range(20):
        rows = torch.randint(24, (8,), generator=generator)
        batch = sampler(task)
        assert batch.index is not None
        assert torch.equal(batch.index, rows)
        assert torch.equal(batch.x, task.data.x[rows])
        assert torch.equal(batch.y, task.data.y[rows])
    assert task.cost.drawn == 160
    assert task.data.position == 0


def test_draws_are_uniform_with_replacement() -> None:
    task, sampler = classification(), Uniform(500)
    rows = torch.cat([sampler(task).index for _ in range(48)])  # type: ignore[misc]
    counts = torch.bincount(rows, minlength=24).double()
    chi_square = ((counts - 1000) ** 2 / 1000).sum().item()
    assert 5 < chi_square < 50  # 23 degrees of freedom: p-values of 1e-5 and 1e-3


def test_batch_size_is_the_workloads_or_its_own() -> None:
    task = classification()
    assert len(Uniform()(task)) == 8
    assert len(Uniform(50)(task)) == 50


def test_rows_are_augmented_as_the_stream_augments_them() -> None:
    def augment(x: Tensor, generator: torch.Generator) -> Tensor:
        return x + torch.rand(x.shape, generator=generator, dtype=x.dtype)

    task = classification(augment=augment, generator=torch.Generator().manual_seed(5))
    batch = Uniform()(task)
    assert batch.index is not None
    noise = torch.rand((8, 5), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    assert torch.equal(batch.x, task.data.x[batch.index] + noise)


def test_pool_rows_keep_their_ids() -> None:
    task = classification()
    ids = torch.arange(100, 124)
    task.data = Stream(task.data.x, task.data.y, 8, 0, task.cost, ids)
    batch = Uniform()(task)
    assert batch.index is not None
    assert torch.equal(batch.x, task.data.x[batch.index - 100])


def test_trains_resumes_and_does_not_wait() -> None:
    make = functools.partial(Composed, SGD, sampler=Uniform)
    assert_no_sync(make(), classification())
    assert_resumes(make, classification)
    assert not torch.equal(follow(make(), classification(), 3), follow(Composed(SGD), classification(), 3))


def test_preset_and_bad_values() -> None:
    assert build_part("sampler", part_config("sampler", "uniform")).batch_size is None
    assert build_part("sampler", part_config("sampler", "uniform", batch_size=3)).batch_size == 3
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        Uniform(0)
    assert Composed(SGD, sampler=Uniform).compatible(make_info()) is None

"""Label shards: which rows a worker draws, their generator, checkpoints."""

from __future__ import annotations

import functools

import pytest
import torch

from algorithms.estimators.ef import EF
from algorithms.samplers.label_shards import LabelShards
from runner.contract.instantiate import build_part
from runner.contract.seeding import derive
from runner.parts.composed import Composed
from tests.problems import part_config
from tests.tasks import assert_no_sync, assert_resumes, classification, make_info, meters

SGD = functools.partial(torch.optim.SGD, lr=0.1)


def test_reference_rows() -> None:
    task, sampler = classification(seed=3), LabelShards(4)
    sampler.setup(task)
    generator = torch.Generator().manual_seed(derive(3, "rng", "label shards"))
    labels = task.data.y.tolist()
    rows = sorted(range(24), key=lambda i: (labels[i], i))
    for _ in range(20):
        places = torch.randint(6, (4, 2), generator=generator).tolist()
        expected = [rows[6 * worker + place] for worker in range(4) for place in places[worker]]
        assert sampler(task).index.tolist() == expected  # type: ignore[union-attr]
    assert task.cost.drawn == 160


def test_a_worker_has_its_own_labels_and_all_rows_of_its_shard_come_up() -> None:
    task, sampler = classification(), LabelShards(3)
    sampler.setup(task)
    batches = [sampler(task) for _ in range(60)]
    assert {len(batch) for batch in batches} == {6}  # 8 is no multiple of 3
    for worker in range(3):
        mine = [batch.select(slice(2 * worker, 2 * worker + 2)) for batch in batches]
        assert {label for batch in mine for label in batch.y.tolist()} == {worker}
        assert len({i for batch in mine for i in batch.index.tolist()}) == 8  # type: ignore[union-attr]


def test_a_batch_of_all_rows_is_every_shard_whole() -> None:
    task, sampler = classification(), LabelShards(3)
    task.data.batch_size = task.data.n
    sampler.setup(task)
    rows = sampler(task).index.tolist()  # type: ignore[union-attr]
    assert sorted(rows) == list(range(24)) and task.data.y[rows].tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert sampler(task).index.tolist() == rows  # type: ignore[union-attr]


def test_trains_with_workers_resumes_and_does_not_wait() -> None:
    make = functools.partial(
        Composed, SGD, sampler=functools.partial(LabelShards, 4), estimator=functools.partial(EF, 4)
    )
    assert_no_sync(make(), classification())
    assert_resumes(make, classification)
    task, algorithm = classification(), make()
    algorithm.setup(task)
    algorithm.step(task)
    assert meters(task) == (8, 8, 0, 8)


def test_preset_bad_values_and_where_it_does_not_fit() -> None:
    part = build_part("sampler", part_config("sampler", "label_shards"))
    assert part.workers == 10
    assert part.compatible(make_info()) == "needs a row for each of 10 workers, a batch has 8"
    assert part.compatible(make_info("lm", batch_size=32)) == "rows of tokens have no labels to sort by"
    assert part.compatible(make_info(batch_size=32)) is None
    with pytest.raises(ValueError, match="workers must be at least 1"):
        LabelShards(0)

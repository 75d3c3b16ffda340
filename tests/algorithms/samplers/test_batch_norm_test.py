"""The norm test: the spec's numbers, literal trajectories with a growing batch, costs and checkpoints."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from algorithms.optimizers.adagradnorm import AdaGradNorm
from algorithms.samplers.batch_norm_test import BatchNormTest, moments, wanted
from runner.base.errors import UserError
from runner.contract.instantiate import build_part
from runner.contract.task import Task
from runner.parts.composed import Composed
from tests.problems import part_config
from tests.tasks import assert_resumes, binary, classification, follow, language, make_info, meters, normal

ROWS = torch.tensor([[1.0, 2.0], [3.0, 0.0], [2.0, 2.0], [-2.0, 4.0]], dtype=torch.float64)
SGD = functools.partial(torch.optim.SGD, lr=0.3)


def test_spec_moments_and_sizes() -> None:
    variance, square = moments([{"x": ROWS[:, :1], "y": ROWS[:, 1:]}])
    assert variance.item() == pytest.approx(22 / 3, abs=1e-12)
    assert square.item() == pytest.approx(5, abs=1e-12)
    assert wanted(22 / 3, 5, 4, 0.5) == 6
    assert wanted(22 / 3, 5, 4, 1.0) == 4


@pytest.mark.parametrize("size", [1, 2, 3, 7, 20])
def test_chunks_make_no_difference(size: int) -> None:
    rows = normal(3, 20, 6) + 5
    variance, square = moments({"a": part[:, :2], "b": part[:, 2:]} for part in rows.split(size))
    assert variance.item() == pytest.approx(rows.var(0).sum().item(), rel=1e-12)
    assert square.item() == pytest.approx(rows.mean(0).square().sum().item(), rel=1e-12)


def test_a_mean_gradient_of_zero_asks_for_all_there_is_and_nan_for_nothing() -> None:
    assert wanted(1.0, 0.0, 4, 0.5) == math.inf
    assert wanted(0.0, 0.0, 4, 0.5) == 4
    assert wanted(math.nan, 1.0, 4, 0.5) == 4


def words() -> Task:
    return language(lambda: nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 3)).double(), 40)


def row_loss(task: Task, outputs: Tensor, y: Tensor) -> Tensor:
    if task.info.task == "binary":
        return F.binary_cross_entropy_with_logits(outputs, y)
    return F.cross_entropy(outputs.flatten(0, -2), y.flatten())


def literal(
    task: Task, steps: int, eta: float, initial: int, most: int, every: int
) -> tuple[Tensor, list[int]]:
    """A row and a coordinate at a time; the iterates, and the batch sizes."""
    model = copy.deepcopy(task.model)
    params, size, iterates, sizes = list(model.parameters()), initial, [], []
    for t in range(1, steps + 1):
        sizes.append(size)
        batch = task.data.next(size)
        grads = []
        for i in range(size):
            loss = row_loss(task, model(batch.x[i : i + 1]), batch.y[i : i + 1])
            grads.append([v for g in torch.autograd.grad(loss, params) for v in g.flatten().tolist()])
        mean = [sum(g[j] for g in grads) / size for j in range(len(grads[0]))]
        if t % every == 0:
            spread = sum(sum((g[j] - mean[j]) ** 2 for g in grads) / (size - 1) for j in range(len(mean)))
            size = min(most, max(size, math.ceil(spread / (eta**2 * sum(v * v for v in mean)))))
        values = iter(torch.tensor(mean, dtype=torch.float64).split([p.numel() for p in params]))
        with torch.no_grad():
            for p in params:
                p -= 0.3 * next(values).view_as(p)
        iterates.append(torch.cat([p.detach().flatten() for p in params]))
    return torch.stack(iterates), sizes


@pytest.mark.parametrize(("build", "eta"), [(classification, 0.8), (binary, 0.8), (words, 0.1)])
def test_reference_trajectory(build: Callable[[], Task], eta: float) -> None:
    task = build()
    part = BatchNormTest(eta=eta, initial=3, most=20, every=4, chunk=2)
    got = follow(Composed(SGD, sampler=lambda: part), task, 50)
    expected, sizes = literal(build(), 50, eta, 3, 20, 4)
    torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-9)
    assert task.cost.drawn == sum(sizes)
    assert sizes[0] == 3
    assert sizes == sorted(sizes)
    assert len(set(sizes)) > 1
    assert part.report()["batch_size"] >= sizes[-1]


def test_a_test_passes_its_batch_a_second_time() -> None:
    task = classification()
    algorithm = Composed(SGD, sampler=functools.partial(BatchNormTest, initial=6, most=6, every=2))
    follow(algorithm, task, 4)
    assert meters(task) == (24, 24, 0, 24)  # at its largest there is nothing to test
    task = classification()
    follow(Composed(SGD, sampler=functools.partial(BatchNormTest, eta=100.0, initial=6, every=2)), task, 4)
    assert meters(task) == (36, 36, 0, 24)


def test_grows_to_the_cap_or_to_all_rows() -> None:
    for most, cap in ((10, 10), (None, 24), (1000, 24)):
        part = BatchNormTest(eta=1e-3, initial=2, most=most, every=1)
        follow(Composed(SGD, sampler=lambda part=part: part), classification(), 2)
        assert part.size == cap


@pytest.mark.parametrize("before", [3, 4, 9])
def test_resumes_with_adagradnorm(before: int) -> None:
    sampler = functools.partial(BatchNormTest, eta=1.5, initial=2, every=4)
    assert_resumes(lambda: Composed(AdaGradNorm, sampler=sampler), classification, before, 8)


def test_says_how_often_it_waits_and_where_it_does_not_fit() -> None:
    algorithm = Composed(SGD, sampler=functools.partial(BatchNormTest, every=7))
    algorithm.setup(classification())
    assert algorithm.syncs_every == 7
    reason = algorithm.compatible(make_info(has_batchnorm=True))
    assert reason == "sampler: batch norm mixes rows: they have no gradients of their own"
    assert algorithm.compatible(make_info()) is None


@pytest.mark.parametrize(
    ("key", "value"), [("eta", 0.0), ("initial", 1), ("most", 1), ("every", 0), ("chunk", 0)]
)
def test_refuses_bad_values_by_name(key: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"{key} must .*, got "):
        build_part("sampler", part_config("sampler", "batch_norm_test", **{key: value}))

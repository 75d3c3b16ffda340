"""USEFUL: the clusters, a literal second run, what begins anew, resuming in both runs."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from algorithms.averages.ema import EMA
from algorithms.whole.useful_upsample import UsefulUpsample, predictions, slow_cluster, two_means
from runner.contract.task import Task
from runner.parts.composed import Composed
from tests.tasks import (
    CLASSES,
    FEATURES,
    NoSync,
    assert_resumes,
    binary,
    classification,
    conv_net,
    images,
    make_info,
    normal,
    train,
)

LR = 0.1
SGD = functools.partial(torch.optim.SGD, lr=LR)
MOMENTUM = functools.partial(torch.optim.SGD, lr=LR, momentum=0.9)
TASKS: dict[str, Callable[[], Task]] = {
    "linear": lambda: classification(lambda: nn.Linear(FEATURES, CLASSES).double()),
    "mlp": classification,
    "one_logit": binary,
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def slow_halves(points: list[list[float]]) -> set[frozenset[int]]:
    """The two clusters of the least squared distances, by trying all."""
    best, found = float("inf"), set[frozenset[int]]()
    everything = range(len(points))
    for size in range(1, len(points) // 2 + 1):
        for some in itertools.combinations(everything, size):
            halves = (some, [k for k in everything if k not in some])
            total = 0.0
            for half in halves:
                centre = [sum(points[k][c] for k in half) / len(half) for c in range(len(points[0]))]
                total += sum((points[k][c] - m) ** 2 for k in half for c, m in enumerate(centre))
            if total < best:
                best, found = total, {frozenset(half) for half in halves}
    return found


def test_spec_one_class() -> None:
    logits = torch.tensor([[4, 0], [3.5, 0.2], [0.4, 0.3], [0.1, 0.6]], dtype=torch.float64)
    losses = F.cross_entropy(logits, torch.zeros(4, dtype=torch.int64), reduction="none")
    assert losses.tolist() == pytest.approx([0.018150, 0.036219, 0.644397, 0.974077], abs=1e-6)
    late = slow_cluster(logits, losses, seeded())
    assert late.tolist() == [False, False, True, True]
    assert losses[~late].mean().item() == pytest.approx(0.027185, abs=1e-6)
    assert losses[late].mean().item() == pytest.approx(0.809237, abs=1e-6)
    multiset = torch.cat([torch.arange(4), torch.arange(4)[late]])
    assert multiset.tolist() == [0, 1, 2, 3, 2, 3]


@pytest.mark.parametrize("seed", range(6))
def test_reference_clusters_are_the_best_of_all(seed: int) -> None:
    points = normal(seed, 10, 3)
    points[: 3 + seed % 3] += 2
    second = two_means(points, seeded(seed))
    got = {frozenset(k for k in range(10) if second[k] == side) for side in (True, False)}
    assert got == slow_halves(points.tolist())


def test_clusters_of_equal_points_and_of_one_point_are_none() -> None:
    for points in (torch.ones(5, 2), torch.ones(1, 2)):
        assert not slow_cluster(points, torch.rand(len(points)), seeded()).any()


@pytest.mark.parametrize("problem", TASKS)
def test_reference_trajectory(problem: str) -> None:
    """50 steps: 6 of the first run, then from new weights on the rows of the larger set."""
    task, twin = TASKS[problem](), TASKS[problem]()
    algorithm, params = UsefulUpsample(SGD), list(twin.params)
    algorithm.setup(task)
    twin.rng("useful k-means")
    rows: Tensor | None = None
    order: list[int] = []
    for step in range(50):
        if step == 6:
            rows = slow_multiset(twin)
            twin.reset_model()
        train_one(algorithm, task)
        if rows is None:
            batch = twin.data.next()
        else:
            while len(order) < 8:
                shuffle = torch.randperm(len(rows), generator=twin.rng("useful order"))
                order += rows[shuffle].tolist()
            batch = twin.data.take(torch.tensor(order[:8]))
            order = order[8:]
        total = sum(twin.losses(batch), torch.zeros(())) / len(batch)
        with torch.no_grad():
            for p, slope in zip(params, torch.autograd.grad(total, params), strict=True):
                p.sub_(LR * slope)
        for p, q in zip(task.params, params, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-9)
    assert algorithm.rows is not None
    assert rows is not None
    assert sorted(algorithm.rows.tolist()) == sorted(rows.tolist())
    assert 24 < len(rows) < 48


def slow_multiset(task: Task) -> Tensor:
    """Every row, and those of each class's cluster with the higher mean loss once more."""
    logits = task.model(task.data.x).detach()
    logits = torch.stack([torch.zeros_like(logits), logits], 1) if logits.dim() == 1 else logits
    y = task.data.y.long()
    losses = F.cross_entropy(logits, y, reduction="none")
    found: list[int] = []
    for label in sorted(set(y.tolist())):
        members = [k for k in range(len(y)) if y[k] == label]
        halves = [sorted(half) for half in slow_halves([logits[k].tolist() for k in members])]
        late = max(halves, key=lambda half: losses[[members[k] for k in half]].mean().item())
        found += [members[k] for k in late]
    return torch.tensor(list(range(len(y))) + sorted(found))


def train_one(algorithm: Any, task: Task) -> None:
    train(algorithm, task, 1)


def test_weights_optimizer_and_average_begin_anew() -> None:
    task = classification()
    algorithm = UsefulUpsample(MOMENTUM, average=functools.partial(EMA, 0.5, False))
    algorithm.setup(task)
    train(algorithm, task, 6)  # type: ignore[arg-type]
    fresh = classification()
    fresh.reset_model()
    before = [p.detach().clone() for p in fresh.params]
    train(algorithm, task, 1)  # type: ignore[arg-type]
    for p, start in zip(task.params, before, strict=True):
        assert p.grad is not None
        torch.testing.assert_close(p.detach(), start - LR * p.grad)  # a first step of momentum is plain
    algorithm.enter_eval(task)
    for p, start in zip(task.params, before, strict=True):
        assert p.grad is not None
        torch.testing.assert_close(p.detach(), start - 0.5 * LR * p.grad)


def test_an_epoch_has_late_rows_twice_and_the_pass_is_charged_once() -> None:
    task = classification()
    algorithm = UsefulUpsample(SGD)
    algorithm.setup(task)
    train(algorithm, task, 10)  # type: ignore[arg-type]
    assert (task.cost.drawn, task.cost.forward, task.cost.backward) == (80, 104, 80)
    assert algorithm.rows is not None
    assert algorithm.order is not None
    assert Counter(algorithm.order.tolist()) == Counter(algorithm.rows.tolist())
    late = len(algorithm.rows) - 24
    assert algorithm.report()["late"] == late
    assert set(Counter(algorithm.rows.tolist()).values()) == {1, 2}
    assert all(module.training for module in task.model.modules())


@pytest.mark.parametrize(("budget", "rows"), [(95, False), (96, True)])
def test_no_second_run_where_the_first_would_be_most_of_the_budget(budget: int, rows: bool) -> None:
    task, algorithm = classification(), UsefulUpsample(SGD)
    task.info = dataclasses.replace(task.info, budget_samples=budget)
    algorithm.setup(task)
    train(algorithm, task, 12)  # type: ignore[arg-type]
    assert (algorithm.rows is not None) == rows


def test_the_pass_moves_no_statistics() -> None:
    task = images(conv_net)
    before = {key: value.clone() for key, value in task.model.state_dict().items()}
    logits, losses = predictions(task)
    assert (logits.shape, losses.shape) == ((24, 3), (24,))
    assert all(torch.equal(value, before[key]) for key, value in task.model.state_dict().items())


@pytest.mark.parametrize("before", [4, 6, 14])
def test_resumes(before: int) -> None:
    make: Any = functools.partial(UsefulUpsample, MOMENTUM)
    assert_resumes(make, classification, before=before, after=9)


def test_steps_do_not_wait_but_for_the_one() -> None:
    task, algorithm = classification(), UsefulUpsample(SGD)
    algorithm.setup(task)
    assert algorithm.syncs_every == 6
    with NoSync():
        train(algorithm, task, 6)  # type: ignore[arg-type]
    train(algorithm, task, 1)  # type: ignore[arg-type]
    with NoSync():
        train(algorithm, task, 10)  # type: ignore[arg-type]


def test_refuses_tokens_samplers_and_bad_values() -> None:
    assert "no class" in str(UsefulUpsample(SGD).compatible(make_info("lm")))
    assert UsefulUpsample(SGD).compatible(make_info()) is None
    with pytest.raises(ValueError, match="sampler must be null"):
        UsefulUpsample(SGD, sampler=lambda: None)
    for key, bad in (("separate", 0.0), ("separate", 1.0), ("copies", 0), ("copies", 1.5)):
        with pytest.raises(ValueError, match=rf"{key} must .*, got {bad}"):
            UsefulUpsample(SGD, **{key: bad})
    assert isinstance(UsefulUpsample(SGD).inner, Composed)

"""Simulated workers (EControl, EF, EF21): the spec's rounds, literal trajectories, bytes, checkpoints."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from algorithms.estimators.econtrol import EControl
from algorithms.estimators.ef import EF
from algorithms.estimators.ef21 import EF21
from runner.base.errors import UserError
from runner.compose.config import compose
from runner.contract.batch import Batch
from runner.contract.instantiate import build_part
from runner.contract.seeding import derive
from runner.contract.task import Task
from runner.parts.composed import Composed
from tests.problems import PROBLEMS, Problem, part_config
from tests.tasks import (
    assert_no_sync,
    assert_resumes,
    classification,
    conv_net,
    follow,
    from_problem,
    images,
    make_info,
    make_task,
    meters,
)

CENTRES = [[1.0, 2.0, -1.0], [-3.0, 1.0, 2.0]]
ALL: dict[str, Any] = {"econtrol": EControl, "ef": EF, "ef21": EF21}


class Point(nn.Module):
    """x, from 0."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.zeros(3, dtype=torch.float64))


def spec_task() -> Task:
    rows = torch.tensor(CENTRES, dtype=torch.float64)
    return make_task(Point, rows, torch.zeros(2, dtype=torch.int64), batch_size=2)


def distances(task: Task, batch: Batch) -> Tensor:
    """½‖x − c‖² of each row c."""
    return 0.5 * (task.model.x - batch.x).square().sum(1)


def in_order(task: Task) -> Batch:
    return task.data.all()


def spec_run(estimator: Callable[[], Any], lr: float, steps: int) -> Tensor:
    algorithm = Composed(
        functools.partial(torch.optim.SGD, lr=lr),
        objective=lambda: distances,
        sampler=lambda: in_order,
        estimator=estimator,
    )
    return follow(algorithm, spec_task(), steps)


def top_1(name: str, **changes: Any) -> Callable[[], Any]:
    return functools.partial(ALL[name], workers=2, ratio=1 / 3, **changes)


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("econtrol", {"eta": 0.2}, [[-0.5, 0.75, 0.25], [-1, 1.125, 0.5], [-0.95, 1.5, 0.75]]),
        ("ef", {}, [[-0.75, 0.5, 0], [-0.0625, 0.5, 1], [-1.359375, 0.5, 0]]),
        ("ef21", {}, [[-0.5, 0.75, 0.25], [-1, 1.125, 0.5], [-1, 1.5, 0.75]]),
        ("econtrol", {"eta": 0.0}, [[-0.5, 0.75, 0.25], [-1, 1.125, 0.5], [-1, 1.5, 0.75]]),
    ],
)
def test_spec_three_rounds(name: str, changes: dict[str, Any], expected: list[list[float]]) -> None:
    got = spec_run(top_1(name, **changes), 0.5, 3)
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "changes", "expected", "digits"),
    [
        ("econtrol", {"eta": 0.1}, [0.2293, 0.0003, 0], 5e-5),
        ("ef", {}, [0.2196, 0.1189, 0.1437], 5e-5),
        ("ef21", {}, [0.1839, 2e-5, 0], 5e-5),
    ],
)
def test_spec_error_feedback_stalls_and_the_others_converge(
    name: str, changes: dict[str, Any], expected: list[float], digits: float
) -> None:
    path = spec_run(top_1(name, **changes), 0.1, 400)
    optimum = torch.tensor([-1, 1.5, 0.5], dtype=torch.float64)
    got = [(path[t - 1] - optimum).norm().item() for t in (20, 100, 400)]
    assert got == pytest.approx(expected, abs=digits)


def literal(
    name: str,
    n: int,
    k: int,
    eta: float,
    places: Callable[[list[list[float]]], list[list[int]]] | None = None,
) -> Callable[[list[list[float]]], list[float]]:
    """The rounds a number at a time: gradients of the workers to the server's direction."""
    e: list[list[float]] = []
    h: list[list[float]] = []

    def choose(vectors: list[list[float]]) -> list[list[float]]:
        if places is not None:
            chosen = places(vectors)
        else:
            chosen = [sorted(range(len(v)), key=lambda j, v=v: -abs(v[j]))[:k] for v in vectors]
        return [[x if j in c else 0.0 for j, x in enumerate(v)] for v, c in zip(vectors, chosen, strict=True)]

    def plus(a: list[list[float]], b: list[list[float]], factor: float = 1.0) -> list[list[float]]:
        return [[x + factor * y for x, y in zip(u, v, strict=True)] for u, v in zip(a, b, strict=True)]

    def exchange(g: list[list[float]]) -> list[float]:
        nonlocal e, h
        first = not e
        if first:
            e, h = [[0.0] * len(g[0]) for _ in g], [list(row) for row in g]
        if name == "ef":
            seen = choose(plus(e, g))
            e = plus(plus(e, g), seen, -1)
            return [sum(row[j] for row in seen) / n for j in range(len(g[0]))]
        if not first:
            gap = plus(g, h, -1)
            sent = choose(plus(gap, e, eta))
            e, h = plus(plus(e, gap), sent, -1), plus(h, sent)
        return [sum(row[j] for row in h) / n for j in range(len(g[0]))]

    return exchange


def tilted(problem: Problem) -> tuple[Task, Callable[[Task, Batch], Tensor]]:
    """The problem's loss, tilted by the mean of a worker's rows, so that workers differ."""
    task, _ = from_problem(problem)

    def objective(task: Task, batch: Batch) -> Tensor:
        tilt = sum(((j + 1) * p).sum() for j, p in enumerate(task.params))
        return problem.loss(list(task.params)) + batch.x.mean() * tilt

    objective.batch_level = True
    return task, objective


@pytest.mark.parametrize("compressor", ["top_k", "rand_k"])
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_reference(problem: Problem, name: str, compressor: str) -> None:
    (task, objective), lr, n = tilted(problem), 0.03, 3
    d = sum(p.numel() for p in task.params)
    k, eta = max(1, round(0.25 * d)), 0.05 if name == "econtrol" else 0.0
    changes = {"eta": eta} if name == "econtrol" else {}
    estimator = functools.partial(ALL[name], n, 0.25, compressor, **changes)
    sgd = functools.partial(torch.optim.SGD, lr=lr)
    got = follow(Composed(sgd, objective=lambda: objective, estimator=estimator), task, 50)

    generator = torch.Generator().manual_seed(derive(0, "rng", "compressor"))

    def drawn(vectors: list[list[float]]) -> list[list[int]]:
        scores = torch.rand(n, d, generator=generator).tolist()
        return [sorted(range(d), key=lambda j, s=s: -s[j])[:k] for s in scores]

    exchange = literal(name, n, k, eta, drawn if compressor == "rand_k" else None)
    task, _ = tilted(problem)
    shapes, rows = [p.shape for p in task.params], []
    for _ in range(50):
        batch = task.data.next()
        grads = []
        for rows_of in ([0, 1, 2], [3, 4, 5], [6, 7]):
            value = objective(task, batch.select(torch.tensor(rows_of)))
            grads.append([v for g in torch.autograd.grad(value, task.params) for v in g.flatten().tolist()])
        direction = torch.tensor(exchange(grads), dtype=torch.float64)
        pieces = direction.split([shape.numel() for shape in shapes])
        with torch.no_grad():
            for p, piece in zip(task.params, pieces, strict=True):
                p -= lr * piece.view_as(p)
        rows.append(torch.cat([p.detach().flatten() for p in task.params]))
    torch.testing.assert_close(got, torch.stack(rows), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_everything_sent_is_plain_sgd(name: str) -> None:
    sgd = functools.partial(torch.optim.SGD, lr=0.1)
    estimator = functools.partial(ALL[name], workers=4, ratio=1.0)
    got = follow(Composed(sgd, estimator=estimator), classification(), 20)
    plain = follow(Composed(sgd), classification(), 20)
    torch.testing.assert_close(got, plain, rtol=1e-9, atol=1e-12)


def test_bytes_sent_are_counted() -> None:
    d = 5 * 4 + 4 + 4 * 3 + 3  # 39 weights: a place takes 6 bits
    message = math.ceil(4 * (32 + 6) / 8)
    for name, first in (("econtrol", 4 * d), ("ef21", 4 * d), ("ef", message)):
        task = classification()
        sgd = functools.partial(torch.optim.SGD, lr=0.1)
        algorithm = Composed(sgd, estimator=functools.partial(ALL[name], workers=4))
        algorithm.setup(task)
        sent = []
        for _ in range(3):
            before = task.cost.bytes_sent
            algorithm.step(task)
            sent.append(task.cost.bytes_sent - before)
        assert sent == [4 * first, 4 * message, 4 * message], name
        assert meters(task) == (24, 24, 0, 24)
    task = classification()
    estimator = functools.partial(EControl, workers=4, init_compressed=True)
    follow(Composed(functools.partial(torch.optim.SGD, lr=0.1), estimator=estimator), task, 1)
    assert task.cost.bytes_sent == 4 * message


@pytest.mark.parametrize("compressor", ["top_k", "rand_k"])
@pytest.mark.parametrize("name", ALL)
def test_resumes_and_never_waits(name: str, compressor: str) -> None:
    momentum = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)
    estimator = functools.partial(ALL[name], 4, 0.1, compressor)
    make = functools.partial(Composed, momentum, estimator=estimator)
    assert_resumes(make, lambda: images(conv_net))
    assert_no_sync(make(), images(conv_net))


def test_the_loss_is_the_mean_over_the_workers() -> None:
    task = classification()
    algorithm = Composed(
        functools.partial(torch.optim.SGD, lr=0.0), estimator=functools.partial(EF, workers=4)
    )
    algorithm.setup(task)
    plain = classification()
    expected = plain.mean_loss(plain.data.next())
    torch.testing.assert_close(algorithm.step(task), expected)


def test_compatible_and_batches_too_small() -> None:
    assert EF(workers=8).compatible(make_info()) is None
    assert EF(workers=9).compatible(make_info()) == "needs a row for each of 9 workers, a batch has 8"
    algorithm = Composed(
        functools.partial(torch.optim.SGD, lr=0.1), estimator=functools.partial(EF, workers=9)
    )
    with pytest.raises(ValueError, match="a batch of 8 rows is too small for 9 workers"):
        follow(algorithm, classification(), 1)


@pytest.mark.parametrize("name", ALL)
def test_presets_are_plain_sgd(name: str) -> None:
    config = compose([f"algorithm={name}"])["algorithm"]
    assert config.get("schedule") is None
    assert (config["optimizer"]["momentum"], config["optimizer"]["weight_decay"]) == (0.0, 0.0)
    assert (config["estimator"]["workers"], config["estimator"]["ratio"]) == (10, 0.1)


@pytest.mark.parametrize(
    ("key", "value"), [("workers", 0), ("ratio", 0.0), ("ratio", 1.5), ("compressor", "sign"), ("eta", -1)]
)
def test_refuses_bad_values_by_name(key: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"{key} must .*, got "):
        build_part("estimator", part_config("estimator", "econtrol", **{key: value}))

"""SAM: numbers, a literal trajectory, what the second pass must leave alone."""

from __future__ import annotations

import copy
import functools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from algorithms.estimators.sam import SAM
from runner.contract.instantiate import build_part
from runner.parts.composed import Composed
from tests.problems import PROBLEMS, Problem, part_config, quadratic
from tests.tasks import assert_no_sync, assert_resumes, classification, conv_net, follow, from_problem, images

SGD = functools.partial(torch.optim.SGD, lr=0.05)
STEEP = quadratic("spec", [[1.0, 0.0], [0.0, 10.0]], [0.0, 0.0], [1.0, 1.0])


class Spy(SAM):
    """Keeps the points where gradients are taken."""

    points: list[Tensor]

    def __call__(self, task: Any, batch: Any) -> Tensor:
        self.points = []
        plain = task.backward

        def backward(batch: Any) -> Tensor:
            self.points.append(torch.cat([p.detach().flatten() for p in task.params]))
            return plain(batch)

        task.backward = backward
        loss = super().__call__(task, batch)
        del task.backward
        return loss


def literal(problem: Problem, steps: int, lr: float, rho: float, adaptive: bool) -> Tensor:
    """Plain SGD on SAM's gradient, one number at a time."""
    params = problem.params()

    def gradient(values: list[list[float]]) -> list[list[float]]:
        with torch.no_grad():
            for p, v in zip(params, values, strict=True):
                p.copy_(torch.tensor(v, dtype=torch.float64).view_as(p))
        problem.gradient(params)
        return [p.grad.flatten().tolist() for p in params if p.grad is not None]

    w, rows = [p.detach().flatten().tolist() for p in params], []
    for _ in range(steps):
        g = gradient(w)
        t = [[abs(v) if adaptive else 1.0 for v in tensor] for tensor in w]
        norm = math.sqrt(
            sum((a * b) ** 2 for u, v in zip(t, g, strict=True) for a, b in zip(u, v, strict=True))
        )
        up = [
            [x + rho * a * a * b / (norm + 1e-12) for x, a, b in zip(wi, ti, gi, strict=True)]
            for wi, ti, gi in zip(w, t, g, strict=True)
        ]
        w = [
            [x - lr * b for x, b in zip(wi, gi, strict=True)] for wi, gi in zip(w, gradient(up), strict=True)
        ]
        rows.append(torch.tensor([x for wi in w for x in wi], dtype=torch.float64))
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("rho", "adaptive", "climb", "after"),
    [
        (0.05, False, [0.004975, 0.049752], [0.899502, -0.049752]),
        (0.5, True, [0.049752, 0.497519], [0.895025, -0.497519]),
    ],
)
def test_spec_one_step(rho: float, adaptive: bool, climb: list[float], after: list[float]) -> None:
    task, objective = from_problem(STEEP)
    spy = Spy(rho, adaptive)
    optimizer = functools.partial(torch.optim.SGD, lr=0.1)
    got = follow(Composed(optimizer, objective=objective, estimator=lambda: spy), task, 1)
    assert (spy.points[1] - spy.points[0]).tolist() == pytest.approx(climb, abs=1e-6)
    assert got[0].tolist() == pytest.approx(after, abs=1e-6)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_reference_trajectory(problem: Problem, adaptive: bool) -> None:
    task, objective = from_problem(problem)
    estimator = functools.partial(SAM, 0.1, adaptive)
    got = follow(Composed(SGD, objective=objective, estimator=estimator), task, 50)
    torch.testing.assert_close(got, literal(problem, 50, 0.05, 0.1, adaptive), rtol=1e-9, atol=1e-9)


def test_weights_come_back_bit_for_bit() -> None:
    task = classification(dtype=torch.float32)
    still = functools.partial(torch.optim.SGD, lr=0.0)
    before = torch.cat([p.detach().flatten() for p in task.params]).clone()
    after = follow(Composed(still, estimator=functools.partial(SAM, 0.37)), task, 20)
    assert torch.equal(after[-1], before)


def test_same_rows_twice_and_the_loss_at_the_weights() -> None:
    task, stream = classification(), classification().data
    algorithm = Composed(SGD, estimator=SAM)
    algorithm.setup(task)
    batch = stream.next()
    expected = F.cross_entropy(task.model(batch.x), batch.y).item()
    counted = task.cost.forward
    assert algorithm.step(task).item() == pytest.approx(expected)
    assert (task.cost.forward - counted, task.cost.backward, task.cost.drawn) == (16, 16, 8)


def test_second_pass_leaves_batch_norm_statistics_alone() -> None:
    once, twice = images(conv_net), images(conv_net)
    follow(Composed(SGD), once, 1)
    follow(Composed(SGD, estimator=functools.partial(SAM, 0.5)), twice, 1)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(getattr(once.model[1], name), getattr(twice.model[1], name)), name
    assert twice.model[1].num_batches_tracked.item() == 1
    follow(Composed(SGD, estimator=functools.partial(SAM, 0.5)), twice, 1)
    assert twice.model[1].num_batches_tracked.item() == 2  # the first pass does go on counting


def test_second_pass_normalises_by_its_own_batch() -> None:
    task = images(conv_net)
    twin = copy.deepcopy(task.model)
    batch = images(conv_net).data.next()
    params = list(twin.parameters())

    def gradient() -> tuple[Tensor, ...]:
        return torch.autograd.grad(F.cross_entropy(twin(batch.x), batch.y), params)

    start, first = [p.detach().clone() for p in params], gradient()
    norm = torch.cat([g.flatten() for g in first]).norm()
    with torch.no_grad():
        for p, g in zip(params, first, strict=True):
            p.add_(0.5 * g / norm)
    expected = torch.cat([(w - 0.05 * g).flatten() for w, g in zip(start, gradient(), strict=True)])
    got = follow(Composed(SGD, estimator=functools.partial(SAM, 0.5)), task, 1)
    torch.testing.assert_close(got[0], expected)


def test_a_parameter_without_a_gradient_is_left_alone() -> None:
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = nn.Linear(5, 3).double(), nn.Linear(2, 2).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    task = classification(Spare)
    spare = task.model.spare.weight.detach().clone()
    follow(Composed(SGD, estimator=SAM), task, 3)
    assert torch.equal(task.model.spare.weight, spare)


def test_a_zero_gradient_does_not_divide_by_zero() -> None:
    task, objective = from_problem(quadratic("flat", [[1.0]], [0.0], [0.0]))
    for adaptive in (False, True):
        estimator = functools.partial(SAM, 0.1, adaptive)
        assert follow(Composed(SGD, objective=objective, estimator=estimator), task, 2).tolist() == [
            [0.0],
            [0.0],
        ]


def test_steps_do_not_wait_and_resume() -> None:
    for adaptive in (False, True):
        assert_no_sync(Composed(SGD, estimator=functools.partial(SAM, 0.1, adaptive)), images(conv_net))
    momentum = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    assert_resumes(lambda: Composed(momentum, estimator=SAM), lambda: images(conv_net))


def test_preset_and_bad_values() -> None:
    part = build_part("estimator", part_config("estimator", "sam"))
    assert (part.rho, part.adaptive) == (0.05, False)
    for bad in (-0.1, math.nan):
        with pytest.raises(ValueError, match="rho must be at least 0"):
            SAM(bad)

"""⊥Grad: numbers, orthogonality, a literal trajectory, what it leaves alone."""

from __future__ import annotations

import functools
import math

import pytest
import torch

from algorithms.transforms.perpgrad import PerpGrad
from runner.contract.instantiate import build_part
from runner.parts.composed import Composed
from tests.problems import PROBLEMS, Problem, part_config, run_reference
from tests.tasks import assert_no_sync, assert_resumes, classification, follow, from_problem, normal

SGD = functools.partial(torch.optim.SGD, lr=0.05)


def projected(w: list[float], g: list[float], rescale: bool = True) -> list[float]:
    grad = torch.tensor(g, dtype=torch.float64)
    PerpGrad(rescale)([torch.tensor(w, dtype=torch.float64)], [grad])
    return grad.tolist()


def literal(w: list[float], g: list[float], rescale: bool) -> list[float]:
    if len(w) == 1:
        return g
    share = sum(a * b for a, b in zip(w, g, strict=True)) / (sum(a * a for a in w) + 1e-30)
    perp = [b - share * a for a, b in zip(w, g, strict=True)]
    if not rescale:
        return perp
    return [v * math.hypot(*g) / (math.hypot(*perp) + 1e-30) for v in perp]


def test_spec_vectors() -> None:
    w, g = [1.0, 2.0, -2.0], [3.0, 0.0, 1.0]
    assert projected(w, g, rescale=False) == pytest.approx([2.88888889, -0.22222222, 1.22222222], abs=1e-8)
    assert projected(w, g) == pytest.approx([2.90507327, -0.22346717, 1.22906946], abs=1e-8)
    assert projected([3.0, 4.0], [1.0, 0.0]) == pytest.approx([0.8, -0.6])


def test_every_tensor_is_projected_on_its_own_and_keeps_its_norm() -> None:
    params = [normal(0, 4, 3).T, normal(1, 7)]
    grads = [normal(2, 4, 3).T, normal(3, 7)]
    before = [g.norm().item() for g in grads]
    PerpGrad()(params, grads)
    for p, g, norm in zip(params, grads, before, strict=True):
        assert (p * g).sum().item() == pytest.approx(0, abs=1e-12)
        assert g.norm().item() == pytest.approx(norm)


def test_zero_weights_single_elements_and_zero_gradients_are_left_alone() -> None:
    assert projected([0.0, 0.0], [3.0, 4.0]) == [3.0, 4.0]
    assert projected([2.0], [3.0]) == [3.0]
    assert projected([2.0, 1.0], [0.0, 0.0]) == [0.0, 0.0]
    scalar = torch.tensor(3.0)
    PerpGrad()([torch.tensor(2.0)], [scalar])
    assert scalar == 3


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_reference_trajectory(problem: Problem, rescale: bool) -> None:
    task, objective = from_problem(problem)
    algorithm = Composed(SGD, objective=objective, transform=functools.partial(PerpGrad, rescale))

    def update(t: int, x: list[list[float]], g: list[list[float]]) -> None:
        for xs, gs in zip(x, g, strict=True):
            for i, slope in enumerate(literal(xs, gs, rescale)):
                xs[i] -= 0.05 * slope

    expected = run_reference(update, 50, problem)
    torch.testing.assert_close(follow(algorithm, task, 50), expected, rtol=1e-7, atol=1e-9)


def test_projects_before_momentum() -> None:
    momentum = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    task = classification()
    algorithm = Composed(momentum, transform=PerpGrad)
    start = [p.detach().clone() for p in task.params]
    follow(algorithm, task, 1)
    for p, before in zip(task.params, start, strict=True):
        buffer = algorithm.optimizer.state[p]["momentum_buffer"]
        assert (buffer * before).sum().item() == pytest.approx(0, abs=1e-12)


def test_steps_do_not_wait_and_resume() -> None:
    assert_no_sync(Composed(SGD, transform=PerpGrad), classification())
    assert_resumes(lambda: Composed(SGD, transform=PerpGrad), classification)


def test_preset() -> None:
    assert build_part("transform", part_config("transform", "perpgrad")).rescale is True

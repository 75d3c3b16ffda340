"""The polynomial-decay average: formula by hand, a literal trajectory, checkpoints."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from algorithms.averages.polynomial import Polynomial
from runner.contract.instantiate import build_part
from runner.parts.composed import Composed
from tests.problems import PROBLEMS, Problem, part_config, run_reference
from tests.tasks import (
    assert_no_sync,
    assert_resumes,
    classification,
    conv_net,
    evaluated,
    follow,
    from_problem,
    images,
)

SGD = functools.partial(torch.optim.SGD, lr=0.1)


def means(values: list[float], gamma: float) -> list[float]:
    """Averages of one parameter that takes ``values`` after steps 1, 2, …, starting from 0."""
    task = classification(lambda: nn.Linear(1, 1, bias=False).double())
    (p,) = task.params
    part = Polynomial(gamma)
    part.setup(task)
    found = []
    for value in values:
        with torch.no_grad():
            p.fill_(value)
        part.update(task)
        part.swap_in(task)
        found.append(p.item())
        part.swap_out(task)
        assert p.item() == value
    return found


def test_spec_by_hand() -> None:
    # c = 9/9, 9/10, 9/11: 1; then 0.1 + 0.9·3 = 2.8; then (2/11)·2.8 − (9/11)·2 = −12.4/11.
    assert means([1.0, 3.0, -2.0], 8.0) == pytest.approx([1.0, 2.8, -12.4 / 11], abs=1e-12)


def test_gamma_of_zero_is_the_mean_of_all() -> None:
    assert means([1.0, 3.0, -2.0, 6.0], 0.0) == pytest.approx([1.0, 2.0, 2 / 3, 2.0], abs=1e-12)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_reference_trajectory(problem: Problem) -> None:
    task, objective = from_problem(problem)
    algorithm = Composed(SGD, objective=objective, average=Polynomial)
    mean = [p.flatten().tolist() for p in problem.start]

    def update(t: int, x: list[list[float]], g: list[list[float]]) -> None:
        c = 9 / (t + 8)
        for xi, gi, mi in zip(x, g, mean, strict=True):
            for i in range(len(xi)):
                xi[i] -= 0.1 * gi[i]
                mi[i] = (1 - c) * mi[i] + c * xi[i]

    expected = run_reference(update, 50, problem)
    torch.testing.assert_close(follow(algorithm, task, 50), expected, rtol=1e-9, atol=1e-9)
    flat = torch.tensor([v for mi in mean for v in mi], dtype=torch.float64)
    torch.testing.assert_close(evaluated(algorithm, task), flat, rtol=1e-9, atol=1e-9)


def test_steps_do_not_wait_and_resume() -> None:
    make = functools.partial(Composed, SGD, average=Polynomial)
    assert_no_sync(make(), images(conv_net))
    assert_resumes(make, lambda: images(conv_net))


def test_preset_and_bad_values() -> None:
    assert build_part("average", part_config("average", "polynomial")).gamma == 8.0
    with pytest.raises(ValueError, match="gamma must be at least 0"):
        Polynomial(-1.0)

"""diffGrad: the spec's numbers, a literal trajectory, and friction where a gradient stands still."""

from __future__ import annotations

import math

import pytest
import torch

from algorithms.optimizers.diffgrad import DiffGrad
from tests.problems import PROBLEMS, Problem, Update, run_optimizer, run_reference


def literal_diffgrad(
    lr: float, betas: tuple[float, float], eps: float, decay: float, alias: bool = False
) -> Update:
    """The rule, one float at a time."""
    memory: dict[tuple[int, int], tuple[float, float, float]] = {}
    beta1, beta2 = betas

    def update(t: int, x: list[list[float]], g: list[list[float]]) -> None:
        for i in range(len(x)):
            for j in range(len(x[i])):
                m, v, last = memory.get((i, j), (0.0, 0.0, 0.0))
                grad = g[i][j] + decay * x[i][j]
                m = beta1 * m + (1 - beta1) * grad
                v = beta2 * v + (1 - beta2) * grad**2
                friction = 1 / (1 + math.exp(-abs(last - grad)))
                if alias and t > 1:
                    friction = 0.5
                size = lr * math.sqrt(1 - beta2**t) / (1 - beta1**t)
                x[i][j] -= size * friction * m / (math.sqrt(v) + eps)
                memory[i, j] = m, v, grad

    return update


def test_spec_quad() -> None:
    got = run_optimizer(lambda p: DiffGrad(p, lr=0.1), 3)
    expected = [[0.9047426, 0.90179863], [0.84560957, 0.84471214], [0.79047355, 0.79069399]]
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-7)


@pytest.mark.parametrize("alias", [False, True])
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_reference(problem: Problem, alias: bool) -> None:
    rule = (0.03, (0.8, 0.95), 1e-3, 0.2, alias)
    got = run_optimizer(lambda p: DiffGrad(p, *rule), 50, problem)
    torch.testing.assert_close(got, run_reference(literal_diffgrad(*rule), 50, problem))


def test_an_unchanging_gradient_makes_half_of_adams_steps() -> None:
    ours, adams = (torch.nn.Parameter(torch.ones(3, dtype=torch.float64)) for _ in range(2))
    diffgrad, adam = DiffGrad([ours], lr=0.1, eps=0.0), torch.optim.Adam([adams], lr=0.1, eps=0.0)
    steps = []
    for p, optimizer in ((ours, diffgrad), (adams, adam)):
        for _ in range(3):
            before = p.detach().clone()
            p.grad = torch.tensor([0.1, -2.0, 30.0], dtype=torch.float64)
            optimizer.step()
            steps.append(p.detach() - before)
    torch.testing.assert_close(steps[1], 0.5 * steps[4])
    torch.testing.assert_close(steps[2], 0.5 * steps[5])
    first = torch.sigmoid(torch.tensor([0.1, 2.0, 30.0], dtype=torch.float64))
    torch.testing.assert_close(steps[0], first * steps[3])


def test_the_last_gradient_is_a_copy() -> None:
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = DiffGrad([p], lr=0.1)
    p.grad = torch.ones(2)
    optimizer.step()
    p.grad.mul_(5)
    assert optimizer.state[p]["last_grad"].tolist() == [1, 1]

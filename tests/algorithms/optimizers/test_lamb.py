"""LAMB: the spec's numbers, a literal trajectory, what has a trust ratio."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from algorithms.optimizers.lamb import Lamb
from runner.base.errors import UserError
from runner.contract.instantiate import build_part
from tests.problems import (
    PROBLEMS,
    Problem,
    Update,
    assert_resumes,
    part_config,
    run_optimizer,
    run_reference,
)
from tests.tasks import NoSync


def literal_lamb(
    lr: float, betas: tuple[float, float], eps: float, decay: float, adapted: list[bool]
) -> Update:
    """Algorithm 2 of the paper, one float at a time; ``adapted`` says which tensors have a ratio."""
    moments: dict[tuple[int, int], tuple[float, float]] = {}
    beta1, beta2 = betas

    def direction(t: int, i: int, x: list[float], g: list[float]) -> list[float]:
        u = []
        for j in range(len(x)):
            m, v = moments.get((i, j), (0.0, 0.0))
            m, v = beta1 * m + (1 - beta1) * g[j], beta2 * v + (1 - beta2) * g[j] ** 2
            moments[i, j] = m, v
            u.append((m / (1 - beta1**t)) / (math.sqrt(v / (1 - beta2**t)) + eps) + decay * x[j])
        return u

    def update(t: int, x: list[list[float]], g: list[list[float]]) -> None:
        for i in range(len(x)):
            u = direction(t, i, x[i], g[i])
            ratio = math.hypot(*x[i]) / math.hypot(*u) if adapted[i] else 1.0
            for j in range(len(u)):
                x[i][j] -= lr * ratio * u[j]

    return update


def test_spec_quad() -> None:
    got = run_optimizer(lambda p: Lamb(p, lr=0.1, eps=1e-8, weight_decay=0.01, adapt_1d=True), 3)
    expected = [[0.9, 0.9], [0.8101555, 0.80984477], [0.72955094, 0.72845122]]
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-7)


@pytest.mark.parametrize("adapt_1d", [True, False])
@pytest.mark.parametrize("eps", [1e-6, 0.1])
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_reference(problem: Problem, eps: float, adapt_1d: bool) -> None:
    adapted = [adapt_1d or value.ndim > 1 for value in problem.start]
    got = run_optimizer(lambda p: Lamb(p, 0.02, (0.8, 0.95), eps, 0.3, adapt_1d), 50, problem)
    reference = literal_lamb(0.02, (0.8, 0.95), eps, 0.3, adapted)
    torch.testing.assert_close(got, run_reference(reference, 50, problem), rtol=1e-9, atol=1e-12)


def test_without_ratios_it_is_adamw() -> None:
    ours = run_optimizer(lambda p: Lamb(p, 0.05, (0.9, 0.99), 1e-8, 0.1), 20)
    torchs = run_optimizer(lambda p: torch.optim.AdamW(p, 0.05, (0.9, 0.99), 1e-8, 0.1), 20)
    torch.testing.assert_close(ours, torchs, rtol=1e-9, atol=1e-12)


def test_a_step_is_lr_of_the_weights_norm_whatever_the_gradients_scale() -> None:
    for scale in (1e-3, 1e3):
        p = torch.nn.Parameter(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
        p.grad = scale * torch.ones(2, 2)
        before = p.detach().clone()
        Lamb([p], lr=0.1).step()
        assert (p.detach() - before).norm().item() == pytest.approx(0.1 * 5, rel=1e-4)


def test_zero_weights_and_zero_gradients_have_a_ratio_of_one() -> None:
    zero, still = (torch.nn.Parameter(torch.full((1, 2), value)) for value in (0.0, 3.0))
    zero.grad, still.grad = torch.ones(1, 2), torch.zeros(1, 2)
    Lamb([zero, still], lr=0.1, weight_decay=0.0).step()
    torch.testing.assert_close(zero.detach(), torch.full((1, 2), -0.1))
    assert still.tolist() == [[3, 3]]


def test_bias_correction_counts_the_steps_of_each_parameter() -> None:
    early, late = (torch.nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    optimizer = Lamb([early, late], lr=0.1)
    path = []
    for _ in range(3):
        early.grad = torch.ones(2, 2)
        optimizer.step()
        path.append(early.detach().clone())
    late.grad = torch.ones(2, 2)
    optimizer.step()
    assert torch.equal(late.detach(), path[0])


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_resumes_bit_for_bit_and_never_waits(problem: Problem) -> None:
    def make(params: Any) -> Any:
        return build_part("optimizer", part_config("optimizer", "lamb"), params)

    assert_resumes(make, problem)
    params = problem.params()
    problem.gradient(params)
    optimizer = make(params)
    with NoSync():
        optimizer.step()
        optimizer.step()


@pytest.mark.parametrize(("key", "value"), [("lr", -1), ("eps", math.nan), ("betas", [0.9, 1.0])])
def test_refuses_bad_values_by_name(key: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"{key} must .*, got "):
        build_part("optimizer", part_config("optimizer", "lamb", **{key: value}), PROBLEMS[0].params())

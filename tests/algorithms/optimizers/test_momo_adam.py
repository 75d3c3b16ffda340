"""MoMo-Adam: the spec's numbers, literal trajectories, where the loss comes from, groups."""

from __future__ import annotations

import math

import pytest
import torch

from algorithms.optimizers.momo_adam import MomoAdam
from algorithms.wrappers.mechanic import Mechanic
from runner.base.errors import UserError
from runner.contract.instantiate import build_part
from runner.parts.composed import Composed
from tests.problems import (
    PROBLEMS,
    Problem,
    assert_resumes,
    continue_optimizer,
    flat,
    part_config,
    quad,
    run_optimizer,
)
from tests.tasks import NoSync, classification, train

QUAD_PLUS_2 = Problem("quad + 2", quad().start, lambda p: quad().loss(p) + 2)


def literal(
    problem: Problem,
    steps: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    decay: float,
    bound: float,
) -> torch.Tensor:
    """The rule, one float at a time; the iterates, (steps, N)."""
    params, (beta1, beta2) = problem.params(), betas
    n = sum(p.numel() for p in params)
    m, v, f_bar, slope, rows = [0.0] * n, [0.0] * n, 0.0, 0.0, []
    for t in range(1, steps + 1):
        f = problem.gradient(params).item()
        x, g = flat(params).tolist(), torch.cat([p.grad.flatten() for p in params]).tolist()  # type: ignore[union-attr]
        f_bar = beta1 * f_bar + (1 - beta1) * f
        slope = beta1 * slope + (1 - beta1) * sum(a * b for a, b in zip(g, x, strict=True))
        d = []
        for i in range(n):
            m[i] = beta1 * m[i] + (1 - beta1) * g[i]
            v[i] = beta2 * v[i] + (1 - beta2) * g[i] ** 2
            d.append(math.sqrt(v[i] / (1 - beta2**t)) + eps)
        gained, shrink = 1 - beta1**t, 1 + lr * decay
        excess = shrink * (f_bar - gained * bound) + sum(a * b for a, b in zip(m, x, strict=True))
        excess -= shrink * slope
        square = sum(a * a / b for a, b in zip(m, d, strict=True))
        tau = min(lr / gained, max(excess, 0.0) / square)
        x = [(a - tau * b / c) / shrink for a, b, c in zip(x, m, d, strict=True)]
        values = iter(torch.tensor(x, dtype=torch.float64).split([p.numel() for p in params]))
        with torch.no_grad():
            for p in params:
                p.copy_(next(values).view_as(p))
        rows.append(flat(params))
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("lr", "expected", "taus"),
    [
        (0.1, [[0.9, 0.9], [0.80062558, 0.80027877], [0.7024579, 0.70105699]], [1, 0.52631579, 0.36900369]),
        (
            1.0,
            [[0.21428571, 0.21428571], [-0.00129927, -0.09269055], [-0.09881578, -0.41804609]],
            [7.857143, 1.790002, 1.493515],
        ),
    ],
)
def test_spec_quad(lr: float, expected: list[list[float]], taus: list[float]) -> None:
    params = QUAD_PLUS_2.params()
    optimizer = MomoAdam(params, lr=lr, weight_decay=0.0)
    for t, (row, tau) in enumerate(zip(expected, taus, strict=True), start=1):
        got = continue_optimizer(optimizer, params, 1, QUAD_PLUS_2)
        torch.testing.assert_close(got[0], torch.tensor(row, dtype=torch.float64), rtol=0, atol=1e-7)
        taken = min(optimizer.report()["tau"], lr / (1 - 0.9**t))
        assert taken == pytest.approx(tau, abs=1e-6)


@pytest.mark.parametrize(("lr", "decay", "bound"), [(0.05, 0.0, 0.0), (0.5, 0.2, -1.0), (2.0, 0.1, 0.5)])
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_reference(problem: Problem, lr: float, decay: float, bound: float) -> None:
    rule = (lr, (0.8, 0.95), 1e-3, decay, bound)
    got = run_optimizer(lambda p: MomoAdam(p, *rule), 50, problem)
    torch.testing.assert_close(got, literal(problem, 50, *rule), rtol=1e-7, atol=1e-9)


def test_groups_with_their_own_decay_take_the_exact_step_of_the_model() -> None:
    params = PROBLEMS[1].params()
    loss = PROBLEMS[1].gradient(params)
    before = [p.detach().clone() for p in params]
    grads = [p.grad.clone() for p in params if p.grad is not None]
    groups = [{"params": params[:1], "weight_decay": 0.5}, {"params": params[1:], "weight_decay": 0.0}]
    optimizer = MomoAdam(groups, lr=5.0)
    optimizer.step(loss=loss)
    assert optimizer.report()["tau"] < 5.0 / (1 - 0.9)  # lr does not limit it
    # The averaged model, 0.1·(f + ⟨g, x⁺ − x⟩) after one step, falls to the bound of 0.
    moved = sum((g * (p.detach() - b)).sum() for g, p, b in zip(grads, params, before, strict=True))
    assert float(loss + moved) == pytest.approx(0.0, abs=1e-9)


def test_a_closure_gives_the_loss_and_without_either_it_says_so() -> None:
    params = QUAD_PLUS_2.params()
    optimizer = MomoAdam(params, lr=0.1, weight_decay=0.0)
    assert float(optimizer.step(lambda: QUAD_PLUS_2.gradient(params))) == 5.5
    assert params[0].tolist() == pytest.approx([0.9, 0.9])
    with pytest.raises(RuntimeError, match="MoMo needs the loss"):
        optimizer.step()


def test_a_composition_hands_the_loss_over_through_a_wrapper_too() -> None:
    for wrapper in (None, Mechanic):
        task = classification()
        algorithm = Composed(part_config("optimizer", "momo_adam"), wrapper=wrapper)
        algorithm.setup(task)
        train(algorithm, task, 5)
        assert algorithm.report()["optimizer/tau"] > 0


def test_resumes_and_never_waits() -> None:
    assert_resumes(lambda p: MomoAdam(p, lr=0.5, weight_decay=0.1), PROBLEMS[2])
    params = PROBLEMS[2].params()
    loss = PROBLEMS[2].gradient(params)
    optimizer = MomoAdam(params)
    with NoSync():
        optimizer.step(loss=loss)
        optimizer.step(loss=loss)


def test_a_gradient_of_zero_moves_nothing() -> None:
    p = torch.nn.Parameter(torch.ones(2))
    p.grad = torch.zeros(2)
    MomoAdam([p], weight_decay=0.0).step(loss=torch.tensor(3.0))
    assert p.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("key", "value"),
    [("lr", -1), ("betas", [0.9, 1.0]), ("lower_bound", math.inf), ("weight_decay", math.nan)],
)
def test_refuses_bad_values_by_name(key: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"{key} must .*, got "):
        build_part("optimizer", part_config("optimizer", "momo_adam", **{key: value}), quad().params())


def test_a_float32_loss_of_float64_parameters_is_as_good() -> None:
    paths = []
    for dtype in (torch.float64, torch.float32):
        p = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
        optimizer = MomoAdam([p], lr=0.5)
        for _ in range(4):
            p.grad = p.detach().clone()
            optimizer.step(loss=torch.tensor(1.5, dtype=dtype))  # 1.5 is the same in both
        paths.append(p.detach())
    assert torch.equal(*paths)


def test_mechanic_hands_on_the_loss_of_a_closure() -> None:
    params, problem = QUAD_PLUS_2.params(), QUAD_PLUS_2
    wrapped = Mechanic(MomoAdam(params, lr=0.1), s_init=0.1)
    assert float(wrapped.step(lambda: problem.gradient(params))) == 5.5
    assert wrapped.report()["tau"] > 0

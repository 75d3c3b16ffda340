"""AdaGrad-Norm: the spec's numbers, a literal trajectory, one sum for all."""

from __future__ import annotations

import math

import pytest
import torch

from algorithms.optimizers.adagradnorm import AdaGradNorm
from runner.base.errors import UserError
from runner.contract.instantiate import build_part
from tests.problems import PROBLEMS, Problem, Update, part_config, quad, run_optimizer, run_reference


def literal_adagradnorm(lr: float, b0: float, decay: float) -> Update:
    """The rule, one float at a time."""
    squares = [b0**2]

    def update(_t: int, x: list[list[float]], g: list[list[float]]) -> None:
        pull = [[a + decay * b for a, b in zip(u, v, strict=True)] for u, v in zip(g, x, strict=True)]
        squares[0] += sum(v * v for row in pull for v in row)
        for row, pulls in zip(x, pull, strict=True):
            row[:] = [a - lr * b / math.sqrt(squares[0]) for a, b in zip(row, pulls, strict=True)]

    return update


def test_spec_quad() -> None:
    got = run_optimizer(lambda p: AdaGradNorm(p, lr=1.0, b0=0.1), 3)
    expected = [[0.40011996, 0.20015995], [0.32497963, -0.13761522], [0.35491026, -0.33075738]]
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-7)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_reference(problem: Problem) -> None:
    got = run_optimizer(lambda p: AdaGradNorm(p, 0.7, 0.5, 0.1), 50, problem)
    expected = run_reference(literal_adagradnorm(0.7, 0.5, 0.1), 50, problem)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


def test_the_state_is_one_number() -> None:
    params = PROBLEMS[2].params()
    optimizer = AdaGradNorm(params)
    PROBLEMS[2].gradient(params)
    optimizer.step()
    state = optimizer.state_dict()
    assert state["state"] == {}
    assert state["shared"]["squares"].shape == ()


@pytest.mark.parametrize(("key", "value"), [("lr", -1), ("b0", 0.0), ("weight_decay", math.nan)])
def test_refuses_bad_values_by_name(key: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"{key} must .*, got "):
        build_part("optimizer", part_config("optimizer", "adagradnorm", **{key: value}), quad().params())


def test_norms_that_float16_does_not_hold_are_no_end() -> None:
    p = torch.nn.Parameter(torch.zeros(16, dtype=torch.float16))
    optimizer = AdaGradNorm([p], lr=4.0)
    for scale in (9.5e4 / 4, 1e4, 1e4):
        before = p.detach().clone()
        p.grad = torch.full_like(p, scale)  # of norm 4 · scale
        optimizer.step()
        assert (p < before).all()
    assert float(optimizer.shared["squares"]) == pytest.approx(9.5e4**2 + 2 * 4e4**2, rel=1e-3)

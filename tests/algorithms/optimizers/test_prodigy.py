"""Prodigy: the spec's numbers, literal trajectories under every option, what is estimated jointly."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from algorithms.optimizers.prodigy import Prodigy
from runner.base.errors import UserError
from runner.contract.instantiate import build_part
from tests.problems import (
    PROBLEMS,
    Problem,
    Update,
    assert_resumes,
    continue_optimizer,
    part_config,
    quad,
    run_optimizer,
    run_reference,
)


def literal_prodigy(
    lr: float = 1.0,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    d0: float = 1e-6,
    d_coef: float = 1.0,
    growth: float = math.inf,
    use_bias_correction: bool = False,
    safeguard_warmup: bool = False,
) -> Update:
    """The rule, one float at a time."""
    (beta1, beta2), beta3 = betas, math.sqrt(betas[1])
    d = {"now": d0, "max": d0, "numerator": 0.0}
    memory: dict[tuple[int, int], list[float]] = {}

    def update(t: int, x: list[list[float]], g: list[list[float]]) -> None:
        entries = [(i, j) for i in range(len(x)) for j in range(len(x[i]))]
        if t == 1:
            memory.update({(i, j): [0.0, 0.0, 0.0, x[i][j]] for i, j in entries})
        now = d["now"]
        rate = now * lr
        if use_bias_correction:
            rate *= math.sqrt(1 - beta2**t) / (1 - beta1**t)
        slope = sum(g[i][j] * (memory[i, j][3] - x[i][j]) for i, j in entries)
        d["numerator"] = beta3 * d["numerator"] + now / d0 * rate * slope
        for i, j in entries:
            m, v, s, start = memory[i, j]
            m = beta1 * m + (1 - beta1) * now * g[i][j]
            v = beta2 * v + (1 - beta2) * now**2 * g[i][j] ** 2
            s = beta3 * s + now / d0 * (now if safeguard_warmup else rate) * g[i][j]
            memory[i, j] = [m, v, s, start]
        hint = d_coef * d["numerator"] / sum(abs(memory[key][2]) for key in entries)
        if now == d0:
            now = max(now, hint)
        d["max"] = max(d["max"], hint)
        d["now"] = min(d["max"], now * growth)
        for i, j in entries:
            m, v, _, _ = memory[i, j]
            x[i][j] -= weight_decay * rate * x[i][j]
            x[i][j] -= rate * m / (math.sqrt(v) + d["now"] * eps)

    return update


def test_spec_quad() -> None:
    params = quad().params()
    optimizer = Prodigy(params, d0=0.01, weight_decay=0.1)
    got = continue_optimizer(optimizer, params, 5, quad())
    expected = [
        [0.96737723, 0.96737723],
        [0.92397367, 0.92394463],
        [0.84343404, 0.84356741],
        [0.60242466, 0.6067098],
        [-0.10090307, -0.05211008],
    ]
    torch.testing.assert_close(got[2:], torch.tensor(expected[2:], dtype=torch.float64), rtol=0, atol=1e-7)
    torch.testing.assert_close(got[:2], torch.tensor(expected[:2], dtype=torch.float64), rtol=0, atol=3e-8)
    assert optimizer.report()["d"] == pytest.approx(0.34925244, abs=1e-7)


SETTINGS: list[dict[str, Any]] = [
    {"d0": 1e-3},
    {"d0": 1e-2, "weight_decay": 0.1, "use_bias_correction": True},
    {"d0": 1e-3, "lr": 0.5, "safeguard_warmup": True, "d_coef": 0.5, "betas": (0.8, 0.95)},
    {"d0": 1e-3, "growth": 1.1, "eps": 1e-2},
]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_reference(problem: Problem, settings: dict[str, Any]) -> None:
    got = run_optimizer(lambda p: Prodigy(p, **settings), 50, problem)
    expected = run_reference(literal_prodigy(**settings), 50, problem)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-9)


def test_grows_from_1e_6_within_a_few_steps() -> None:
    problem = PROBLEMS[1]
    params = problem.params()
    before = problem.gradient(params)
    optimizer = Prodigy(params)
    continue_optimizer(optimizer, params, 60, problem)
    assert optimizer.report()["d"] > 1e-3
    assert problem.gradient(params) < before


def test_gradients_of_zero_move_nothing_and_estimate_nothing() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = Prodigy([p])
    p.grad = torch.zeros(3)
    optimizer.step()
    assert p.tolist() == [1, 1, 1]
    assert optimizer.report()["d"] == pytest.approx(1e-6)


def test_resumes_past_the_first_estimate() -> None:
    assert_resumes(lambda p: Prodigy(p, d0=1e-3, weight_decay=0.1), PROBLEMS[2], before=12)


@pytest.mark.parametrize(
    ("key", "value"),
    [("lr", -1), ("d0", 0.0), ("d_coef", 0.0), ("growth", 1.0), ("beta3", 1.0), ("betas", [0.9, 1.0])],
)
def test_refuses_bad_values_by_name(key: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"{key} must .*, got "):
        build_part("optimizer", part_config("optimizer", "prodigy", **{key: value}), quad().params())

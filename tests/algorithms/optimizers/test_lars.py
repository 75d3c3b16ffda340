"""LARS: the spec's numbers and a literal trajectory of each variant, and what has a ratio."""

from __future__ import annotations

import math

import pytest
import torch

from algorithms.optimizers.lars import Lars
from runner.base.errors import UserError
from runner.contract.instantiate import build_part
from tests.problems import PROBLEMS, Problem, Update, part_config, quad, run_optimizer, run_reference


def literal_2017(lr: float, momentum: float, decay: float, trust: float, adapted: list[bool]) -> Update:
    """The form of 2017, one float at a time; ``adapted`` says which tensors have a ratio."""
    memory: dict[tuple[int, int], float] = {}

    def update(_t: int, x: list[list[float]], g: list[list[float]]) -> None:
        for i in range(len(x)):
            nx, ng = math.hypot(*x[i]), math.hypot(*g[i])
            ratio = trust * nx / (ng + decay * nx) if adapted[i] and nx > 0 and ng > 0 else 1.0
            for j in range(len(x[i])):
                memory[i, j] = momentum * memory.get((i, j), 0.0) + lr * ratio * (g[i][j] + decay * x[i][j])
            for j in range(len(x[i])):
                x[i][j] -= memory[i, j]

    return update


def literal_paper(lr: float, beta: float, decay: float, _trust: float, adapted: list[bool]) -> Update:
    """The form of 2020, one float at a time."""
    memory: dict[tuple[int, int], float] = {}

    def update(_t: int, x: list[list[float]], g: list[list[float]]) -> None:
        for i in range(len(x)):
            m = []
            for j in range(len(x[i])):
                memory[i, j] = beta * memory.get((i, j), 0.0) + (1 - beta) * (g[i][j] + decay * x[i][j])
                m.append(memory[i, j])
            nx, nm = math.hypot(*x[i]), math.hypot(*m)
            ratio = nx / nm if adapted[i] and nx > 0 and nm > 0 else 1.0
            for j in range(len(m)):
                x[i][j] -= lr * ratio * m[j]

    return update


LITERAL = {"2017": literal_2017, "paper": literal_paper}


def near(got: torch.Tensor, expected: list[list[float]]) -> None:
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-7)


def test_spec_quad_paper() -> None:
    got = run_optimizer(lambda p: Lars(p, 0.1, 0.9, 0.01, "paper", adapt_1d=True), 3)
    near(got, [[0.91510206, 0.88689677], [0.83981362, 0.78407835], [0.77309375, 0.69054164]])


def test_spec_quad_2017() -> None:
    got = run_optimizer(lambda p: Lars(p, 1.0, 0.9, 0.01, "2017", 0.02, adapt_1d=True), 3)
    near(got, [[0.98302089, 0.97737999], [0.9511937, 0.93477738], [0.90681633, 0.87489775]])


def test_spec_quad_2017_without_decay() -> None:
    got = run_optimizer(lambda p: Lars(p, 1.0, 0.9, 0.0, "2017", 0.02, adapt_1d=True), 1)
    near(got, [[0.98302944, 0.97737258]])


@pytest.mark.parametrize("adapt_1d", [True, False])
@pytest.mark.parametrize("variant", ["2017", "paper"])
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_reference(problem: Problem, variant: str, adapt_1d: bool) -> None:
    adapted = [adapt_1d or value.ndim > 1 for value in problem.start]
    got = run_optimizer(lambda p: Lars(p, 0.05, 0.8, 0.1, variant, 0.3, adapt_1d), 50, problem)
    reference = LITERAL[variant](0.05, 0.8, 0.1, 0.3, adapted)
    torch.testing.assert_close(got, run_reference(reference, 50, problem), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("variant", ["2017", "paper"])
def test_the_gradients_scale_does_not_matter_but_for_zero(variant: str) -> None:
    paths = []
    for scale in (1e-3, 1e3):
        p = torch.nn.Parameter(torch.tensor([[3.0, 0.0], [0.0, 4.0]], dtype=torch.float64))
        p.grad = scale * torch.ones(2, 2, dtype=torch.float64)
        Lars([p], 0.1, 0.0, 0.0, variant, trust=0.5).step()
        paths.append(p.detach())
    torch.testing.assert_close(*paths)
    moved = (paths[0] - torch.tensor([[3.0, 0.0], [0.0, 4.0]], dtype=torch.float64)).norm().item()
    assert moved == pytest.approx(0.1 * 5 * (0.5 if variant == "2017" else 1.0))


@pytest.mark.parametrize("variant", ["2017", "paper"])
def test_zero_weights_and_zero_gradients_have_a_ratio_of_one(variant: str) -> None:
    zero, still = (torch.nn.Parameter(torch.full((1, 2), value)) for value in (0.0, 3.0))
    zero.grad, still.grad = torch.ones(1, 2), torch.zeros(1, 2)
    Lars([zero, still], 0.1, 0.0, 0.0, variant).step()
    torch.testing.assert_close(zero.detach(), torch.full((1, 2), -0.1))
    assert still.tolist() == [[3, 3]]


@pytest.mark.parametrize(
    ("key", "value"), [("lr", -1), ("momentum", 1.0), ("trust", -0.1), ("variant", "2020")]
)
def test_refuses_bad_values_by_name(key: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"{key} must .*, got "):
        build_part("optimizer", part_config("optimizer", "lars", **{key: value}), quad().params())

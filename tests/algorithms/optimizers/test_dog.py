"""DoG: the spec's numbers, a literal trajectory, and what belongs to all parameters together."""

from __future__ import annotations

import math

import pytest
import torch

from algorithms.averages.polynomial import Polynomial
from algorithms.optimizers.dog import DoG
from runner.base.errors import UserError
from runner.contract.instantiate import build_part
from runner.parts.composed import Composed
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
from tests.tasks import classification, train


def literal_dog(lr: float, reps_rel: float, eps: float, decay: float) -> Update:
    """The rule, one float at a time."""
    start: list[float] = []
    memory = {"r": 0.0, "squares": eps}

    def update(t: int, x: list[list[float]], g: list[list[float]]) -> None:
        now = [v for row in x for v in row]
        pull = [a + decay * b for u, v in zip(g, x, strict=True) for a, b in zip(u, v, strict=True)]
        if t == 1:
            start.extend(now)
            memory["r"] = reps_rel * (1 + math.sqrt(sum(v * v for v in start)))
        memory["r"] = max(memory["r"], math.dist(now, start))
        memory["squares"] += sum(v * v for v in pull)
        size = lr * memory["r"] / math.sqrt(memory["squares"])
        moved = iter([a - size * b for a, b in zip(now, pull, strict=True)])
        for row in x:
            row[:] = [next(moved) for _ in row]

    return update


def test_spec_quad() -> None:
    got = run_optimizer(lambda p: DoG(p, reps_rel=0.01), 3)
    expected = [[0.98551472, 0.98068629], [0.97540572, 0.96710238], [0.96148308, 0.94828936]]
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-7)


@pytest.mark.parametrize(("lr", "reps_rel", "decay"), [(1.0, 1e-2, 0.0), (0.5, 1e-4, 0.1)])
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_reference(problem: Problem, lr: float, reps_rel: float, decay: float) -> None:
    got = run_optimizer(lambda p: DoG(p, lr, reps_rel, 1e-8, decay), 50, problem)
    expected = run_reference(literal_dog(lr, reps_rel, 1e-8, decay), 50, problem)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


def test_the_start_and_the_sums_are_restored_not_taken_anew() -> None:
    problem = PROBLEMS[2]
    params = problem.params()
    optimizer = DoG(params, reps_rel=0.01)
    continue_optimizer(optimizer, params, 5, problem)
    assert set(optimizer.state_dict()["shared"]) == {"radius", "squares"}
    assert torch.equal(optimizer.state[params[0]]["start"], problem.start[0])
    assert_resumes(lambda p: DoG(p, reps_rel=0.01), problem, before=6)


def test_a_loaded_state_is_not_shared_with_the_optimizer() -> None:
    params = quad().params()
    optimizer = DoG(params, reps_rel=0.1)
    continue_optimizer(optimizer, params, 3, quad())
    state = optimizer.state_dict()
    fresh = DoG(params, reps_rel=0.1)
    fresh.load_state_dict(state)
    before = state["shared"]["squares"].clone()
    continue_optimizer(fresh, params, 3, quad())
    assert torch.equal(state["shared"]["squares"], before)
    assert optimizer.report()["radius"] == pytest.approx(float(state["shared"]["radius"]))


def test_with_its_average_in_a_composition() -> None:
    task = classification()
    algorithm = Composed(part_config("optimizer", "dog"), average=lambda: Polynomial())
    algorithm.setup(task)
    losses = train(algorithm, task, 60)
    assert losses[-10:].mean() < losses[:10].mean()
    assert algorithm.report()["optimizer/radius"] > 0


@pytest.mark.parametrize(("key", "value"), [("lr", -1), ("reps_rel", 0.0), ("eps", 0.0), ("eps", math.nan)])
def test_refuses_bad_values_by_name(key: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"{key} must .*, got "):
        build_part("optimizer", part_config("optimizer", "dog", **{key: value}), quad().params())

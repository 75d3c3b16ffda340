"""Last-iterate step sizes: the spec's numbers, each form against its formula, literal trajectories."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch

from algorithms.schedules.last_iterate import LastIterate
from runner.base.errors import UserError
from runner.compose.config import compose
from runner.contract.instantiate import build_part
from runner.parts.composed import Composed
from tests.problems import PROBLEMS, Problem, Update, part_config, run_reference
from tests.tasks import BATCH, BUDGET, classification, follow, from_problem, make_info

STEPS = BUDGET // BATCH  # 100


def schedule(total: int = STEPS, **changes: Any) -> Any:
    part = build_part("schedule", part_config("schedule", "last_iterate", **changes))
    task = classification()
    task.info = make_info(budget_samples=total * BATCH)
    part.setup(task)
    return part


def multipliers(total: int = STEPS, **changes: Any) -> list[float]:
    part = schedule(total, **changes)
    return [part(t / total) for t in range(total)]


LINEAR_OF_8 = [
    0.35355339, 0.30935922, 0.26516504, 0.22097087, 0.1767767, 0.13258252, 0.08838835, 0.04419417,
]  # fmt: skip


def test_spec_linear_of_eight_steps() -> None:
    assert multipliers(8, form="linear") == pytest.approx(LINEAR_OF_8, abs=5e-9)


def test_spec_constant_of_eight_steps() -> None:
    assert multipliers(8, form="constant") == pytest.approx([0.35355339] * 8, abs=5e-9)


def test_spec_anytime() -> None:
    assert multipliers(8, form="anytime")[:3] == pytest.approx([1, 0.70710678, 0.57735027], abs=5e-9)


def rates(form: str, total: int, cap: float) -> list[float]:
    """The formula, t = 1 … T."""
    values = {
        "anytime": [1 / math.sqrt(t) for t in range(1, total + 1)],
        "constant": [1 / math.sqrt(total)] * total,
        "linear": [(total - t + 1) / total**1.5 for t in range(1, total + 1)],
    }
    return [min(cap, value) for value in values[form]]


@pytest.mark.parametrize("cap", [None, 0.06])
@pytest.mark.parametrize("form", ["linear", "constant", "anytime"])
def test_reference_of_a_run(form: str, cap: float | None) -> None:
    for total in (1, 7, 100, 1501):
        expected = rates(form, total, math.inf if cap is None else cap)
        assert multipliers(total, form=form, cap=cap) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("form", ["linear", "constant", "anytime"])
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_reference_trajectory(problem: Problem, form: str) -> None:
    task, objective = from_problem(problem)
    sgd = functools.partial(torch.optim.SGD, lr=0.2)
    got = follow(Composed(sgd, lambda: LastIterate(form), objective=objective), task, 50)
    multiplier = rates(form, STEPS, math.inf)

    def literal(t: int, x: list[list[float]], g: list[list[float]]) -> None:
        for row, grads in zip(x, g, strict=True):
            row[:] = [a - 0.2 * multiplier[t - 1] * b for a, b in zip(row, grads, strict=True)]

    update: Update = literal
    torch.testing.assert_close(got, run_reference(update, 50, problem), rtol=1e-9, atol=1e-12)


def test_linear_never_reaches_zero_and_other_batch_sizes_keep_to_the_budget() -> None:
    part = schedule(form="linear")
    assert part(99 / 100) == pytest.approx(1 / 1000)
    assert part(0.5) == pytest.approx(0.05)  # wherever a step of another size begins


def test_preset_is_plain_sgd() -> None:
    config = compose(["algorithm=last_iterate"])["algorithm"]
    assert config["optimizer"]["_target_"] == "torch.optim.SGD"
    assert (config["optimizer"]["momentum"], config["optimizer"]["weight_decay"]) == (0.0, 0.0)
    assert config["schedule"]["form"] == "linear"


@pytest.mark.parametrize(("key", "value"), [("form", "cubic"), ("cap", 0.0), ("cap", math.nan)])
def test_refuses_bad_values_by_name(key: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"{key} must .*, got "):
        schedule(**{key: value})

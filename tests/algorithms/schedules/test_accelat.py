"""AccelAT: the spec's epochs, a literal rule, what counts as an epoch, checkpoints."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from algorithms.schedules.accelat import AccelAT
from runner.base.errors import UserError
from runner.contract.instantiate import build_part
from runner.parts.composed import Composed
from tests.problems import PROBLEMS, Problem, part_config, run_reference, through_disk
from tests.tasks import classification, from_problem, normal, train

SPEC = [0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.58, 0.6, 0.61, 0.612, 0.612] + [0.613] * 9
SGD = functools.partial(torch.optim.SGD, lr=0.1)


def after_each(part: Any, accuracies: list[float]) -> list[float]:
    """The multiplier after each epoch."""
    found = []
    for accuracy in accuracies:
        part(0.5)
        part.observe({"validation/accuracy": accuracy, "validation/loss": 1.0})
        found.append(part(0.5))
    return found


def literal(
    accuracies: list[float], factor: float, window: int, patience: int, least: float, floor: float
) -> list[float]:
    """The rule as it is written, with everything kept."""
    lr, quiet, means, found = 1.0, patience, [], []
    for epoch in range(len(accuracies)):
        last = accuracies[max(0, epoch + 1 - window) : epoch + 1]
        mean = sum(last) / len(last)
        quiet += 1
        if len(means) > window and quiet > patience and mean - means[-1] < least:
            lr *= factor
            quiet = 1
        lr = max(lr, floor)
        means.append(mean)
        found.append(lr)
    return found


def test_spec_twenty_epochs() -> None:
    got = after_each(AccelAT(), SPEC)
    assert [1e-3 * scale for scale in got] == pytest.approx(
        [1e-3] * 12 + [8e-4] * 5 + [6.4e-4] * 3, rel=1e-12
    )


@pytest.mark.parametrize(
    "rule", [(0.8, 5, 5, 0.005, 1e-3), (0.5, 3, 2, 0.01, 0.05), (0.9, 1, 0, 0.0, 0.5), (0.7, 10, 4, 1.0, 0.0)]
)
def test_reference(rule: tuple[Any, ...]) -> None:
    accuracies = (1 - torch.exp(-torch.arange(60) / 12.0) + 0.01 * normal(5, 60)).tolist()
    assert after_each(AccelAT(*rule), accuracies) == pytest.approx(literal(accuracies, *rule), rel=1e-12)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_reference_trajectory(problem: Problem) -> None:
    rule = (0.5, 2, 1, 0.02, 1e-3)
    task, objective = from_problem(problem)
    algorithm = Composed(SGD, lambda: AccelAT(*rule), objective=objective)
    algorithm.setup(task)
    accuracies, rows = [0.1, 0.3, 0.31, 0.32, 0.32, 0.5, 0.5, 0.5, 0.51, 0.51], []
    for accuracy in accuracies:
        for _ in range(5):
            train(algorithm, task, 1)
            rows.append(torch.cat([p.detach().flatten() for p in task.params]))
        algorithm.observe({"validation/accuracy": accuracy})
    scales = [1.0, *literal(accuracies, *rule)]

    def update(t: int, x: list[list[float]], g: list[list[float]]) -> None:
        for row, grads in zip(x, g, strict=True):
            row[:] = [a - 0.1 * scales[(t - 1) // 5] * b for a, b in zip(row, grads, strict=True)]

    assert scales[-1] < 0.2
    torch.testing.assert_close(torch.stack(rows), run_reference(update, 50, problem), rtol=1e-9, atol=1e-12)


def test_the_evaluation_before_the_first_step_ends_no_epoch() -> None:
    part = AccelAT(window=1, patience=0)
    part.observe({"validation/accuracy": 0.9})
    assert (part.means, part.recent) == (0, [])
    assert after_each(part, [0.1, 0.2, 0.2]) == [1.0, 1.0, 0.8]


def test_a_restored_state_goes_on() -> None:
    part, fresh = AccelAT(), AccelAT()
    after_each(part, SPEC[:14])
    fresh.load_state_dict(through_disk(part.state_dict()))
    assert after_each(fresh, SPEC[14:]) == after_each(part, SPEC[14:])
    assert fresh.scale == pytest.approx(0.64)


def test_metrics_reach_it_through_a_composition() -> None:
    algorithm = Composed(SGD, AccelAT)
    assert algorithm.uses_metrics
    task = classification()
    algorithm.setup(task)
    for _ in range(9):
        train(algorithm, task, 1)
        algorithm.observe({"validation/accuracy": 0.5})
    train(algorithm, task, 1)
    assert algorithm.report()["lr"] == pytest.approx(0.08)


def test_says_what_it_lacks() -> None:
    with pytest.raises(RuntimeError, match="needs validation/accuracy; the workload has validation/loss"):
        AccelAT().observe({"validation/loss": 1.0})


@pytest.mark.parametrize(("key", "value"), [("factor", 1.0), ("window", 0), ("patience", -1), ("floor", 2.0)])
def test_refuses_bad_values_by_name(key: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"{key} must .*, got "):
        build_part("schedule", part_config("schedule", "accelat", **{key: value}))

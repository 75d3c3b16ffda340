"""The refined schedule: the spec's numbers, literal smoothing and weights, the two runs of a cell."""

from __future__ import annotations

import functools
import statistics
from typing import Any

import pytest
import torch

from algorithms.averages.ema import EMA
from algorithms.optimizers.dog import DoG
from algorithms.schedules.linear import Linear
from algorithms.transforms.clip_norm import ClipNorm
from algorithms.whole.refined_schedule import RefinedSchedule, refine, smoothed
from runner.base.errors import UserError
from runner.compose.config import compose
from runner.contract.instantiate import build_part
from runner.contract.task import Task
from tests.problems import PROBLEMS, Problem, run_reference
from tests.tasks import (
    assert_no_sync,
    assert_resumes,
    classification,
    conv_net,
    follow,
    from_problem,
    images,
    normal,
    train,
)

NORMS = [4, 2, 2, 2, 1, 2, 2, 4]
SGD = functools.partial(torch.optim.SGD, lr=0.1)
ADAMW = functools.partial(torch.optim.AdamW, lr=0.01, fused=True)


def near(got: list[float], expected: list[float]) -> None:
    assert got == pytest.approx(expected, abs=5e-9)


def test_spec_weights_of_sgd() -> None:
    expected = [0.25694444, 0.91666667, 0.80555556, 0.69444444, 1, 0.13888889, 0.02777778, 0]
    near(refine(NORMS, 0.0, 2, 1e-3), expected)


def test_spec_weights_of_adam() -> None:
    expected = [0.57692308, 1, 0.84615385, 0.69230769, 0.76923077, 0.23076923, 0.07692308, 0]
    near(refine(NORMS, 0.0, 1, 1e-3), expected)


def test_spec_constant_norms_give_linear_decay() -> None:
    for power in (1, 2):
        near(refine([3.0] * 8, 0.1, power, 1e-3), [1 - t / 7 for t in range(8)])


def literal_smoothing(norms: list[float], tau: float) -> list[float]:
    width = 2 * (int(tau * len(norms)) // 2) + 1
    line = list(norms)
    while len(line) < len(norms) + 2 * width:  # reflect about the last entry, to and fro
        line += norms[-2::-1] + norms[1:]
    line = line[: len(norms) + 2 * width]
    half = width // 2
    found = []
    for t in range(len(norms)):
        window = [line[min(max(t + s, 0), len(line) - 1)] for s in range(-half, half + 1)]
        found.append(statistics.median(window))
    return found


@pytest.mark.parametrize("tau", [0.0, 0.05, 0.1, 0.3])
@pytest.mark.parametrize("total", [3, 10, 61, 200])
def test_reference_smoothing(total: int, tau: float) -> None:
    norms = normal(total, total).abs().tolist()
    got = smoothed(torch.tensor(norms, dtype=torch.float64).numpy(), tau).tolist()
    assert got == pytest.approx(literal_smoothing(norms, tau), abs=1e-12)


@pytest.mark.parametrize("power", [1, 2])
def test_reference_weights(power: int) -> None:
    norms = (normal(4, 61).abs() + 0.1).tolist()
    smooth = literal_smoothing(norms, 0.1)
    weights = [v**-power for v in smooth]
    rates = [weights[t] * sum(weights[t + 1 :]) for t in range(61)]
    near(refine(norms, 0.1, power, 0.0), [rate / max(rates) for rate in rates])


def test_norms_near_zero_are_floored_and_one_step_is_a_schedule_too() -> None:
    got = refine([1.0] * 20 + [1e-12] * 5, 0.0, 2, 1e-3)
    assert max(got[:20]) > 0  # the floor: weights of 1e6 rather than 1e24
    assert got == refine([1.0] * 20 + [1e-3] * 5, 0.0, 2, 0.0)
    assert refine([2.0], 0.1, 1, 1e-3) == [1.0]
    assert refine([0.0, 0.0], 0.0, 2, 1e-3) == [1.0, 0.0]


def literal_run(problem: Problem, starts: list[Any], norm: str) -> torch.Tensor:
    """Both runs of 25 steps, SGD one float at a time, from each list of initial values."""
    power, rows, curve = {"l1": 1, "l2": 2}[norm], [], [1 - t / 25 for t in range(25)]
    for start in starts:
        norms: list[float] = []
        schedule = list(curve)

        def update(
            t: int,
            x: list[list[float]],
            g: list[list[float]],
            norms: list[float] = norms,
            schedule: list[float] = schedule,
        ) -> None:
            entries = [v for row in g for v in row]
            norms.append(sum(abs(v) ** power for v in entries) ** (1 / power))
            for row, grads in zip(x, g, strict=True):
                row[:] = [a - 0.1 * schedule[t - 1] * b for a, b in zip(row, grads, strict=True)]

        rows.append(run_reference(update, 25, Problem("run", tuple(start), problem.loss)))
        smooth = literal_smoothing(norms, 0.1)
        weights = [v**-power for v in smooth]
        rates = [weights[t] * sum(weights[t + 1 :]) for t in range(25)]
        curve = [rate / max(rates) for rate in rates]
    return torch.cat(rows)


def half_budget(task: Task) -> Task:
    import dataclasses

    task.info = dataclasses.replace(task.info, budget_samples=50 * task.info.batch_size)
    return task


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_reference_of_both_runs(problem: Problem, norm: str) -> None:
    task, objective = from_problem(problem)
    # A fresh Holder has the problem's start again, so that both runs begin there.
    algorithm = RefinedSchedule(SGD, functools.partial(Linear, 0.0), objective=objective, norm=norm)
    got = follow(algorithm, half_budget(task), 50)  # type: ignore[arg-type]
    starts = [list(problem.start), list(problem.start)]
    torch.testing.assert_close(got, literal_run(problem, starts, norm), rtol=1e-5, atol=1e-7)


def test_the_second_run_starts_afresh_from_other_weights() -> None:
    task = half_budget(classification())
    algorithm = RefinedSchedule(ADAMW, functools.partial(Linear, 0.0))
    algorithm.setup(task)
    start = [p.detach().clone() for p in task.params]
    train(algorithm, task, 25)  # type: ignore[arg-type]
    assert (len(algorithm.norms), algorithm.curve, algorithm.report()["run"]) == (25, [], 1.0)
    train(algorithm, task, 1)  # type: ignore[arg-type]
    assert (len(algorithm.norms), len(algorithm.curve), algorithm.report()["run"]) == (0, 25, 2.0)
    assert all(state["step"] == 1 for state in algorithm.inner.optimizer.state.values())
    assert all((a - b).abs().max() > 0.1 for a, b in zip(task.params[:1], start[:1], strict=True))
    assert algorithm.report()["lr"] == pytest.approx(0.01 * algorithm.curve[0])
    train(algorithm, task, 24)  # type: ignore[arg-type]
    assert task.progress == 1
    assert algorithm.report()["lr"] == pytest.approx(0.0, abs=1e-12)


def test_norms_are_those_before_clipping() -> None:
    plain, clipped = (half_budget(classification()) for _ in range(2))
    still = functools.partial(torch.optim.SGD, lr=0.0)
    one = RefinedSchedule(still)
    two = RefinedSchedule(still, transform={"clip": functools.partial(ClipNorm, 1e-3)})
    for algorithm, task in ((one, plain), (two, clipped)):
        algorithm.setup(task)
        train(algorithm, task, 5)  # type: ignore[arg-type]
    assert torch.equal(torch.stack(one.norms), torch.stack(two.norms))


def test_an_average_and_an_optimizer_that_remember_the_start_take_the_new_one() -> None:
    task = half_budget(classification())
    algorithm = RefinedSchedule(functools.partial(DoG, reps_rel=0.01), average=EMA)
    algorithm.setup(task)
    train(algorithm, task, 26)  # type: ignore[arg-type]
    fresh = task.params[0].detach()
    start = algorithm.inner.optimizer.state[task.params[0]]["start"]
    assert (start - fresh).abs().max() < 0.05
    assert (algorithm.inner.single["average"]._mean[0] - fresh).abs().max() < 0.05


@pytest.mark.parametrize("before", [10, 24, 25, 26, 40])
def test_resumes_in_either_run(before: int) -> None:
    def make() -> Any:
        return RefinedSchedule(ADAMW, functools.partial(Linear, 0.05), average=EMA)

    assert_resumes(make, lambda: half_budget(images(conv_net)), before, 7)


def test_waits_once() -> None:
    task = half_budget(classification())
    algorithm = RefinedSchedule(ADAMW, Linear)
    assert_no_sync(algorithm, task, 20)  # type: ignore[arg-type]
    assert algorithm.syncs_every == 25


def test_its_preset_trains_twice_and_refuses_bad_values() -> None:
    config = compose(["algorithm=refined_schedule"])["algorithm"]
    algorithm = build_part("algorithm", config, prefix="")
    assert (algorithm.first, algorithm.tau, algorithm.norm, algorithm.floor) == (0.5, 0.1, "l1", 1e-3)
    for key, value in {"first": 1.0, "tau": 1.0, "norm": "l3", "floor": -1}.items():
        with pytest.raises(UserError, match=rf"{key} must .*, got "):
            build_part("algorithm", config | {key: value}, prefix="")

"""Schedule-Free AdamW: numbers, the three sequences written out, evaluation at the average."""

from __future__ import annotations

import copy
import functools
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from algorithms.averages.ema import EMA
from algorithms.optimizers.schedule_free_adamw import ScheduleFreeAdamW
from runner.base.errors import UserError
from runner.compose.config import compose
from runner.contract.instantiate import build_part
from runner.parts.composed import Composed
from tests.problems import (
    PROBLEMS,
    Problem,
    continue_optimizer,
    flat,
    part_config,
    quad,
    run_optimizer,
    through_disk,
)
from tests.tasks import (
    BATCH,
    BUDGET,
    assert_no_sync,
    assert_resumes,
    classification,
    conv_net,
    follow,
    from_problem,
    images,
    meters,
    train,
    weights,
)

STEPS = BUDGET // BATCH  # of the tasks in tests.tasks
Iterates = tuple[Tensor, Tensor]  # y after each step, and the x that belongs to it


def literal(
    problem: Problem,
    lr: Callable[[int], float],
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    decay: float = 0.0,
    r: float = 0.0,
    power: float = 2.0,
    paper: bool = False,
    steps: int = 50,
) -> Iterates:
    """Algorithm 1 with x, y, z stored, a number at a time; ``paper``: its own correction of the bias."""
    params = problem.params()
    x = flat(params).tolist()
    z, v = list(x), [0.0] * len(x)
    total, largest, ys, xs = 0.0, 0.0, [], []
    for t in range(1, steps + 1):
        y = [beta1 * a + (1 - beta1) * b for a, b in zip(x, z, strict=True)]
        g = gradient(problem, params, y)
        step = lr(t) * (math.sqrt(1 - beta2**t) if paper else 1.0)
        largest = step if paper else max(largest, step)
        weight = t**r * largest**power
        total += weight
        c = weight / total if total > 0 else 0.0
        for j in range(len(x)):
            v[j] = beta2 * v[j] + (1 - beta2) * g[j] ** 2
            root = math.sqrt(v[j]) if paper else math.sqrt(v[j] / (1 - beta2**t))
            z[j] = z[j] - step * g[j] / (root + eps) - step * decay * y[j]
            x[j] = (1 - c) * x[j] + c * z[j]
        ys.append([beta1 * a + (1 - beta1) * b for a, b in zip(x, z, strict=True)])
        xs.append(list(x))
    return torch.tensor(ys, dtype=torch.float64), torch.tensor(xs, dtype=torch.float64)


def gradient(problem: Problem, params: list[nn.Parameter], at: list[float]) -> list[float]:
    put(params, at)
    problem.gradient(params)
    return torch.cat([p.grad.flatten() for p in params if p.grad is not None]).tolist()


def put(params: list[nn.Parameter], at: list[float]) -> None:
    pieces = torch.tensor(at, dtype=torch.float64).split([p.numel() for p in params])
    with torch.no_grad():
        for p, values in zip(params, pieces, strict=True):
            p.copy_(values.view_as(p))


def ours(problem: Problem, steps: int = 50, **options: Any) -> Iterates:
    """y and x after each step of the real one, alone."""
    params = problem.params()
    optimizer = ScheduleFreeAdamW(params, **options)
    ys, xs = [], []
    for _ in range(steps):
        ys.append(continue_optimizer(optimizer, params, 1, problem)[0])
        optimizer.eval()
        xs.append(flat(params))
        put(params, ys[-1].tolist())  # so that a round trip through x leaves no rounding behind
        optimizer.param_groups[0]["averaged"] = False
    return torch.stack(ys), torch.stack(xs)


def composed(problem: Problem, schedule: Any = None, **options: Any) -> tuple[Composed, Any]:
    task, objective = from_problem(problem)
    return Composed(
        functools.partial(ScheduleFreeAdamW, **options), schedule=schedule, objective=objective
    ), task


def evaluated(algorithm: Composed, task: Any) -> Tensor:
    """The weights that an evaluation sees."""
    algorithm.enter_eval(task)
    return torch.cat([p.detach().flatten() for p in task.params]).clone()


def test_spec_quad() -> None:
    algorithm, task = composed(quad(), lr=0.1, weight_decay=0.1, warmup=2 / STEPS)
    got = follow(algorithm, task, 4)
    expected = [[0.945, 0.945], [0.85842768, 0.85699482], [0.80142113, 0.79719757], [0.74855418, 0.74061304]]
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-7)
    assert evaluated(algorithm, task).tolist() == pytest.approx([0.75947093, 0.75227028], abs=1e-7)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
@pytest.mark.parametrize(
    ("beta1", "decay", "r", "power"), [(0.9, 0.0, 0.0, 2.0), (0.6, 0.3, 0.75, 2.0), (0.98, 0.1, 0.0, 0.0)]
)
def test_reference(problem: Problem, beta1: float, decay: float, r: float, power: float) -> None:
    options: dict[str, Any] = {"weight_decay": decay, "r": r, "weight_lr_power": power, "eps": 1e-3}
    got = ours(problem, lr=0.03, betas=(beta1, 0.95), **options)
    expected = literal(problem, lambda t: 0.03, beta1, 0.95, 1e-3, decay, r, power)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_reference_with_warm_up_and_a_schedule(problem: Problem) -> None:
    algorithm, task = composed(
        problem, lambda: lambda progress: 1 - progress, lr=0.05, warmup=0.1, weight_decay=0.1
    )
    expected = literal(problem, lambda t: 0.05 * min(1, t / (0.1 * STEPS)) * (1 - (t - 1) / STEPS), decay=0.1)
    torch.testing.assert_close(follow(algorithm, task, 50), expected[0], rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(evaluated(algorithm, task), expected[1][-1], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_the_papers_own_correction_is_the_same_but_for_weights_and_decay(problem: Problem) -> None:
    alike: dict[str, Any] = {"weight_lr_power": 0.0, "eps": 0.0, "weight_decay": 0.0}
    paper = literal(problem, lambda t: 0.03, power=0.0, eps=0.0, paper=True)
    torch.testing.assert_close(ours(problem, lr=0.03, **alike), paper, rtol=1e-9, atol=1e-10)
    unlike = literal(problem, lambda t: 0.03, paper=True)
    assert (ours(problem, lr=0.03, weight_decay=0.0)[1] - unlike[1]).abs().max() > 1e-3


def test_groups_count_for_themselves_and_skip_what_has_no_gradient() -> None:
    early, late = (nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = ScheduleFreeAdamW([{"params": [early]}, {"params": [late], "lr": 0.2}], lr=0.1)
    path = []
    for _ in range(3):
        early.grad = torch.ones(2)
        optimizer.step()
        path.append(early.detach().clone())
    assert late.tolist() == [1, 1]
    assert late not in optimizer.state
    late.grad = torch.ones(2)
    optimizer.step()
    torch.testing.assert_close(late.detach() - 1, 2 * (path[0] - 1))


def test_a_learning_rate_of_zero_moves_nothing() -> None:
    got = run_optimizer(lambda p: ScheduleFreeAdamW(p, lr=0.0, weight_decay=0.5), 3)
    assert got.tolist() == [[1, 1]] * 3


def test_evaluation_sees_the_average_and_training_goes_on_as_if_it_had_not_been() -> None:
    problem = PROBLEMS[2]
    algorithm, task = composed(problem, lr=0.05, betas=(0.8, 0.99))
    got = follow(algorithm, task, 7)[-1]
    z = torch.cat([algorithm.optimizer.state[p]["z"].flatten() for p in task.params])
    x = evaluated(algorithm, task)
    torch.testing.assert_close(0.8 * x + 0.2 * z, got)
    assert torch.equal(evaluated(algorithm, task), x)  # a second swap changes nothing
    with pytest.raises(RuntimeError, match=r"call train\(\) first"):
        algorithm.step(task)
    algorithm.exit_eval(task)
    algorithm.exit_eval(task)
    torch.testing.assert_close(torch.cat([w.flatten() for w in weights(task)]), got, rtol=1e-14, atol=1e-15)


def test_before_the_first_step_an_evaluation_is_free() -> None:
    algorithm, task = Composed(ScheduleFreeAdamW), images(conv_net)
    algorithm.setup(task)
    start = weights(task)
    algorithm.enter_eval(task)
    assert all(torch.equal(a, b) for a, b in zip(weights(task), start, strict=True))
    assert meters(task) == (0, 0, 0, 0)
    algorithm.exit_eval(task)
    train(algorithm, task, 1)


def test_an_evaluation_costs_nothing_and_keeps_the_running_statistics() -> None:
    algorithm, task = Composed(functools.partial(ScheduleFreeAdamW, lr=0.1)), images(conv_net)
    follow(algorithm, task, 6)
    before, cost = [b.clone() for b in task.model.buffers()], task.cost.state_dict()
    algorithm.enter_eval(task)
    assert all(torch.equal(a, b) for a, b in zip(task.model.buffers(), before, strict=True))
    assert task.cost.state_dict() == cost


def test_state_is_two_tensors_a_parameter_and_shares_no_memory() -> None:
    algorithm, task = Composed(ScheduleFreeAdamW), classification()
    follow(algorithm, task, 3)
    state = algorithm.optimizer.state
    assert all(sorted(state[p]) == ["exp_avg_sq", "z"] for p in task.params)
    held = [t.data_ptr() for p in task.params for t in (p, *state[p].values())]
    algorithm.enter_eval(task)
    assert len(set(held)) == len(held) == 3 * len(task.params)
    assert held == [t.data_ptr() for p in task.params for t in (p, *state[p].values())]


@pytest.mark.parametrize("averaged", [False, True])
def test_a_state_saved_at_either_point_goes_on_there(averaged: bool) -> None:
    problem = PROBLEMS[2]
    params = problem.params()
    optimizer = ScheduleFreeAdamW(params, lr=0.05, weight_decay=0.1)
    continue_optimizer(optimizer, params, 3, problem)
    if averaged:
        optimizer.eval()
    state = through_disk({"optimizer": optimizer.state_dict(), "params": [p.detach() for p in params]})
    fresh = problem.params()
    put(fresh, torch.cat([p.flatten() for p in state["params"]]).tolist())
    resumed = ScheduleFreeAdamW(fresh)
    resumed.load_state_dict(state["optimizer"])
    for one in (optimizer, resumed):
        one.train()
    got, expected = (continue_optimizer(o, p, 5, problem) for o, p in ((resumed, fresh), (optimizer, params)))
    assert torch.equal(got, expected)


def test_steps_do_not_wait_and_resume() -> None:
    make = functools.partial(
        Composed, functools.partial(ScheduleFreeAdamW, lr=0.02, weight_decay=0.1, warmup=0.1, r=0.75)
    )
    assert_no_sync(make(), images(conv_net))
    assert_resumes(make, lambda: images(conv_net))


def test_leaves_gradients_alone() -> None:
    problem = PROBLEMS[1]
    params = problem.params()
    optimizer = ScheduleFreeAdamW(params, weight_decay=0.1)
    problem.gradient(params)
    before = [p.grad.clone() for p in params if p.grad is not None]
    optimizer.step()
    assert all(torch.equal(p.grad, g) for p, g in zip(params, before, strict=True) if p.grad is not None)


def test_an_average_on_top_averages_the_training_weights() -> None:
    make = functools.partial(
        Composed, functools.partial(ScheduleFreeAdamW, lr=0.05), average=lambda: EMA(0.0, ramp=False)
    )
    algorithm, task = make(), classification()
    y = follow(algorithm, task, 5)[-1]
    assert torch.equal(evaluated(algorithm, task), y)
    algorithm.exit_eval(task)
    torch.testing.assert_close(torch.cat([w.flatten() for w in weights(task)]), y)


def test_preset_replaces_the_schedule() -> None:
    config = compose(["algorithm=schedule_free_adamw"])["algorithm"]
    assert "schedule" not in config
    assert config["optimizer"]["_target_"].endswith("ScheduleFreeAdamW")
    assert config["optimizer"]["warmup"] > 0


@pytest.mark.parametrize(
    ("key", "value"),
    [("lr", -1), ("betas", [0.0, 0.9]), ("betas", [0.9, 1.0]), ("warmup", 1.0), ("r", -1), ("eps", math.nan)],
)
def test_refuses_bad_values_by_name(key: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"{key} must .*, got "):
        build_part(
            "optimizer", part_config("optimizer", "schedule_free_adamw", **{key: value}), quad().params()
        )


def test_copies_go_on_with_the_warm_up_and_a_pickle_says_when_it_cannot() -> None:
    algorithm, task = composed(quad(), lr=0.1, warmup=0.5)
    follow(algorithm, task, 3)
    pickled = pickle.dumps(algorithm.optimizer)
    twin, pair = copy.deepcopy(algorithm.optimizer), copy.deepcopy((task.params, algorithm.optimizer))[1]
    algorithm.step(task)
    for one in (twin, pair):
        (p,) = one.param_groups[0]["params"]
        p.grad = task.params[0].grad
        one.step()
        assert torch.equal(p, task.params[0])
    early = pickle.loads(pickled)
    with pytest.raises(RuntimeError, match=r"call setup\(task\) again"):
        early.param_groups[0]["params"][0].grad = task.params[0].grad
        early.step()
    early.setup(task)
    early.step()
    assert torch.equal(early.param_groups[0]["params"][0], task.params[0])
    task.cost.drawn = task.info.budget_samples
    late = pickle.loads(pickle.dumps(algorithm.optimizer))
    algorithm.step(task)
    late.param_groups[0]["params"][0].grad = task.params[0].grad
    late.step()
    assert torch.equal(late.param_groups[0]["params"][0], task.params[0])

"""WGSEF: the spec's numbers, literal trajectories, what belongs to a group, projection and checkpoints."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from algorithms.averages.ema import EMA
from algorithms.averages.polynomial import Polynomial
from algorithms.optimizers.dog import DoG
from algorithms.optimizers.prodigy import Prodigy
from algorithms.optimizers.schedule_free_adamw import ScheduleFreeAdamW
from algorithms.wrappers import wgsef
from algorithms.wrappers.mechanic import Mechanic
from algorithms.wrappers.wgsef import WGSEF, rows, shares
from runner.base.errors import UserError
from runner.contract.instantiate import build_part
from runner.contract.task import Task
from runner.parts.composed import Composed
from tests.problems import flat, part_config, quad
from tests.tasks import assert_no_sync, assert_resumes, classification, follow, images, language, make_info

NORMS = [3.0, 2.0, 1.5, 0.5]
SGD = functools.partial(torch.optim.SGD, lr=0.1)


@pytest.mark.parametrize(
    ("strength", "u", "after"),
    [
        (
            0.1,
            [0.92857143, 0.58571429, 0.41428571, 0.07142857],
            [2.70833333, 1.70833333, 1.20833333, 0.20833333],
        ),
        (0.5, [1, 0.64285714, 0.35714286, 0], [2, 1.125, 0.625, 0]),
        (2.0, [1, 0.85714286, 0.14285714, 0], [1, 0.6, 0.1, 0]),
    ],
)  # fmt: skip
def test_spec_norms(strength: float, u: list[float], after: list[float]) -> None:
    norms = torch.tensor(NORMS, dtype=torch.float64)
    got = shares(norms, torch.ones(4, dtype=torch.float64), 2, strength)
    assert got.tolist() == pytest.approx(u, abs=5e-9)
    assert (norms * got / (got + strength)).tolist() == pytest.approx(after, abs=5e-9)


def literal_shares(t: list[float], d: list[float], k: int, strength: float) -> list[float]:
    """By bisection."""
    if sum(v > 0 for v in t) <= k:
        return [1.0] * len(t)

    def at(alpha: float) -> list[float]:
        return [
            min(1.0, max(0.0, alpha * math.sqrt(b) * a - strength * b)) for a, b in zip(t, d, strict=True)
        ]

    low, high = 0.0, 1.0
    while sum(at(high)) < k:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if sum(at(middle)) >= k else (middle, high)
    return at(high)


@pytest.mark.parametrize("strength", [1e-4, 0.03, 0.5, 20.0])
def test_reference_shares(strength: float) -> None:
    generator = torch.Generator().manual_seed(0)
    for n in (2, 5, 40):
        for zeros in (0, 1, n // 2):
            norms = torch.rand(n, generator=generator, dtype=torch.float64) * 5
            norms[:zeros] = 0
            weights = torch.rand(n, generator=generator, dtype=torch.float64) + 0.2
            for k in (1, max(1, n // 3), n - 1, n):
                got = shares(norms, weights, k, strength)
                expected = literal_shares(norms.tolist(), weights.tolist(), k, strength)
                assert got.tolist() == pytest.approx(expected, abs=1e-8)


def test_sums_for_a_gpu_are_the_same_but_for_the_last_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's cumsum of floats has no bit-reproducible kernel there, and raises where one is asked for."""
    x = torch.randn(3, 37, dtype=torch.float64)
    torch.testing.assert_close(wgsef.doubled_sums(x), x.cumsum(-1), rtol=0, atol=1e-13)
    assert torch.equal(wgsef.running_sums(x), x.cumsum(-1))
    monkeypatch.setattr(wgsef, "running_sums", wgsef.doubled_sums)
    for strength in (1e-4, 0.5, 20.0):
        test_reference_shares(strength)


def test_equal_norms_share_what_there_is() -> None:
    norms, ones = torch.full((4,), 2.0, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    assert shares(norms, ones, 2, 0.1).tolist() == pytest.approx([0.5] * 4)
    assert shares(norms, ones, 4, 0.1).tolist() == [1.0] * 4


def three_layers() -> Task:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)).double()

    kinds = {"0.weight": "hidden", "2.weight": "hidden", "4.weight": "head"}
    return known(classification(build), kinds)


def convolutions() -> Task:
    def build() -> nn.Module:
        layers = (nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8))
        return nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)).double()

    return known(images(build), {"0.weight": "hidden", "3.weight": "hidden", "7.weight": "head"})


def words() -> Task:
    def build() -> nn.Module:
        return nn.Sequential(
            nn.Embedding(3, 4), nn.Linear(4, 6, bias=False), nn.Tanh(), nn.Linear(6, 3)
        ).double()

    return known(language(build), {"0.weight": "embedding", "1.weight": "hidden", "3.weight": "head"})


def known(task: Task, kinds: dict[str, str]) -> Task:
    task.info = dataclasses.replace(task.info, param_kind=kinds)
    return task


# What a row consists of, by parameter name.
ROWS = {
    three_layers: ["2.weight", "2.bias"],
    convolutions: ["3.weight", "3.bias", "4.weight", "4.bias"],
    words: ["1.weight"],
}


def literal(task: Task, names: list[str], steps: int, strength: float, by_size: bool) -> torch.Tensor:
    """SGD by autograd, then every row a float at a time."""
    model = copy.deepcopy(task.model)
    params, found = dict(model.named_parameters()), []
    for made in range(1, steps + 1):
        batch = task.data.next()
        model.zero_grad()
        outputs = model(batch.x)
        F.cross_entropy(outputs.flatten(0, -2), batch.y.flatten()).backward()
        pull = strength * min(1.0, made * 8 / 800 / 0.3) * 0.1
        with torch.no_grad():
            for p in params.values():
                p -= 0.1 * p.grad
            members = [params[name] for name in names]
            n = len(members[0])
            size = sum(m.numel() for m in members) / n if by_size else 1.0
            norms = [
                math.sqrt(sum(v * v for m in members for v in m[j].flatten().tolist())) for j in range(n)
            ]
            u = literal_shares(norms, [size] * n, n // 2, pull)
            for j in range(n):
                for m in members:
                    m[j] *= u[j] / (u[j] + pull * size)
        found.append(flat(list(params.values())))
    return torch.stack(found)


@pytest.mark.parametrize(("strength", "by_size"), [(0.5, False), (3.0, False), (0.05, True)])
@pytest.mark.parametrize("build", ROWS)
def test_reference_trajectory(build: Callable[[], Task], strength: float, by_size: bool) -> None:
    wrapper = functools.partial(WGSEF, strength=strength, by_size=by_size, project_at=None)
    got = follow(Composed(SGD, wrapper=wrapper), build(), 50)
    expected = literal(build(), ROWS[build], 50, strength, by_size)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-8)
    if strength == 3.0 and build is three_layers:
        assert (expected[-1] == 0).any()  # the reference's zeros are the point


def test_a_group_is_a_row_with_its_bias_and_its_batch_norm() -> None:
    task = convolutions()
    name_of = {id(p): name for name, p in task.model.named_parameters()}
    found = rows(task.model, ["3.weight"])
    assert [[name_of[id(m)] for m in members] for members in found] == [ROWS[convolutions]]
    both = rows(task.model, ["0.weight", "3.weight", "7.weight"])
    assert [len(members) for members in both] == [4, 4, 2]


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_the_projection_leaves_k_groups_for_good(scope: str) -> None:
    task = words()
    algorithm = Composed(SGD, wrapper=functools.partial(WGSEF, keep=1 / 3, project_at=0.1, scope=scope))
    follow(algorithm, task, 30)  # the budget is 100 steps
    weight = task.model[1].weight
    alive = weight.detach().abs().sum(1) > 0
    assert alive.sum() == 2
    assert algorithm.report()["optimizer/zero_groups"] == pytest.approx(2 / 3)
    for _ in range(5):
        algorithm.step(task)
        assert torch.equal(weight.detach().abs().sum(1) > 0, alive)


@pytest.mark.parametrize("before", [5, 30])
def test_resumes_before_and_after_the_projection_and_never_waits(before: int) -> None:
    momentum = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    make = functools.partial(Composed, momentum, wrapper=functools.partial(WGSEF, project_at=0.2))
    assert_resumes(make, convolutions, before, 7)
    assert_no_sync(make(), convolutions(), 30)


def test_a_loaded_state_brings_its_settings() -> None:
    task, again = words(), words()
    algorithm = Composed(SGD, wrapper=functools.partial(WGSEF, keep=1 / 3, strength=0.5, project_at=0.1))
    follow(algorithm, task, 3)
    fresh = Composed(SGD, wrapper=functools.partial(WGSEF, scope="global"))
    fresh.setup(again)
    again.load_state_dict(task.state_dict())
    again.cost.load_state_dict(task.cost.state_dict())
    fresh.load_state_dict(copy.deepcopy(algorithm.state_dict()))
    for _ in range(20):
        algorithm.step(task)
        fresh.step(again)
        assert torch.equal(flat(task.params), flat(again.params))  # type: ignore[arg-type]


def test_inside_mechanic_it_has_its_hooks_too() -> None:
    algorithm = Composed(SGD, wrapper={"a": WGSEF, "b": functools.partial(Mechanic, s_init=0.1)})
    task = three_layers()
    follow(algorithm, task, 3)
    assert {"optimizer/zero_groups", "optimizer/scale"} <= set(algorithm.report())


# -- with other parts that have a say about the weights ----------------------------------------------------

LATE = {"keep": 0.5, "strength": 0.1, "project_at": 0.5}


def trained(budget: int = 480, **parts: Any) -> tuple[Composed, Task]:
    """60 steps, past the projection where there is one."""
    algorithm, task = Composed(**parts), three_layers()
    task.info = dataclasses.replace(task.info, budget_samples=budget)
    follow(algorithm, task, budget // 8)
    return algorithm, task


def zero_groups(task: Task) -> int:
    norms = [torch.cat([m.detach().flatten(1) if m.ndim > 1 else m.detach()[:, None] for m in members], 1)
             .norm(dim=1) for members in rows(task.model, ["2.weight"])]  # fmt: skip
    return int(sum((n == 0).sum() for n in norms))


AVERAGES = {"none": None, "ema": functools.partial(EMA, 0.9), "polynomial": Polynomial}
BASES = {
    "sgd": SGD,
    "schedule_free": functools.partial(ScheduleFreeAdamW, lr=0.02),
    "prodigy": functools.partial(Prodigy, d0=1e-3),
    "dog": functools.partial(DoG, reps_rel=1e-3),
}


@pytest.mark.parametrize("project_at", [0.5, None])
@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("base", BASES)
def test_as_many_groups_are_zero_when_evaluated_as_in_training(
    base: str, average: str, project_at: float | None
) -> None:
    wrapper = functools.partial(WGSEF, keep=0.5, strength=0.5, project_at=project_at)
    algorithm, task = trained(optimizer=BASES[base], wrapper=wrapper, average=AVERAGES[average])
    zero, before = zero_groups(task), weights_of(task)
    algorithm.enter_eval(task)
    assert algorithm.broken_promise(task) is None
    assert zero_groups(task) >= zero
    if project_at is not None:
        assert zero_groups(task) == 3
    if average != "none":
        assert not torch.equal(weights_of(task), before)
    algorithm.exit_eval(task)
    torch.testing.assert_close(weights_of(task), before)


def weights_of(task: Task) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in task.params])


def test_a_promise_that_is_broken_is_named() -> None:
    algorithm, task = trained(optimizer=SGD, wrapper=functools.partial(WGSEF, **LATE))
    algorithm.enter_eval(task)
    with torch.no_grad():
        torch._foreach_add_(task.params, 1.0)
    assert algorithm.broken_promise(task) == "optimizer: groups that are 0 in training are evaluated"


@pytest.mark.parametrize("order", [("mechanic", "wgsef"), ("wgsef", "mechanic")])
def test_shrinkage_accumulates_under_mechanic_on_either_side(order: tuple[str, str]) -> None:
    def norm(strength: float) -> float:
        makes = {
            "mechanic": functools.partial(Mechanic, s_init=0.1),
            "wgsef": functools.partial(WGSEF, strength=strength, ramp=0.0, project_at=None),
        }
        _, task = trained(optimizer=SGD, wrapper={name: makes[name] for name in order})
        return float(task.params[2].detach().norm())

    assert norm(20.0) < 0.5 * norm(0.0)


@pytest.mark.parametrize("base", ["prodigy", "dog"])
def test_its_strength_follows_a_step_size_that_is_found(base: str) -> None:
    """By the same share of the weights as under SGD with an lr of what was found."""
    algorithm, task = trained(
        optimizer=BASES[base],
        wrapper=functools.partial(WGSEF, strength=1e-2, ramp=0.0, keep=0.25, project_at=None),
    )
    optimizer = algorithm.optimizer
    found = float(optimizer.step_size(optimizer.param_groups[0]))
    assert 0 < found < 0.5  # lr is 1
    before = task.params[2].detach().clone()
    optimizer.after_step(task)
    ratio = (task.params[2].detach().norm() / before.norm()).item()
    weakest = 1 / (1 + 1e-2 * found)
    assert ratio <= weakest + 1e-9
    assert ratio > 1 / (1 + 1e-2 * found * 4 * 4), "u is at least ¼ of a group that stays"


def test_compatible_says_why_not() -> None:
    reason = WGSEF.compatible(make_info(param_kind={"linear.weight": "head", "linear.bias": "bias"}))
    assert reason == "needs a hidden matrix behind the first layer, this model has none"
    assert WGSEF.compatible(words().info) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [("keep", 0.0), ("strength", -1), ("ramp", 1.5), ("project_at", -0.1), ("scope", "model")],
)
def test_refuses_bad_values_by_name(key: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"{key} must .*, got "):
        build_part("wrapper", part_config("wrapper", "wgsef", **{key: value}), SGD(quad().params()))

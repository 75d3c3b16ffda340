"""Quadratic and Extremes: numbers, literal trajectories, warm-up."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from algorithms.reweightings.extremes import Extremes
from algorithms.reweightings.quadratic import Quadratic
from runner.base.errors import UserError
from runner.contract.batch import Batch
from runner.contract.instantiate import build_part
from runner.contract.task import Task
from runner.parts.composed import Composed
from tests.problems import part_config
from tests.tasks import assert_no_sync, assert_resumes, binary, classification, follow, language

ELL = torch.tensor([1.0, 2.0, 3.0, 5.0], dtype=torch.float64)
SGD = functools.partial(torch.optim.SGD, lr=0.3)
PARTS: dict[str, tuple[Any, Callable[[float], float]]] = {
    "quadratic": (Quadratic, lambda h: 1 - h * h),
    "extremes": (Extremes, abs),
}
TASKS: dict[str, Callable[[], Task]] = {
    "mlp": classification,
    "one_logit": binary,
    "tokens": lambda: language(lambda: nn.Embedding(3, 3).double(), batch_size=3),
}


def weigh(part: Any, losses: Tensor) -> Tensor:
    return part(classification(), Batch(torch.zeros(len(losses)), torch.zeros(len(losses))), losses)


def literal(losses: list[float], r: float, score: Callable[[float], float]) -> list[float]:
    """Weights that sum to B, step by step."""
    low, high = min(losses), max(losses)
    h = [2 * v / max(high - low, 1e-6) - (high + low) / max(high - low, 1e-6) for v in losses]
    f = [score(v) for v in h]
    e = [math.exp((v - max(f)) / r) for v in f]
    return [len(losses) * v / sum(e) for v in e]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("quadratic", [0.146300, 0.309717, 0.397684, 0.146300]),
        ("extremes", [0.336201, 0.203916, 0.123681, 0.336201]),
    ],
)
def test_spec_weights(name: str, expected: list[float]) -> None:
    got = weigh(PARTS[name][0](1.0, warmup=0.0), ELL)
    assert (got / 4).tolist() == pytest.approx(expected, abs=1e-6)
    assert got.sum().item() == pytest.approx(4)


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("losses", [[2.5], [1e4 / 3] * 7, [0.1 * k for k in range(9)], [1e-9, 2e-9, 5e-9]])
def test_weights_sum_to_the_batch_size_and_equal_losses_weigh_one(name: str, losses: list[float]) -> None:
    part, score = PARTS[name]
    got = weigh(part(0.4, 0.0), torch.tensor(losses, dtype=torch.float64))
    assert got.tolist() == pytest.approx(literal(losses, 0.4, score), rel=1e-6)
    assert got.sum().item() == pytest.approx(len(losses))
    if len(set(losses)) == 1:
        assert got.tolist() == [1.0] * len(losses)


@pytest.mark.parametrize("problem", TASKS)
@pytest.mark.parametrize("name", PARTS)
def test_reference_trajectory(name: str, problem: str) -> None:
    part, score = PARTS[name]
    task, twin = TASKS[problem](), TASKS[problem]()
    params: list[Tensor] = list(twin.params)
    reweighting = functools.partial(part, r=0.4, warmup=0.0)
    for got in follow(Composed(SGD, reweighting=reweighting), task, 50):
        batch = twin.data.next()
        losses = twin.losses(batch)
        w = literal(losses.tolist(), 0.4, score)
        total = sum((w[i] * losses[i] for i in range(len(batch))), torch.zeros(())) / len(batch)
        with torch.no_grad():
            for p, slope in zip(params, torch.autograd.grad(total, params), strict=True):
                p.sub_(0.3 * slope)
        flat = torch.cat([p.detach().flatten() for p in params])
        torch.testing.assert_close(got, flat, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", PARTS)
def test_warm_up_is_plain_training(name: str) -> None:
    plain = follow(Composed(SGD), classification(), 12)
    warm = functools.partial(PARTS[name][0], warmup=0.1)
    got = follow(Composed(SGD, reweighting=warm), classification(), 12)
    steps = 9  # progress reads 8/800 … 72/800 while the batch drawn for steps 1 … 9 is counted
    torch.testing.assert_close(got[:steps], plain[:steps], rtol=1e-12, atol=1e-12)
    assert (got[-1] - plain[-1]).abs().max() > 1e-4


@pytest.mark.parametrize("name", PARTS)
def test_steps_do_not_wait_and_resume(name: str) -> None:
    part = functools.partial(PARTS[name][0], warmup=0.0)
    assert_no_sync(Composed(SGD, reweighting=part), classification())
    assert_resumes(lambda: Composed(SGD, reweighting=part), classification)


@pytest.mark.parametrize("name", PARTS)
def test_preset_and_bad_values(name: str) -> None:
    part = build_part("reweighting", part_config("reweighting", name))
    assert (part.r, part.warmup) == (0.4, 0.05)
    for key, bad in (("r", 0.0), ("warmup", 1.0), ("r", math.nan)):
        with pytest.raises(UserError, match=rf"{key} must .*, got {bad}"):
            build_part("reweighting", part_config("reweighting", name, **{key: bad}))

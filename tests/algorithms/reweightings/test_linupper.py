"""LinUpper: numbers, a literal trajectory, warm-up."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from algorithms.estimators.sam import SAM
from algorithms.reweightings._common import place
from algorithms.reweightings.linupper import LinUpper
from runner.contract.batch import Batch
from runner.contract.instantiate import build_part
from runner.contract.task import Task
from runner.parts.composed import Composed
from tests.problems import part_config
from tests.tasks import (
    CLASSES,
    FEATURES,
    assert_no_sync,
    assert_resumes,
    classification,
    follow,
    mlp,
    weights,
)

ELL = torch.tensor([1.0, 2.0, 3.0, 5.0], dtype=torch.float64)
SGD = functools.partial(torch.optim.SGD, lr=0.3)
NETWORKS = (
    lambda: nn.Linear(FEATURES, CLASSES),
    mlp,
    lambda: nn.Sequential(nn.Linear(FEATURES, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, CLASSES)),
)
NO_WARMUP = functools.partial(LinUpper, warmup=0.0)


def weigh(part: LinUpper, losses: torch.Tensor) -> torch.Tensor:
    task = classification()
    return part(task, Batch(torch.zeros(len(losses)), torch.zeros(len(losses))), losses)


def literal(losses: list[float], r: float) -> list[float]:
    """Weights that sum to B, step by step."""
    low, high = min(losses), max(losses)
    h = [2 * v / max(high - low, 1e-6) - (high + low) / max(high - low, 1e-6) for v in losses]
    f = [min(v + 1, 1) for v in h]
    e = [math.exp((v - max(f)) / r) for v in f]
    return [len(losses) * v / sum(e) for v in e]


@pytest.mark.parametrize(
    ("r", "expected"),
    [
        (1.0, [0.123681, 0.203916, 0.336201, 0.336201]),
        (0.4, [0.034656, 0.120960, 0.422192, 0.422192]),
        (100.0, [0.248440, 0.249686, 0.250937, 0.250937]),
    ],
)
def test_spec_weights(r: float, expected: list[float]) -> None:
    got = weigh(LinUpper(r, warmup=0.0), ELL)
    assert (got / 4).tolist() == pytest.approx(expected, abs=1e-6)
    assert got.sum().item() == pytest.approx(4)


def test_spec_places_in_the_range() -> None:
    assert place(ELL).tolist() == [-1, -0.5, 0, 1]
    pulled = torch.log(weigh(LinUpper(0.4, warmup=0.0), ELL)) * 0.4  # min(h + 1, 1) but for a constant
    assert (pulled - pulled[0]).tolist() == pytest.approx([0, 0.5, 1, 1])


def test_spec_weighted_loss() -> None:
    assert (weigh(LinUpper(0.4, 0.0), ELL) * ELL).mean().item() == pytest.approx(3.654113, abs=1e-6)


@pytest.mark.parametrize("losses", [[2.5], [1e4 / 3] * 7, [0.1 * k for k in range(9)], [1e-9, 2e-9, 5e-9]])
def test_weights_sum_to_the_batch_size_and_equal_losses_weigh_one(losses: list[float]) -> None:
    got = weigh(LinUpper(0.4, 0.0), torch.tensor(losses, dtype=torch.float64))
    assert got.tolist() == pytest.approx(literal(losses, 0.4), rel=1e-6)
    assert got.sum().item() == pytest.approx(len(losses))
    if len(set(losses)) == 1:
        assert got.tolist() == [1.0] * len(losses)


@pytest.mark.parametrize("network", NETWORKS)
def test_reference_trajectory(network: Callable[[], nn.Module]) -> None:
    def build() -> nn.Module:
        return network().double()

    task, stream, model = classification(build), classification(build).data, build()
    model.load_state_dict(task.model.state_dict())
    params = list(model.parameters())
    for got in follow(Composed(SGD, reweighting=NO_WARMUP), task, 50):
        batch = stream.next()
        losses = F.cross_entropy(model(batch.x), batch.y, reduction="none")
        w = literal(losses.tolist(), 0.4)
        total = sum(w[i] * losses[i] for i in range(len(batch))) / len(batch)
        assert isinstance(total, torch.Tensor)
        with torch.no_grad():
            for p, slope in zip(params, torch.autograd.grad(total, params), strict=True):
                p.sub_(0.3 * slope)
        torch.testing.assert_close(
            got, torch.cat([p.detach().flatten() for p in params]), rtol=1e-9, atol=1e-9
        )


def test_warm_up_is_plain_training() -> None:
    plain = follow(Composed(SGD), classification(), 12)
    warm = follow(Composed(SGD, reweighting=functools.partial(LinUpper, warmup=0.1)), classification(), 12)
    steps = 9  # progress reads 8/800 … 72/800 while the batch drawn for steps 1 … 9 is counted
    torch.testing.assert_close(warm[:steps], plain[:steps], rtol=1e-12, atol=1e-12)
    assert (warm[-1] - plain[-1]).abs().max() > 1e-4


def test_weights_are_computed_once_a_step_and_reused_by_sams_second_pass() -> None:
    seen: list[torch.Tensor] = []

    class Spy(LinUpper):
        def __call__(self, task: Task, batch: Batch, losses: torch.Tensor) -> torch.Tensor:
            seen.append(super().__call__(task, batch, losses))
            return seen[-1]

    task, model = classification(), mlp().double()
    model.load_state_dict(task.model.state_dict())
    algorithm = Composed(
        SGD, reweighting=functools.partial(Spy, warmup=0.0), estimator=functools.partial(SAM, 0.5)
    )
    batch = classification().data.next()
    follow(algorithm, task, 1)
    assert len(seen) == 1

    def gradient() -> list[torch.Tensor]:
        losses = F.cross_entropy(model(batch.x), batch.y, reduction="none")
        return list(torch.autograd.grad((seen[0] * losses).mean(), list(model.parameters())))

    first, before = gradient(), [p.detach().clone() for p in model.parameters()]
    norm = math.sqrt(sum(float((g**2).sum()) for g in first))
    with torch.no_grad():
        for p, g in zip(model.parameters(), first, strict=True):
            p.add_(0.5 * g / norm)
    expected = [w - 0.3 * g for w, g in zip(before, gradient(), strict=True)]
    torch.testing.assert_close(weights(task), expected)


def test_steps_do_not_wait_and_resume() -> None:
    assert_no_sync(Composed(SGD, reweighting=NO_WARMUP), classification())
    assert_resumes(lambda: Composed(SGD, reweighting=LinUpper), classification)


def test_preset_and_bad_values() -> None:
    part = build_part("reweighting", part_config("reweighting", "linupper"))
    assert (part.r, part.warmup) == (0.4, 0.05)
    with pytest.raises(ValueError, match="r must be above 0"):
        LinUpper(r=0.0)
    with pytest.raises(ValueError, match="warmup must lie in"):
        LinUpper(warmup=1.0)

"""Comp-sum losses: numbers, gradient by hand, literal trajectories, the ends of the family."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from algorithms.losses.comp_sum import CompSum
from runner.base.errors import UserError
from runner.contract.instantiate import build_part
from runner.parts.composed import Composed
from tests.algorithms.losses.literal import PROBLEMS, SGD, Y, Z, assert_follows
from tests.problems import part_config
from tests.tasks import assert_no_sync, classification


def literal(scores: Sequence[Tensor], y: int, tau: float) -> Tensor:
    u = sum((torch.exp(z - scores[y]) for k, z in enumerate(scores) if k != y), torch.zeros(()).double())
    return torch.log(1 + u) if tau == 1 else ((1 + u) ** (1 - tau) - 1) / (1 - tau)


@pytest.mark.parametrize(
    ("tau", "expected"),
    [
        (0.0, [0.408253, 0.684428, 22.939154]),
        (0.5, [0.373396, 0.595710, 7.785531]),
        (1.0, [0.342350, 0.521426, 3.175515]),
        (1.5, [0.314651, 0.458996, 1.591233]),
        (2.0, [0.289900, 0.406327, 0.958227]),
    ],
)
def test_spec_losses(tau: float, expected: list[float]) -> None:
    assert CompSum(tau)(Z, Y).tolist() == pytest.approx(expected, abs=1e-6)


def test_spec_means() -> None:
    means = {0.0: 8.010611, 0.5: 2.918212, 1.0: 1.346430, 1.5: 0.788294, 1.7: 0.671712, 2.0: 0.551485}
    for tau, mean in means.items():
        assert CompSum(tau)(Z, Y).mean().item() == pytest.approx(mean, abs=1e-6)


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("tau", [0.0, 0.5, 1.7])
def test_reference_trajectory(tau: float, problem: str) -> None:
    assert_follows(functools.partial(CompSum, tau), functools.partial(literal, tau=tau), problem)


@pytest.mark.parametrize("tau", [0.0, 0.3, 1.0, 1.7, 2.0])
def test_gradient_is_that_of_the_cross_entropy_times_a_power(tau: float) -> None:
    z = Z.clone().requires_grad_()
    CompSum(tau)(z, Y).sum().backward()
    p = torch.softmax(Z, 1)
    own = p.gather(1, Y[:, None])
    torch.testing.assert_close(z.grad, own ** (tau - 1) * (p - F.one_hot(Y, 4)))


def test_the_family_passes_through_the_cross_entropy() -> None:
    below, at, above = (CompSum(tau)(Z, Y) for tau in (1 - 2e-6, 1.0, 1 + 2e-6))
    torch.testing.assert_close((below + above) / 2, at, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(at, F.cross_entropy(Z, Y, reduction="none"))


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0])
def test_finite_however_wrong_and_however_right(tau: float) -> None:
    z = torch.tensor([[500.0, 0.0], [0.0, 500.0]], requires_grad=True)
    losses = CompSum(tau)(z, torch.tensor([0, 0]))
    losses.sum().backward()
    assert torch.isfinite(losses).all()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()
    assert losses[0] == 0
    if tau < 1:
        assert losses[1].item() == pytest.approx(math.expm1((1 - tau) * 30) / (1 - tau), rel=1e-5)


def test_steps_do_not_wait() -> None:
    assert_no_sync(Composed(SGD, loss=functools.partial(CompSum, 1.7)), classification())


def test_preset_and_bad_values() -> None:
    assert build_part("loss", part_config("loss", "comp_sum")).tau == 1.0
    for bad in (-0.1, math.nan):
        with pytest.raises(UserError, match=rf"tau must be at least 0, got {bad}"):
            build_part("loss", part_config("loss", "comp_sum", tau=bad))

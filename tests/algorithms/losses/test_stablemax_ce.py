"""StableMax: numbers, gradients, single precision, literal trajectories."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from algorithms.losses.stablemax_ce import StableMaxCE, log_s
from runner.contract.instantiate import build_part
from runner.parts.composed import Composed
from tests.algorithms.losses.literal import PROBLEMS, SGD, Y, Z, assert_follows
from tests.problems import part_config
from tests.tasks import assert_no_sync, classification


def literal(scores: Sequence[Tensor], y: int) -> Tensor:
    s = [z + 1 if z >= 0 else 1 / (1 - z) for z in scores]
    return -torch.log(s[y] / sum(s, torch.zeros(()).double()))


@pytest.mark.parametrize("double", [True, False])
def test_spec_losses(double: bool) -> None:
    losses = StableMaxCE(double)(Z, Y)
    assert losses.tolist() == pytest.approx([0.693147, 0.800966, 1.992430], abs=1e-6)
    assert losses.mean().item() == pytest.approx(1.162181, abs=1e-6)
    assert torch.exp(log_s(Z[0])).tolist() == pytest.approx([3, 0.5, 1.5, 1])


def test_spec_gradient() -> None:
    z = Z[:1].clone().requires_grad_()
    StableMaxCE()(z, Y[:1]).sum().backward()
    assert z.grad is not None
    assert z.grad[0].tolist() == pytest.approx([-0.166667, 0.041667, 0.166667, 0.166667], abs=1e-6)


def test_spec_three_classes() -> None:
    z = torch.tensor([[2.0, -1.0, 0.0]] * 3, dtype=torch.float64, requires_grad=True)
    losses = StableMaxCE()(z, torch.arange(3))
    assert torch.softmax(StableMaxCE().predict(z)[0], 0).tolist() == pytest.approx([2 / 3, 1 / 9, 2 / 9])
    assert losses.tolist() == pytest.approx([0.40546511, 2.19722458, 1.5040774], abs=1e-8)
    losses.sum().backward()
    assert z.grad is not None
    assert z.grad[0].tolist() == pytest.approx([-1 / 9, 1 / 18, 2 / 9])


def test_spec_no_collapse_where_softmax_says_exactly_zero() -> None:
    z = torch.tensor([[60.0, 0.0, 0.0, -40.0]], requires_grad=True)
    assert F.cross_entropy(z, Y[:1]).item() == 0.0
    for double in (True, False):
        loss = StableMaxCE(double)(z, Y[:1])
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(0.032648, abs=1e-6)
    loss.sum().backward()
    assert z.grad is not None
    assert (z.grad != 0).all()


@pytest.mark.parametrize("problem", PROBLEMS)
def test_reference_trajectory(problem: str) -> None:
    assert_follows(StableMaxCE, literal, problem)


def test_gradients_are_finite_at_the_poles_of_the_other_branch() -> None:
    z = torch.tensor([[1.0, -1.0, 0.0, -0.0, 1e30, -1e30]], requires_grad=True)
    StableMaxCE(float64=False)(z, torch.tensor([0])).sum().backward()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


def test_predictions_keep_the_order_and_have_the_loss() -> None:
    loss = StableMaxCE()
    torch.testing.assert_close(F.cross_entropy(loss.predict(Z), Y, reduction="none"), loss(Z, Y))
    assert torch.equal(loss.predict(Z).argsort(1), Z.argsort(1))
    assert Composed(SGD, loss=StableMaxCE).predict is not None


def test_steps_do_not_wait() -> None:
    assert_no_sync(Composed(SGD, loss=StableMaxCE), classification())


def test_preset() -> None:
    assert build_part("loss", part_config("loss", "stablemax_ce")).dtype == torch.float64

"""Spherical softmax: numbers, gradient by hand, what evaluations see, literal trajectories."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from algorithms.losses.spherical_softmax import SphericalSoftmax
from runner.base.errors import UserError
from runner.contract.instantiate import build_part
from runner.contract.kinds import KINDS
from runner.parts.composed import Composed
from tests.algorithms.losses.literal import PROBLEMS, SGD, Y, Z, assert_follows
from tests.problems import part_config
from tests.tasks import assert_no_sync, classification, make_info


def literal(scores: Sequence[Tensor], y: int, eps: float) -> Tensor:
    s = [z**2 + eps for z in scores]
    return -torch.log(s[y] / sum(s, torch.zeros(()).double()))


def test_spec_losses() -> None:
    losses = SphericalSoftmax(1e-3)(Z, Y)
    assert losses.tolist() == pytest.approx([0.272445, 0.061591, 9.547098], abs=1e-6)
    assert losses.mean().item() == pytest.approx(3.293712, abs=1e-6)


@pytest.mark.parametrize("problem", [name for name in PROBLEMS if name != "one_logit"])
@pytest.mark.parametrize("eps", [0.05, 1.0])
def test_reference_trajectory(eps: float, problem: str) -> None:
    assert_follows(functools.partial(SphericalSoftmax, eps), functools.partial(literal, eps=eps), problem)


def test_gradient_by_hand_and_even_in_the_logits() -> None:
    loss = SphericalSoftmax()
    z = Z.clone().requires_grad_()
    loss(z, Y).sum().backward()
    squares = Z**2 + 1e-3
    own = F.one_hot(Y, 4) / squares.gather(1, Y[:, None])
    torch.testing.assert_close(z.grad, 2 * Z * (1 / squares.sum(1, keepdim=True) - own))
    assert torch.equal(loss(-Z, Y), loss(Z, Y))


def test_evaluations_see_the_likeliest_class_not_the_largest_logit() -> None:
    predict = Composed(SGD, loss=SphericalSoftmax).predict
    assert predict is not None
    z = torch.tensor([[1.0, -6.0, 0.0]])
    assert KINDS["multiclass"].predict(z, predict).argmax(1).item() == 1
    torch.testing.assert_close(
        F.cross_entropy(predict(Z), Y, reduction="none"), SphericalSoftmax()(Z, Y)
    )  # fmt: skip


def test_one_logit_is_refused_with_a_reason() -> None:
    assert "never the smaller" in str(SphericalSoftmax().compatible(make_info("binary")))
    assert SphericalSoftmax().compatible(make_info("multiclass")) is None


def test_steps_do_not_wait() -> None:
    assert_no_sync(Composed(SGD, loss=SphericalSoftmax), classification())


def test_preset_and_bad_values() -> None:
    assert build_part("loss", part_config("loss", "spherical_softmax")).eps == 1e-3
    for bad in (0.0, math.nan):
        with pytest.raises(UserError, match=rf"eps must be above 0, got {bad}"):
            build_part("loss", part_config("loss", "spherical_softmax", eps=bad))

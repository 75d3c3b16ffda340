"""Z-loss: numbers, gradient by hand, invariance, literal trajectories."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from algorithms.losses.z_loss import ZLoss
from runner.base.errors import UserError
from runner.contract.instantiate import build_part
from runner.parts.composed import Composed
from tests.algorithms.losses.literal import PROBLEMS, SGD, Y, Z, assert_follows
from tests.problems import part_config
from tests.tasks import assert_no_sync, classification, make_info


def literal(scores: Sequence[Tensor], y: int, a: float, b: float) -> Tensor:
    count = len(scores)
    mean = sum(scores, torch.zeros(()).double()) / count
    square = sum((z * z for z in scores), torch.zeros(()).double()) / count
    score = (scores[y] - mean) / torch.sqrt(square - mean**2 + 1e-12)
    return torch.log(1 + torch.exp(a * (b - score))) / a


def test_spec_losses() -> None:
    assert ZLoss()(Z, Y).tolist() == pytest.approx([0.201211, 0.173371, 0.841407], abs=1e-6)
    assert ZLoss()(Z, Y).mean().item() == pytest.approx(0.405330, abs=1e-6)
    assert ZLoss(2.0, 1.0)(Z, Y).tolist() == pytest.approx([0.156332, 0.117458, 1.314772], abs=1e-6)
    assert ZLoss(2.0, 1.0)(Z, Y).mean().item() == pytest.approx(0.529521, abs=1e-6)
    assert ZLoss(0.1, 10.0)(Z, Y).mean().item() == pytest.approx(12.445925, abs=1e-6)


def test_spec_standardised_scores_and_invariance() -> None:
    # At a = 1 and b = 0 the loss is softplus(−ζ), so ζ = −log(exp(ℓ) − 1).
    score = -torch.log(torch.expm1(ZLoss()(Z, Y)))
    assert score.tolist() == pytest.approx([1.501111, 1.664385, -0.277350], abs=1e-6)
    torch.testing.assert_close(ZLoss()(3 * Z + 7, Y), ZLoss()(Z, Y))


@pytest.mark.parametrize("problem", [name for name in PROBLEMS if name != "one_logit"])
@pytest.mark.parametrize(("a", "b"), [(1.0, 0.0), (3.0, 1.0)])
def test_reference_trajectory(a: float, b: float, problem: str) -> None:
    assert_follows(functools.partial(ZLoss, a, b), functools.partial(literal, a=a, b=b), problem)


def test_gradient_by_hand_is_orthogonal_to_the_scores_and_to_ones() -> None:
    z = Z.clone().requires_grad_()
    ZLoss(2.0, 1.0)(z, Y).sum().backward()
    grad = z.grad
    assert grad is not None
    std = Z.std(1, unbiased=False, keepdim=True)
    normal = (Z - Z.mean(1, keepdim=True)) / std
    own = normal.gather(1, Y[:, None])
    expected = -torch.sigmoid(2 * (1 - own)) * (F.one_hot(Y, 4) - 1 / 4 - own * normal / 4) / std
    torch.testing.assert_close(grad, expected, rtol=1e-8, atol=1e-10)
    assert (grad * Z).sum(1).abs().max() < 1e-9
    assert grad.sum(1).abs().max() < 1e-12


def test_equal_scores_have_a_finite_gradient() -> None:
    z = torch.zeros(2, 5, requires_grad=True)
    loss = ZLoss()(z, torch.tensor([0, 4]))
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([math.log(2)] * 2)
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


def test_two_classes_are_refused_with_a_reason() -> None:
    assert "two classes" in str(ZLoss().compatible(make_info("binary", num_classes=2)))
    assert ZLoss().compatible(make_info("multiclass", num_classes=3)) is None
    assert ZLoss().compatible(make_info("lm", num_classes=256)) is None


def test_steps_do_not_wait() -> None:
    assert_no_sync(Composed(SGD, loss=ZLoss), classification())


def test_preset_and_bad_values() -> None:
    part = build_part("loss", part_config("loss", "z_loss"))
    assert (part.a, part.b) == (1.0, 0.0)
    for key, bad in (("a", 0.0), ("a", math.nan), ("b", math.inf), ("b", math.nan)):
        with pytest.raises(UserError, match=rf"{key} must be .*, got {bad}"):
            build_part("loss", part_config("loss", "z_loss", **{key: bad}))

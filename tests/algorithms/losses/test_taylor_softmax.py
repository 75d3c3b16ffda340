"""Taylor softmax: numbers, gradient by hand, what evaluations see, literal trajectories."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from algorithms.losses.taylor_softmax import TaylorSoftmax, numerator
from runner.contract.instantiate import build_part
from runner.contract.kinds import KINDS
from runner.parts.composed import Composed
from tests.algorithms.losses.literal import PROBLEMS, SGD, Y, Z, assert_follows
from tests.problems import part_config
from tests.tasks import assert_no_sync, classification


def literal(scores: Sequence[Tensor], y: int) -> Tensor:
    t = [1 + z + z**2 / 2 for z in scores]
    return -torch.log(t[y] / sum(t, torch.zeros(()).double()))


def test_spec_losses() -> None:
    losses = TaylorSoftmax()(Z, Y)
    assert losses.tolist() == pytest.approx([0.485508, 0.613507, 2.564949], abs=1e-6)
    assert losses.mean().item() == pytest.approx(1.221321, abs=1e-6)


def test_spec_probabilities() -> None:
    q = torch.softmax(TaylorSoftmax().predict(Z), 1)
    assert q[0].tolist() == pytest.approx([0.615385, 0.061538, 0.2, 0.123077], abs=1e-6)
    torch.testing.assert_close(-torch.log(q[torch.arange(3), Y]), TaylorSoftmax()(Z, Y))


@pytest.mark.parametrize("problem", PROBLEMS)
def test_reference_trajectory(problem: str) -> None:
    assert_follows(TaylorSoftmax, literal, problem)


def test_gradient_by_hand() -> None:
    z = Z.clone().requires_grad_()
    TaylorSoftmax()(z, Y).sum().backward()
    t = numerator(Z)
    own = F.one_hot(Y, 4) / t.gather(1, Y[:, None])
    torch.testing.assert_close(z.grad, (1 + Z) * (1 / t.sum(1, keepdim=True) - own))


def test_evaluations_see_the_likeliest_class_not_the_largest_logit() -> None:
    z = torch.tensor([[1.0, -6.0, 0.0]])
    predict = Composed(SGD, loss=TaylorSoftmax).predict
    assert predict is not None
    assert KINDS["multiclass"].predict(z, predict).argmax(1).item() == 1
    # A logit of −2 is as good as one of 0: the probability of the second class is one half.
    pair = KINDS["binary"].predict(torch.tensor([-2.0, 0.0, 3.0]), predict)
    assert torch.sigmoid(pair).tolist() == pytest.approx([0.5, 0.5, 8.5 / 9.5])


def test_steps_do_not_wait() -> None:
    assert_no_sync(Composed(SGD, loss=TaylorSoftmax), classification())


def test_preset() -> None:
    assert isinstance(build_part("loss", part_config("loss", "taylor_softmax")), TaylorSoftmax)

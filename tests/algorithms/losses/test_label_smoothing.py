"""Label smoothing: numbers, gradient by hand, all three kinds of task."""

from __future__ import annotations

import functools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from algorithms.losses.label_smoothing import LabelSmoothing
from runner.contract.batch import Batch
from runner.contract.instantiate import build_part
from runner.parts.composed import Composed
from tests.problems import part_config
from tests.tasks import assert_no_sync, binary, classification, follow, language

Z = torch.tensor([[2, -1, 0.5, 0], [0.1, 0.2, -0.3, 1.5], [-2, 0, 1, 3]], dtype=torch.float64)
Y = torch.tensor([0, 3, 1])
SGD = functools.partial(torch.optim.SGD, lr=0.3)


def literal(z: list[float], y: int, eps: float) -> float:
    norm = math.log(sum(math.exp(v) for v in z))
    target = [(1 - eps) * (k == y) + eps / len(z) for k in range(len(z))]
    return -sum(q * (v - norm) for q, v in zip(target, z, strict=True))


def test_spec_mean_on_the_check_tensors() -> None:
    assert LabelSmoothing(0.1)(Z, Y).mean().item() == pytest.approx(1.421430, abs=1e-6)
    assert LabelSmoothing(0.0)(Z, Y).tolist() == pytest.approx([0.342350, 0.521426, 3.175515], abs=1e-6)


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.7])
def test_reference_per_row(eps: float) -> None:
    losses = LabelSmoothing(eps)(Z, Y)
    assert losses.shape == (3,)
    assert losses.tolist() == pytest.approx(
        [literal(z, y, eps) for z, y in zip(Z.tolist(), Y.tolist(), strict=True)]
    )


def test_reference_trajectory_with_the_gradient_by_hand() -> None:
    task = classification(lambda: nn.Linear(5, 3).double())
    weight, bias = (p.detach().clone() for p in task.params)
    stream = classification(lambda: nn.Linear(5, 3).double()).data
    got = follow(Composed(SGD, loss=LabelSmoothing), task, 50)
    for row in got:
        batch = stream.next()
        target = 0.9 * F.one_hot(batch.y, 3).double() + 0.1 / 3
        slope = (torch.softmax(batch.x @ weight.T + bias, 1) - target) / len(batch)
        weight, bias = weight - 0.3 * slope.T @ batch.x, bias - 0.3 * slope.sum(0)
        # Loss parts see float32 logits.
        torch.testing.assert_close(row, torch.cat([weight.flatten(), bias]), rtol=1e-5, atol=1e-6)


def test_one_logit_is_the_second_of_two() -> None:
    task = binary()
    task.loss = LabelSmoothing(0.2)
    batch = task.data.next()
    s = task.outputs(batch).tolist()
    expected = [literal([0.0, v], int(y), 0.2) for v, y in zip(s, batch.y.tolist(), strict=True)]
    assert task.losses(batch).tolist() == pytest.approx(expected, rel=1e-5)


def test_a_language_models_rows_are_means_over_tokens() -> None:
    task = language(lambda: nn.Embedding(3, 3))
    task.loss = LabelSmoothing(0.2)
    batch = task.data.next()
    z = task.outputs(batch).tolist()
    expected = [
        sum(literal(z[i][t], batch.y[i, t].item(), 0.2) for t in range(4)) / 4 for i in range(len(batch))
    ]
    assert task.losses(batch).tolist() == pytest.approx(expected, rel=1e-5)
    assert task.token_losses(Batch(batch.x, batch.y)).shape == (8, 4)


def test_steps_do_not_wait() -> None:
    assert_no_sync(Composed(SGD, loss=LabelSmoothing), classification())


def test_preset_and_bad_values() -> None:
    assert build_part("loss", part_config("loss", "label_smoothing")).smoothing == 0.1
    for bad in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match="smoothing must lie in"):
            LabelSmoothing(bad)

"""AnyLoss: numbers, a loop over rows, batches of one class."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from algorithms.objectives.anyloss import AnyLoss
from runner.contract.batch import Batch
from runner.contract.instantiate import build_part
from runner.contract.task import Task
from runner.parts.composed import Composed
from tests.problems import part_config
from tests.tasks import NoSync, assert_no_sync, binary, follow, make_info, make_task

P = [0.9, 0.6, 0.55, 0.4, 0.2, 0.05]
T = [1.0, 1.0, 0.0, 1.0, 0.0, 0.0]
SGD = functools.partial(torch.optim.SGD, lr=0.5)
SPEC = [
    (10, {"measure": "accuracy"}, 0.283143),
    (10, {"measure": "f_beta"}, 0.299999),
    (10, {"measure": "f_beta", "beta": 2.0}, 0.324139),
    (10, {"measure": "gmean"}, 0.285348),
    (10, {"measure": "gmean", "gmean_sqrt": False}, 0.489273),
    (10, {"measure": "balanced"}, 0.283143),
    (73, {"measure": "accuracy"}, 0.329111),
    (73, {"measure": "f_beta"}, 0.330507),
    (73, {"measure": "f_beta", "beta": 2.0}, 0.332206),
    (73, {"measure": "gmean"}, 0.329125),
    (73, {"measure": "gmean", "gmean_sqrt": False}, 0.549926),
    (73, {"measure": "balanced"}, 0.329111),
]


def logits_task(logits: list[float], targets: list[float]) -> tuple[Task, Batch, Tensor]:
    """A task whose model hands its parameter out as logits, and the batch of all rows."""

    class Given(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.s = torch.nn.Parameter(torch.tensor(logits, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return self.s * 1

    x, y = torch.zeros(len(logits), 1), torch.tensor(targets, dtype=torch.float64)
    task = make_task(Given, x, y, "binary", batch_size=len(logits))
    return task, Batch(x, y), task.params[0]


def literal(
    s: list[Tensor], t: list[float], steep: float, measure: str, beta: float = 1, root: bool = True
) -> Any:
    """The definition, row by row, with the false counts written out."""
    tp = fn = fp = tn = torch.zeros((), dtype=torch.float64)
    for score, target in zip(s, t, strict=True):
        p = 1 / (1 + torch.exp(-score))
        a = 1 / (1 + torch.exp(-steep * (p - 0.5)))
        if target == 1:
            tp, fn = tp + a, fn + 1 - a
        else:
            fp, tn = fp + a, tn + 1 - a
    p, n = sum(t), len(t) - sum(t)
    if measure == "accuracy":
        return 1 - (tp + tn) / (tp + fn + fp + tn)
    if measure == "f_beta":
        precision, recall = tp / (tp + fp), tp / (tp + fn)
        return 1 - (1 + beta**2) * precision * recall / (beta**2 * precision + recall)
    if measure == "gmean":
        return 1 - (tp / p * tn / n) ** (0.5 if root else 1)
    return 1 - (tp / p + tn / n) / 2


@pytest.mark.parametrize(("steep", "options", "expected"), SPEC)
def test_spec_losses(steep: int, options: dict[str, Any], expected: float) -> None:
    task, batch, _ = logits_task([math.log(p / (1 - p)) for p in P], T)
    assert AnyLoss(L=steep, eps=0.0, **options)(task, batch).item() == pytest.approx(expected, abs=1e-6)
    assert AnyLoss(L=steep, **options)(task, batch).item() == pytest.approx(expected, abs=1e-5)


def test_spec_predictions_pushed_apart() -> None:
    task, batch, _ = logits_task([math.log(p / (1 - p)) for p in P], T)
    loss, pushed = AnyLoss(L=10), []
    loss.measure = lambda a, t: pushed.append(a.tolist()) or a.mean()
    loss(task, batch)
    expected = [0.982014, 0.731059, 0.622459, 0.268941, 0.047426, 0.010987]
    assert pushed[0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("measure", ["accuracy", "f_beta", "gmean", "balanced"])
def test_reference_trajectory(measure: str) -> None:
    task, stream = binary(batch_size=12), binary(batch_size=12).data  # both classes in every batch
    weight, bias = (p.detach().clone() for p in task.params)
    algorithm = Composed(SGD, objective=functools.partial(AnyLoss, measure, eps=0.0))
    for got in follow(algorithm, task, 50):
        batch = stream.next()
        free = [weight.clone().requires_grad_(), bias.clone().requires_grad_()]
        scores = [(free[0][0] * x).sum() + free[1][0] for x in batch.x]
        slope = torch.autograd.grad(literal(scores, batch.y.tolist(), 10, measure), free)
        weight, bias = weight - 0.5 * slope[0], bias - 0.5 * slope[1]
        torch.testing.assert_close(got, torch.cat([weight.flatten(), bias]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("measure", ["accuracy", "f_beta", "gmean", "balanced"])
@pytest.mark.parametrize("target", [0.0, 1.0])
@pytest.mark.parametrize("eps", [0.0, 1e-5])
def test_a_batch_of_one_class_is_cross_entropy(measure: str, target: float, eps: float) -> None:
    task, batch, s = logits_task([0.3, -30.0, 1.7], [target] * 3)
    with NoSync():
        loss = AnyLoss(measure, eps=eps)(task, batch)
        loss.backward()
    expected = F.binary_cross_entropy_with_logits(s.detach(), batch.y)
    assert loss.item() == pytest.approx(expected.item())
    torch.testing.assert_close(s.grad, (torch.sigmoid(s.detach()) - target) / 3)


@pytest.mark.parametrize("measure", ["accuracy", "f_beta", "gmean", "balanced"])
def test_gradients_stay_finite_where_all_is_saturated_and_wrong(measure: str) -> None:
    task, batch, s = logits_task([-800.0, 800.0], [1.0, 0.0])
    AnyLoss(measure, L=1000)(task, batch).backward()
    assert s.grad is not None
    assert torch.isfinite(s.grad).all()


def test_default_trains_where_all_scores_start_at_zero() -> None:
    task = binary()
    with torch.no_grad():
        for p in task.params:
            p.zero_()
    losses = []
    algorithm = Composed(SGD, objective=AnyLoss)
    algorithm.setup(task)
    losses = [algorithm.step(task).item() for _ in range(60)]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_needs_a_binary_task_and_no_weights() -> None:
    algorithm = Composed(SGD, objective=AnyLoss)
    assert algorithm.compatible(make_info("binary")) is None
    assert "binary" in str(algorithm.compatible(make_info("multiclass")))
    weighted = Composed(SGD, objective=AnyLoss, reweighting=lambda: lambda task, batch, losses: losses)
    assert "batch-level" in str(weighted.compatible(make_info("binary")))


def test_steps_do_not_wait_and_cost_one_pass() -> None:
    task = binary()
    assert_no_sync(Composed(SGD, objective=AnyLoss), task)
    assert (task.cost.forward, task.cost.backward) == (task.cost.drawn, task.cost.drawn)


def test_preset_and_bad_values() -> None:
    part = build_part("objective", part_config("objective", "anyloss"))
    assert (part.L, part.beta, part.eps, part.gmean_sqrt) == (10.0, 1.0, 1e-5, True)
    for bad, message in (
        ({"measure": "auc"}, "measure must be one of"), ({"L": 0.0}, "L must be above 0"),
        ({"beta": -1.0}, "beta must be above 0"), ({"eps": -1.0}, "eps must be at least 0"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            AnyLoss(**bad)

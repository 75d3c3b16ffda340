"""The fourth kind of task: squared errors of numbers, and no part that needs classes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from runner.compose.config import compose
from runner.contract.algorithm import Algorithm
from runner.contract.instantiate import build_part
from runner.contract.kinds import KINDS
from runner.contract.task import Task
from runner.train.warmup import warm_up
from tests.tasks import FEATURES, ROWS, OneLogit, make_info, make_task, normal

NEEDS_CLASSES = (
    "accelat", "anyloss", "mesa", "mw_loss", "normalized_lr_gd", "quantized_distillation", "saf", "trades",
    "useful_upsample", "z_loss",
)  # fmt: skip
NUMBERS = make_info("regression", num_classes=0)


def regression() -> Task:
    """24 random rows of 5 features and a number each; a linear model."""
    x = normal(0, ROWS, FEATURES)
    return make_task(lambda: OneLogit().double(), x, x.sum(1) + normal(1, ROWS), "regression")


def by_hand(task: Task, batch: Any) -> list[float]:
    """Squared errors, in plain Python."""
    (matrix, bias), found = task.model.parameters(), []
    for x, y in zip(batch.x.tolist(), batch.y.tolist(), strict=True):
        guess = sum(w * v for w, v in zip(matrix[0].tolist(), x, strict=True)) + bias.item()
        found.append((guess - y) ** 2)
    return found


def test_losses_are_squared_errors_and_backward_takes_their_mean() -> None:
    task = regression()
    batch = task.data.next()
    wanted = torch.tensor(by_hand(task, batch), dtype=torch.float64)
    torch.testing.assert_close(task.losses(batch).detach(), wanted)
    torch.testing.assert_close(task.backward(batch), wanted.mean())
    matrix, bias = task.params
    errors = task.model(batch.x).detach() - batch.y
    torch.testing.assert_close(matrix.grad, (2 * errors[:, None] * batch.x).mean(0)[None])
    torch.testing.assert_close(bias.grad, 2 * errors.mean()[None])


def test_weights_count_row_by_row() -> None:
    task = regression()
    batch = task.data.next()
    batch.weights = torch.arange(8, dtype=torch.float64)
    wanted = sum(i * loss for i, loss in enumerate(by_hand(task, batch))) / 8
    assert task.backward(batch).item() == pytest.approx(wanted)


def test_per_sample_gradients_and_curvature_are_those_of_the_squared_error() -> None:
    task = regression()
    batch = task.data.next()
    errors = (task.model(batch.x) - batch.y).detach()
    torch.testing.assert_close(task.per_sample_grads(batch)["linear.bias"], 2 * errors[:, None])
    along = [torch.ones_like(p) for p in task.params]
    rows = torch.cat([batch.x, torch.ones(8, 1, dtype=torch.float64)], 1)
    torch.testing.assert_close(task.hvp(batch, along)[1], (2 * rows.sum(1)).mean()[None])


def test_single_precision_targets_meet_double_precision_outputs() -> None:
    kind, outputs, y = KINDS["regression"], normal(2, 6), normal(3, 6).float()
    assert kind.mean(outputs, y).dtype == kind.rows(outputs, y, None).dtype == torch.float64


def test_the_predict_of_a_loss_of_classes_does_not_apply() -> None:
    task = regression()
    with pytest.raises(TypeError, match="no logits to map"):
        task.kind.predict(torch.zeros(4), lambda logits: logits)


def test_noise_for_warm_up_is_normal_and_its_own() -> None:
    like = torch.zeros(4000)
    first, again = (
        KINDS["regression"].noise_targets(like, 0, torch.Generator().manual_seed(1)) for _ in range(2)
    )
    assert torch.equal(first, again) and first.dtype == like.dtype and first.shape == like.shape
    assert abs(first.mean().item()) < 0.06 and abs(first.std().item() - 1) < 0.06


def test_warm_up_leaves_the_targets_behind() -> None:
    task = regression()
    before = task.data.y.clone()
    warm_up(task, algorithm("adamw"), 2)
    assert task.data.y.is_floating_point() and not torch.equal(task.data.y, before[: len(task.data.y)])


def algorithm(name: str) -> Algorithm:
    return build_part("algorithm", compose([f"algorithm={name}"])["algorithm"], prefix="")


@pytest.mark.parametrize("name", NEEDS_CLASSES)
def test_what_needs_classes_says_so_in_a_line(name: str) -> None:
    reason = algorithm(name).compatible(NUMBERS)
    assert reason is not None and "\n" not in reason
    assert "predicts numbers, not classes" in reason or "needs a binary task" in reason


def test_a_loss_is_refused_at_composition() -> None:
    for name in ("label_smoothing", "l2_svm"):
        reason = algorithm(name).compatible(NUMBERS)
        assert reason is not None and reason.startswith("loss: ")
        assert reason.endswith("a regression task predicts numbers, not classes")


@pytest.mark.parametrize("name", ["sgd", "linupper", "sam", "bo_rep"])
def test_parts_for_any_loss_train(name: str) -> None:
    task, parts = regression(), algorithm(name)
    assert parts.compatible(NUMBERS) is None
    parts.setup(task)
    first = task.losses(task.data.all()).mean()
    for _ in range(40):
        parts.step(task)
        task.cost.steps += 1
    assert task.losses(task.data.all()).mean() < first

"""L2-SVM: numbers, gradients by hand, the penalty on the head, binary tasks."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from algorithms.losses.l2_svm import L2SVM
from runner.base.errors import UserError
from runner.contract.instantiate import build_part
from runner.contract.task import Task
from runner.parts.composed import Composed
from tests.problems import part_config
from tests.tasks import CLASSES, FEATURES, assert_no_sync, binary, classification, language, make_info, train

Z = torch.tensor([[2, -1, 0.5, 0], [0.1, 0.2, -0.3, 1.5], [-2, 0, 1, 3]], dtype=torch.float64)
Y = torch.tensor([0, 3, 1])
W = torch.tensor([[0.1, -0.2, 0.3, 0], [0.5, 0, -0.1, 0.2]], dtype=torch.float64)
SGD = functools.partial(torch.optim.SGD, lr=0.1)


def with_head(task: Task, name: str) -> Task:
    kinds = {key: "head" if key == name else "hidden" for key, _ in task.model.named_parameters()}
    task.info = dataclasses.replace(task.info, param_kind=kinds)
    return task


def linear() -> Task:
    return with_head(classification(lambda: nn.Linear(FEATURES, CLASSES).double()), "weight")


def logistic() -> Task:
    return with_head(binary(), "linear.weight")


def svm(task: Task, *args: Any) -> L2SVM:
    loss = L2SVM(*args)
    loss.setup(task)
    task.loss = loss
    return loss


def literal(z: list[float], y: int) -> list[float]:
    return [max(0.0, 1 - (1 if k == y else -1) * v) ** 2 for k, v in enumerate(z)]


def test_spec_hinge_on_the_check_tensors() -> None:
    assert L2SVM()(Z, Y).mean().item() == pytest.approx(2.2825)
    assert L2SVM(1.0, "tang")(Z, Y).mean().item() == pytest.approx(9.13)
    assert L2SVM(3.0)(Z, Y).mean().item() == pytest.approx(3 * 2.2825)


def test_spec_gradient_of_one_row() -> None:
    z = Z[:1].clone().requires_grad_()
    L2SVM()(z, Y[:1]).mean().backward()
    assert z.grad is not None
    assert z.grad.tolist() == [[0, 0, 0.75, 0.5]]


def test_spec_penalty_and_total() -> None:
    task = linear()
    element, tang = svm(task), svm(task, 1.0, "tang")
    assert element.penalty({"weight": W}).item() == pytest.approx(0.055, abs=1e-7)
    assert tang.penalty({"weight": W}).item() == pytest.approx(0.22, abs=1e-7)
    total = element(Z, Y).mean() + element.penalty({"weight": W})
    assert total.item() == pytest.approx(2.3375)


@pytest.mark.parametrize(("reduction", "scale"), [("element", 1 / 4), ("tang", 1.0)])
def test_reference_per_row(reduction: str, scale: float) -> None:
    expected = [scale * sum(literal(z, y)) for z, y in zip(Z.tolist(), Y.tolist(), strict=True)]
    assert L2SVM(1.0, reduction)(Z, Y).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("reduction", ["element", "tang"])
def test_reference_trajectory_with_the_gradient_by_hand(reduction: str) -> None:
    task, again = linear(), linear().data
    algorithm = Composed(SGD, loss=functools.partial(L2SVM, 2.0, reduction))
    algorithm.setup(task)
    weight, bias = (p.detach().clone() for p in task.params)
    per, pull = (CLASSES, 2 / weight.numel()) if reduction == "element" else (1, 1.0)
    for _ in range(50):
        train(algorithm, task, 1)
        batch = again.next()
        sign = 2.0 * torch.eye(CLASSES, dtype=torch.float64)[batch.y] - 1
        gap = (1 - sign * (batch.x @ weight.T + bias)).clamp(min=0)
        slope = 2.0 * -2 * sign * gap / (len(batch) * per)
        weight, bias = weight - 0.1 * (slope.T @ batch.x + pull * weight), bias - 0.1 * slope.sum(0)
        # Loss parts see float32 logits.
        got = [p.detach() for p in task.params]
        torch.testing.assert_close(got, [weight, bias], rtol=1e-5, atol=1e-6)


def test_the_penalty_is_in_every_gradient_a_task_gives() -> None:
    def steep(task: Task, C: float) -> Tensor:
        svm(task, C, "tang")
        return task.per_sample_grads(task.data.next())["weight"]

    # Whatever the rows say, with C near nothing the gradient is the weights themselves.
    task = linear()
    rows = steep(task, 1e-30)
    weight = task.params[0].detach()
    torch.testing.assert_close(rows, weight.expand_as(rows), rtol=1e-6, atol=1e-7)
    direction = [torch.ones_like(p) for p in task.params]
    curvature = task.hvp(task.data.next(), direction)
    torch.testing.assert_close(curvature[0], torch.ones_like(weight))
    assert curvature[1].abs().max() < 1e-20


def test_on_one_logit_it_is_the_ordinary_squared_hinge() -> None:
    task = logistic()
    svm(task, 3.0)
    batch = task.data.next()
    s, weight = task.outputs(batch).tolist(), task.params[0].detach()
    hinge = [max(0.0, 1 - (2 * t - 1) * v) ** 2 for v, t in zip(s, batch.y.tolist(), strict=True)]
    penalty = weight.square().mean().item()
    assert task.losses(batch).tolist() == pytest.approx([3 * h + penalty for h in hinge], rel=1e-5)


def test_it_fits_a_binary_and_a_multiclass_task() -> None:
    for task in (logistic(), linear()):
        algorithm = Composed(SGD, loss=L2SVM)
        algorithm.setup(task)
        losses = train(algorithm, task, 60)
        assert losses[-10:].mean() < 0.9 * losses[:10].mean()


def test_a_language_models_tokens_are_its_entries() -> None:
    task = with_head(language(lambda: nn.Embedding(3, 3).double()), "weight")
    svm(task)
    batch = task.data.next()
    z, penalty = task.outputs(batch).tolist(), task.params[0].detach().square().mean().item()
    expected = [
        sum(sum(literal(z[i][t], int(batch.y[i, t]))) / 3 for t in range(4)) / 4 + penalty
        for i in range(len(batch))
    ]
    assert task.losses(batch).tolist() == pytest.approx(expected, rel=1e-5)


def test_a_model_without_a_head_is_refused_with_a_reason() -> None:
    reason = L2SVM().compatible(make_info(param_kind={"tokens.weight": "embedding"}))
    assert reason is not None
    assert "head" in reason
    assert L2SVM().compatible(make_info(param_kind={"out.weight": "head"})) is None


def test_a_head_that_a_surgery_renamed_is_an_error_in_one_line() -> None:
    task = with_head(classification(), "2.weight")
    task.operate(lambda model, task: nn.Sequential(model))
    with pytest.raises(UserError, match=r"l2_svm: the model has no parameter called 2\.weight"):
        L2SVM().setup(task)


def test_steps_do_not_wait() -> None:
    for task in (linear(), logistic()):
        assert_no_sync(Composed(SGD, loss=L2SVM), task)


@pytest.mark.parametrize(("key", "value"), [("C", 0.0), ("C", math.nan), ("reduction", "sum")])
def test_refuses_bad_values_by_name(key: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"{key} must be .*, got {value}"):
        build_part("loss", part_config("loss", "l2_svm", **{key: value}))

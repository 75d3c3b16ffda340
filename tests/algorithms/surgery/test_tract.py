"""TrAct: numbers, function preserving, names and identities, convolutions."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from algorithms.surgery.tract import TrAct, TrActConv2d, TrActLinear, tract_gradient
from runner.base.errors import UserError
from runner.contract.instantiate import build_part
from runner.contract.precision import specialise
from runner.contract.task import Task
from runner.parts.composed import Composed
from tests.problems import part_config
from tests.tasks import (
    assert_no_sync,
    assert_resumes,
    classification,
    conv_net,
    follow,
    images,
    make_info,
    mlp,
    normal,
)

A = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, -1.0]], dtype=torch.float64)
G = torch.tensor([[1.0, 0.0], [-2.0, 1.0]], dtype=torch.float64)
SPEC = [[1.66666667, 0, 3.33333333], [-0.53763441, 0.32258065, -1.39784946]]
SGD = functools.partial(torch.optim.SGD, lr=0.1)


def literal(a: Tensor, g: Tensor, lam: float) -> Tensor:
    """Gᵀ a (aᵀa / b + λ I)⁻¹ with sums over rows and an explicit inverse."""
    b, n = a.shape
    gram = sum(torch.outer(row, row) for row in a) / b + lam * torch.eye(n, dtype=a.dtype)
    plain = sum(torch.outer(gi, ai) for gi, ai in zip(g, a, strict=True))
    return plain @ torch.linalg.inv(gram)


def patches(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """One row an output position: batch first, then down, then across."""
    (kh, kw), (sh, sw), (ph, pw) = layer.kernel_size, layer.stride, layer.padding
    x = F.pad(x, (pw, pw, ph, ph))
    rows = [
        image[:, i : i + kh, j : j + kw].flatten()
        for image in x
        for i in range(0, x.shape[2] - kh + 1, sh)
        for j in range(0, x.shape[3] - kw + 1, sw)
    ]
    return torch.stack(rows)


def operate(model: nn.Module, lam: float = 0.1) -> nn.Module:
    task = classification()
    return TrAct(lam)(model, task)


def test_spec_gradient() -> None:
    torch.testing.assert_close(
        tract_gradient(A, G, 0.1), torch.tensor(SPEC, dtype=torch.float64), rtol=0, atol=1e-7
    )


def test_spec_gradient_through_a_layer() -> None:
    layer = operate(nn.Linear(3, 2).double())
    plain = copy.deepcopy(layer)
    plain.__class__ = nn.Linear
    x, twin = A.clone().requires_grad_(), A.clone().requires_grad_()
    layer(x).backward(G)
    plain(twin).backward(G)
    assert layer.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad, torch.tensor(SPEC, dtype=torch.float64), rtol=0, atol=1e-7)
    assert plain.weight.grad.tolist() == [[1, 0, 2], [0, 1, -1]]
    assert torch.equal(layer.bias.grad, plain.bias.grad)
    assert torch.equal(x.grad, twin.grad)  # type: ignore[arg-type]


@pytest.mark.parametrize("b", [1, 3, 4, 5, 20])
def test_reference_both_forms(b: int) -> None:
    a, g = normal(1, b, 4), normal(2, b, 3)
    torch.testing.assert_close(tract_gradient(a, g, 0.05), literal(a, g, 0.05), rtol=1e-9, atol=1e-9)


def test_small_batches_keep_their_precision_in_float32() -> None:
    a, g = 100 * normal(1, 8, 64), normal(2, 8, 3)
    got = tract_gradient(a.float(), g.float(), 0.1).double()
    torch.testing.assert_close(got, literal(a, g, 0.1), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("batch_size", [3, 8])
def test_reference_trajectory(batch_size: int) -> None:
    task, stream, model = (
        classification(batch_size=batch_size),
        classification(batch_size=batch_size).data,
        mlp().double(),
    )
    model.load_state_dict(task.model.state_dict())
    for got in follow(Composed(SGD, surgery=TrAct), task, 50):
        batch = stream.next()
        hidden = model[0](batch.x)
        loss = F.cross_entropy(model[2](model[1](hidden)), batch.y)
        grads = list(torch.autograd.grad(loss, list(model.parameters()), retain_graph=True))
        grads[0] = literal(batch.x, torch.autograd.grad(loss, hidden)[0], 0.1)
        with torch.no_grad():
            for p, g in zip(model.parameters(), grads, strict=True):
                p.sub_(0.1 * g)
        expected = torch.cat([p.detach().flatten() for p in model.parameters()])
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 0), ((2, 3), (1, 2), (1, 0)), (6, 1, 0)]
)
def test_reference_convolution(kernel: Any, stride: Any, padding: Any) -> None:
    plain = nn.Conv2d(2, 3, kernel, stride, padding).double()
    layer = operate(copy.deepcopy(plain))
    x = normal(0, 4, 2, 6, 6).requires_grad_()
    outputs = plain(x)
    g = normal(1, *outputs.shape)
    expected_x, expected_bias = torch.autograd.grad(outputs, [x, plain.bias], g, retain_graph=True)
    got_x, got, got_bias = torch.autograd.grad(layer(x), [x, layer.weight, layer.bias], g)
    rows = g.permute(0, 2, 3, 1).reshape(-1, 3)
    expected = literal(patches(x.detach(), plain), rows, 0.1).view_as(plain.weight)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    assert torch.equal(got_x, expected_x)
    assert torch.equal(got_bias, expected_bias)


def test_reference_trajectory_of_a_convolution() -> None:
    task, stream, model = images(conv_net), images(conv_net).data, images(conv_net).model
    model.load_state_dict(task.model.state_dict())
    first, rest = model[0], model[1:]
    for got in follow(Composed(SGD, surgery=TrAct), task, 50):
        batch = stream.next()
        hidden = first(batch.x)
        loss = F.cross_entropy(rest(hidden.clone()), batch.y)  # the ReLU works in place
        *grads, slope = torch.autograd.grad(loss, [*model.parameters(), hidden])
        rows = slope.permute(0, 2, 3, 1).reshape(-1, first.out_channels)
        grads[0] = literal(patches(batch.x, first), rows, 0.1).view_as(first.weight)
        with torch.no_grad():
            for p, g in zip(model.parameters(), grads, strict=True):
                p.sub_(0.1 * g)
        expected = torch.cat([p.detach().flatten() for p in model.parameters()])
        torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    "options", [{"padding": "same"}, {"padding": "valid"}, {"padding": 1, "padding_mode": "circular"}]
)
def test_paddings_by_the_plain_gradient(options: dict[str, Any]) -> None:
    plain = nn.Conv2d(2, 3, 3, **options).double()
    layer = operate(copy.deepcopy(plain), lam=1e9)  # (… + λ I)⁻¹ → I / λ
    x = normal(0, 4, 2, 6, 6)
    (expected,) = torch.autograd.grad((plain(x) ** 2).sum(), plain.weight)
    (got,) = torch.autograd.grad((layer(x) ** 2).sum(), layer.weight)
    torch.testing.assert_close(1e9 * got, expected, rtol=1e-5, atol=1e-5)


def test_outputs_are_bit_identical_and_the_division_is_closed() -> None:
    assert Composed(SGD, surgery=TrAct).open_division is False
    for precision in ("fp32", "bf16"):
        plain = images(lambda p=precision: specialise(conv_net().float(), p), dtype=torch.float32)
        task = images(lambda p=precision: specialise(conv_net().float(), p), dtype=torch.float32)
        Composed(SGD, surgery=TrAct).setup(task)
        batch = plain.data.next()
        for training in (True, False):
            plain.model.train(training), task.model.train(training)
            assert torch.equal(task.model(batch.x), plain.model(batch.x))
    assert isinstance(task.model[0], TrActConv2d)


def test_names_identities_and_copies_survive() -> None:
    task = classification()
    names, params = list(task.model.state_dict()), list(task.params)
    Composed(SGD, surgery=TrAct).setup(task)
    assert list(task.model.state_dict()) == names
    assert all(a is b for a, b in zip(task.params, params, strict=True))
    twin = copy.deepcopy(task.model)
    assert isinstance(twin[0], TrActLinear)
    twin(task.data.next().x).sum().backward()
    assert twin[0].weight.grad is not None
    assert task.model[0].weight.grad is None
    task.reset_model()
    assert all(a is b for a, b in zip(task.params, params, strict=True))


def test_other_parameters_may_be_put_in() -> None:
    task = classification()
    Composed(SGD, surgery=TrAct).setup(task)
    batch = task.data.next()
    params = {name: (2 * p).detach().requires_grad_() for name, p in task.model.named_parameters()}
    task.losses(batch, params).mean().backward()
    assert params["0.weight"].grad is not None
    assert task.model[0].weight.grad is None
    torch.testing.assert_close(params["0.bias"].grad.shape, torch.Size([4]))  # type: ignore[union-attr]


def test_bf16_gradients_are_taken_in_fp32() -> None:
    def build() -> nn.Module:
        return specialise(mlp(), "bf16")

    task = classification(build, dtype=torch.float32)
    Composed(SGD, surgery=TrAct).setup(task)
    exact = classification(mlp, dtype=torch.float32)
    exact.model.load_state_dict(task.model.state_dict())
    exact.operate(TrAct())
    batch = exact.data.next()
    for t in (task, exact):
        t.backward(batch)
    got, expected = task.params[0].grad, exact.params[0].grad
    assert got is not None
    assert expected is not None
    assert got.dtype == torch.float32
    assert (got - expected).norm() < 0.02 * expected.norm()


def test_in_place_activations_and_second_derivatives_work() -> None:
    task = images(
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(48, 3)
        ).double()
    )
    Composed(SGD, surgery=TrAct).setup(task)
    batch = task.data.next()
    task.backward(batch)
    assert all(p.grad is not None for p in task.params)
    assert len(task.hvp(batch, [torch.ones_like(p) for p in task.params])) == 4


def test_only_the_first_layer_changes() -> None:
    task = images(conv_net)
    Composed(SGD, surgery=TrAct).setup(task)
    assert type(task.model[4]) is nn.Linear


class Table(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Conv2d(2, 4, 3, groups=2), "groups=2"),
        (nn.Conv2d(2, 4, 3, dilation=2), r"dilation=\(2, 2\)"),
        (nn.Sequential(Table()), "no Linear or Conv2d"),
        (nn.LazyLinear(3), "LazyLinear"),
    ],
)
def test_layers_it_cannot_do_are_named(model: nn.Module, message: str) -> None:
    with pytest.raises(UserError, match=message):
        operate(model)


def test_tokens_are_refused() -> None:
    algorithm = Composed(SGD, surgery=TrAct)
    assert algorithm.compatible(make_info()) is None
    assert "tokens" in str(algorithm.compatible(make_info("lm", input_range=None)))


def test_per_example_gradients_are_refused() -> None:
    def per_example() -> Any:
        def estimator(task: Task, batch: Any) -> Tensor:
            return task.backward(batch)

        estimator.per_example = True
        return estimator

    assert "whole batches" in str(Composed(SGD, surgery=TrAct, estimator=per_example).compatible(make_info()))


def test_steps_do_not_wait_and_resume() -> None:
    make = functools.partial(Composed, SGD, surgery=TrAct)
    assert_no_sync(make(), images(conv_net))
    assert_no_sync(make(), classification())
    assert_resumes(make, lambda: images(conv_net))


def test_preset_and_bad_values() -> None:
    assert build_part("surgery", part_config("surgery", "tract")).lam == 0.1
    with pytest.raises(ValueError, match="lam must be above 0"):
        TrAct(0.0)

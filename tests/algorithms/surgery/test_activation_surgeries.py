"""PolyReLU and MaxMin: numbers, literal trajectories, what copies and functional calls do."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from algorithms.surgery.maxmin import BjorckLinear, GroupSort, MaxMin, bjorck
from algorithms.surgery.polyrelu import PolyReLU, PolyReLUSurgery
from runner.base.errors import UserError
from runner.contract.instantiate import build_part
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
    language,
    make_info,
    train,
)

LR = 0.05
SGD = functools.partial(torch.optim.SGD, lr=LR)
PARTS: dict[str, Callable[[], Any]] = {
    "polyrelu": PolyReLUSurgery, "maxmin": MaxMin, "maxmin4": functools.partial(MaxMin, 4)
}  # fmt: skip


class Calls(nn.Module):
    """Activations as functions, as methods and as modules: 5-8-8-8-3."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.d(self.act(self.c(F.gelu(self.b(torch.relu(self.a(x)))))))


class Tokens(nn.Module):
    """A table and a network on each position."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.hidden, self.out = nn.Embedding(3, 4), nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.gelu(self.hidden(self.tokens(x))))


TASKS: dict[str, Callable[[], Task]] = {
    "calls": lambda: classification(lambda: Calls().double()),
    "images": lambda: images(conv_net),
    "tokens": lambda: language(lambda: Tokens().double(), batch_size=3),
}


def slow_poly(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Number by number."""
    out = []
    for v in x.flatten():
        p = v if v > 0 else v * 0
        out.append(weight[0] * p**3 + weight[1] * p**2 + weight[2] * p + bias[0])
    return torch.stack(out).view(x.shape)


def slow_sort(x: Tensor, group: int) -> Tensor:
    """Row by row, group by group."""
    rows = x.movedim(1, -1) if x.dim() == 4 else x
    out = []
    for row in rows.reshape(-1, rows.shape[-1]):
        values = list(row)
        for start in range(0, len(values), group):
            values[start : start + group] = sorted(values[start : start + group], key=lambda v: v.item())
        out.append(torch.stack(values))
    found = torch.stack(out).view(rows.shape)
    return found.movedim(-1, 1) if x.dim() == 4 else found


def slow_forward(model: nn.Module, act: list[Callable[[Tensor], Tensor]], x: Tensor) -> Tensor:
    """The networks above, written out with other activations."""
    m: Any = model
    if isinstance(model, Calls):
        return m.d(act[2](m.c(act[1](m.b(act[0](m.a(x)))))))
    if isinstance(model, Tokens):
        return m.out(act[0](m.hidden(m.tokens(x))))
    return m[4](m[3](act[0](m[1](m[0](x)))))


def test_spec_polyrelu() -> None:
    x = torch.tensor([-2, -0.5, 1, 3], dtype=torch.float64, requires_grad=True)
    y = PolyReLU().double()(x)
    assert y.tolist() == pytest.approx([0, 0, 1, 13])
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == pytest.approx([0, 0, 2, 34 / 3])  # (3 x² + 2 x + 1) / 3


def test_spec_polyrelu_index_0_is_the_cubes_and_the_slope_at_0_is_a_third() -> None:
    part = PolyReLU().double()
    with torch.no_grad():
        part.weight.copy_(torch.tensor([1.0, 0, 0]))
    assert part(torch.tensor([2.0]).double()).item() == 8
    x = torch.tensor([1e-9], dtype=torch.float64, requires_grad=True)
    PolyReLU().double()(x).backward()
    assert x.grad is not None
    assert x.grad.item() == pytest.approx(1 / 3)


def test_spec_groupsort() -> None:
    x = torch.tensor([[3.0, -1, 0, 2]])
    assert GroupSort(2)(x).tolist() == [[-1, 3, 0, 2]]
    pairs = GroupSort(2)(x).view(2, 2)
    assert torch.cat([pairs[:, 1], pairs[:, 0]]).tolist() == [3, 2, -1, 0]  # all maxima, then all minima
    assert GroupSort(4)(x).tolist() == [[-1, 0, 2, 3]]


def test_spec_bjorck() -> None:
    w = bjorck(torch.tensor([[1, 0.5], [-0.2, 0.8]], dtype=torch.float64))
    expected = [[0.932005, 0.362446], [-0.362446, 0.932005]]
    assert w.flatten().tolist() == pytest.approx([v for row in expected for v in row], abs=1e-6)


@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (5, 5)])
def test_linear_layers_are_orthonormal_with_bjorck(shape: tuple[int, int]) -> None:
    layer = BjorckLinear(*shape, bias=False).double()
    nn.init.orthogonal_(layer.weight, gain=0.7)
    eye = torch.eye(shape[0], dtype=torch.float64)
    w = layer(eye).detach()  # (in, out)
    if shape[0] > shape[1]:
        w = w.T
    torch.testing.assert_close(w @ w.T, torch.eye(min(shape)).double(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("problem", TASKS)
@pytest.mark.parametrize("name", PARTS)
def test_reference_trajectory(name: str, problem: str) -> None:
    task, twin = TASKS[problem](), TASKS[problem]()
    got = follow(Composed(SGD, surgery=PARTS[name]), task, 50)
    model = twin.model
    count = 3 if problem == "calls" else 1
    poly = [(torch.full((3,), 1 / 3), torch.zeros(1)) for _ in range(count)]
    learned = [t.double().requires_grad_() for pair in poly for t in pair] if name == "polyrelu" else []
    own = list(model.parameters())
    at = 2 if problem == "images" else len(own)  # a sequence has them in its first layer
    params = [*own[:at], *learned, *own[at:]]
    for row in got:
        batch = twin.data.next()
        if learned:
            act = [functools.partial(slow_poly, weight=learned[2 * k], bias=learned[2 * k + 1])
                   for k in range(count)]  # fmt: skip
        else:
            act = [functools.partial(slow_sort, group=4 if name == "maxmin4" else 2)] * count
        outputs = slow_forward(model, act, batch.x)  # type: ignore[arg-type]
        slopes = torch.autograd.grad(F.cross_entropy(outputs.flatten(0, -2), batch.y.flatten()), params)
        with torch.no_grad():
            for p, slope in zip(params, slopes, strict=True):
                p.sub_(LR * slope)
        flat = torch.cat([p.detach().flatten() for p in params])
        torch.testing.assert_close(row, flat, rtol=1e-6, atol=1e-7)  # the thirds are single precision's


@pytest.mark.parametrize("name", PARTS)
def test_copies_functional_calls_and_per_example_gradients_do_the_same(name: str) -> None:
    task = TASKS["calls"]()
    algorithm = Composed(SGD, surgery=PARTS[name])
    algorithm.setup(task)
    train(algorithm, task, 3)
    batch = task.data.next()
    outputs = task.outputs(batch).detach()
    assert (TASKS["calls"]().model(batch.x) - outputs).abs().max() > 0.01
    twin = copy.deepcopy(task.model)
    torch.testing.assert_close(twin(batch.x), outputs)
    torch.testing.assert_close(task.outputs(batch, dict(task.model.named_parameters())), outputs)
    rows = task.per_sample_grads(batch)
    for p in task.params:
        p.grad = None
    task.backward(batch)
    with torch.no_grad():
        for p in twin.parameters():
            p.zero_()
    torch.testing.assert_close(task.outputs(batch), outputs)  # a copy has activations of its own
    for key in ("a.weight", "d.bias"):
        own = dict(task.model.named_parameters())[key].grad
        assert own is not None
        torch.testing.assert_close(rows[key].mean(0), own)


@pytest.mark.parametrize("name", PARTS)
def test_names_and_identities_stay_and_new_weights_are_drawn_alike(name: str) -> None:
    task = TASKS["calls"]()
    before = dict(task.model.named_parameters())
    task.operate(PARTS[name]())
    after = dict(task.model.named_parameters())
    assert all(after[key] is value for key, value in before.items())
    assert all(key.startswith("polyrelu.") for key in after.keys() - before.keys())
    assert len(after) == len(before) + (6 if name == "polyrelu" else 0)
    task.reset_model()
    assert dict(task.model.named_parameters()).keys() == after.keys()
    assert all(module.training for module in task.model.modules())
    assert Composed(SGD, surgery=PARTS[name]).open_division


def test_looking_for_activations_moves_no_statistics_and_costs_the_row_that_it_passes() -> None:
    task = images(conv_net)
    before = {key: value.clone() for key, value in task.model.state_dict().items()}
    task.operate(MaxMin())
    assert all(torch.equal(value, before[key]) for key, value in task.model.state_dict().items())
    assert task.cost.forward == 1


def test_with_bjorck_the_network_is_1_lipschitz_and_trains() -> None:
    task = TASKS["calls"]()
    algorithm = Composed(SGD, surgery=functools.partial(MaxMin, bjorck=True))
    algorithm.setup(task)
    losses = train(algorithm, task, 200)
    assert losses[-20:].mean() < losses[:20].mean()
    slope = torch.autograd.functional.jacobian(task.model, task.data.x[:1])[0, :, 0]
    assert torch.linalg.matrix_norm(slope, 2) <= 1 + 1e-6
    assert not any(type(module) is nn.Linear for module in task.model.modules())


def test_models_without_activations_and_odd_groups_are_refused() -> None:
    for name in PARTS:
        assert "no activation" in str(PARTS[name]().compatible(make_info(model="linear")))
        assert PARTS[name]().compatible(make_info()) is None
        with pytest.raises(UserError, match="calls no activation"):
            classification(lambda: nn.Linear(5, 3).double()).operate(PARTS[name]())
    assert "cubes blow up" in str(PolyReLUSurgery().compatible(make_info(model="resnet")))
    with pytest.raises(UserError, match="4 features, which are no whole groups of 3"):
        classification().operate(MaxMin(3))


@pytest.mark.parametrize("name", PARTS)
def test_steps_do_not_wait_and_resume(name: str) -> None:
    assert_no_sync(Composed(SGD, surgery=PARTS[name]), TASKS["images"]())
    assert_resumes(lambda: Composed(SGD, surgery=PARTS[name]), TASKS["calls"])


def test_presets_and_bad_values() -> None:
    assert isinstance(build_part("surgery", part_config("surgery", "polyrelu")), PolyReLUSurgery)
    part = build_part("surgery", part_config("surgery", "maxmin"))
    assert (part.group, part.bjorck) == (2, False)
    for bad in (1, 2.5, math.nan):
        with pytest.raises(UserError, match=rf"group must be .*, got {bad}"):
            build_part("surgery", part_config("surgery", "maxmin", group=bad))

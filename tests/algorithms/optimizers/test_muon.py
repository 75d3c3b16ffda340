"""Muon: the spec's numbers, a literal trajectory, torch's own, and both kinds of groups."""

from __future__ import annotations

import copy
import functools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from algorithms.groups.muon_groups import MuonGroups
from algorithms.optimizers.muon import Muon, orthogonalise
from runner.base.errors import UserError
from runner.compose.config import compose
from runner.contract.instantiate import build_part
from runner.parts.composed import Composed
from tests.problems import (
    PROBLEMS,
    Problem,
    Update,
    assert_resumes,
    part_config,
    run_optimizer,
    run_reference,
)
from tests.tasks import NoSync, assert_no_sync, binary, classification, follow, normal

Matrix = list[list[float]]
A, B, C = 3.4445, -4.7750, 2.0315


def product(x: Matrix, y: Matrix) -> Matrix:
    return [
        [sum(a * b for a, b in zip(row, column, strict=True)) for column in zip(*y, strict=True)] for row in x
    ]


def transposed(x: Matrix) -> Matrix:
    return [list(column) for column in zip(*x, strict=True)]


def literal_newton_schulz(u: Matrix, steps: int = 5) -> Matrix:
    if len(u) > len(u[0]):
        return transposed(literal_newton_schulz(transposed(u), steps))
    norm = math.hypot(*(v for row in u for v in row)) + 1e-7
    x = [[v / norm for v in row] for row in u]
    for _ in range(steps):
        a = product(x, transposed(x))
        aa = product(a, a)
        poly = [[B * p + C * q for p, q in zip(*rows, strict=True)] for rows in zip(a, aa, strict=True)]
        shift = product(poly, x)
        x = [[A * p + q for p, q in zip(*rows, strict=True)] for rows in zip(x, shift, strict=True)]
    return x


def literal_muon(shapes: list[torch.Size], lr: float, beta: float, decay: float, adamw_lr: float) -> Update:
    """Matrices by Muon, vectors by AdamW (betas 0.9 and 0.95, eps 1e-10), one float at a time."""
    state: dict[tuple[int, int], tuple[float, float]] = {}

    def matrix(i: int, x: list[float], g: list[float]) -> None:
        rows, columns = shapes[i]
        u = []
        for j, slope in enumerate(g):
            m = beta * state.get((i, j), (0.0, 0.0))[0] + (1 - beta) * slope
            state[i, j] = m, 0.0
            u.append((1 - beta) * slope + beta * m)
        step = literal_newton_schulz([u[r * columns : (r + 1) * columns] for r in range(rows)])
        for j, value in enumerate(v for row in step for v in row):
            x[j] = x[j] * (1 - lr * decay) - lr * math.sqrt(max(1, rows / columns)) * value

    def vector(t: int, i: int, x: list[float], g: list[float]) -> None:
        for j, slope in enumerate(g):
            m, v = state.get((i, j), (0.0, 0.0))
            m, v = 0.9 * m + 0.1 * slope, 0.95 * v + 0.05 * slope**2
            state[i, j] = m, v
            root = math.sqrt(v / (1 - 0.95**t)) + 1e-10
            x[j] = x[j] * (1 - adamw_lr * decay) - adamw_lr * (m / (1 - 0.9**t)) / root

    def update(t: int, x: list[list[float]], g: list[list[float]]) -> None:
        for i in range(len(x)):
            if len(shapes[i]) == 2:
                matrix(i, x[i], g[i])
            else:
                vector(t, i, x[i], g[i])

    return update


def grouped(params: list[nn.Parameter]) -> list[dict[str, Any]]:
    groups = [
        {"params": [p for p in params if p.ndim > 1], "use_muon": True},
        {"params": [p for p in params if p.ndim < 2], "use_muon": False},
    ]
    return [group for group in groups if group["params"]]


def from_yaml(params: list[nn.Parameter]) -> Any:
    return build_part("optimizer", part_config("optimizer", "muon"), grouped(params))


def matrices(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    """Parameters with gradients."""
    params = [nn.Parameter(normal(i, *shape)) for i, shape in enumerate(shapes)]
    for i, p in enumerate(params):
        p.grad = normal(10 + i, *p.shape)
    return params


def test_spec_newton_schulz() -> None:
    g = torch.tensor([[3.0, 4.0], [0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    expected = [[0.42427711, 0.56570281], [-0.33973632, 0.39622794], [0.59440746, -0.33973632]]
    for matrix, value in ((g, expected), (g.T, transposed(expected))):
        got = orthogonalise(matrix.unsqueeze(0))[0]
        torch.testing.assert_close(got, torch.tensor(value, dtype=torch.float64), rtol=0, atol=1e-7)
        assert torch.linalg.svdvals(got).tolist() == pytest.approx([0.849, 0.721], abs=5e-4)
        rounded = orthogonalise(matrix.bfloat16().unsqueeze(0))[0].double()
        torch.testing.assert_close(rounded, got, rtol=0, atol=3e-2)


def test_a_stack_is_orthogonalised_matrix_by_matrix_whatever_their_scales() -> None:
    stack = normal(0, 3, 4, 7) * torch.tensor([1e-4, 1.0, 1e4], dtype=torch.float64).view(3, 1, 1)
    got = orthogonalise(stack)
    for matrix, one in zip(stack, got, strict=True):
        expected = torch.tensor(literal_newton_schulz(matrix.tolist()), dtype=torch.float64)
        torch.testing.assert_close(one, expected)
        values = torch.linalg.svdvals(one)
        assert 0.6 < values.min() <= values.max() < 1.25
    assert not orthogonalise(torch.zeros(1, 3, 2)).any()


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_reference_trajectory(problem: Problem) -> None:
    got = run_optimizer(lambda p: Muon(grouped(p), 0.03, 0.9, True, 5, 0.2, 0.01), 50, problem)
    shapes = [value.shape for value in problem.start]
    expected = run_reference(literal_muon(shapes, 0.03, 0.9, 0.2, 0.01), 50, problem)
    # Newton-Schulz steepens near-zero singular values about 480 times, and rounding with them.
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("nesterov", [True, False])
def test_agrees_with_torchs_muon(nesterov: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)  # torch's always iterates in bfloat16
    ours, theirs = (matrices((6, 4), (4, 6), (6, 4), (3, 3)) for _ in range(2))
    mine = Muon([{"params": ours, "use_muon": True}], 0.1, 0.9, nesterov, weight_decay=0.3)
    other = torch.optim.Muon(theirs, 0.1, 0.3, 0.9, nesterov)
    for _ in range(3):
        mine.step()
        other.step()
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
        for p, q in zip(ours, theirs, strict=True):
            p.grad = q.grad = torch.cos(3 * p.detach())


def test_convolutions_are_matrices_of_all_their_inputs() -> None:
    (kernel,), (flat,) = matrices((8, 2, 3, 3)), matrices((8, 18))
    assert kernel.grad is not None
    flat.data, flat.grad = kernel.detach().flatten(1).clone(), kernel.grad.flatten(1).clone()
    (tall,) = matrices((8, 1, 2, 2))
    start = tall.detach().clone()
    optimizer = Muon([{"params": [kernel, flat, tall], "use_muon": True}], lr=0.1)
    optimizer.step()
    torch.testing.assert_close(kernel.detach().flatten(1), flat.detach())
    values = torch.linalg.svdvals((tall.detach() - start).flatten(1)) / (0.1 * math.sqrt(8 / 4))
    assert 0.6 < values.min() <= values.max() < 1.25


def test_one_stack_or_many_make_the_same_steps() -> None:
    shapes = ((5, 3), (5, 3), (3, 5), (5, 3))
    together, apart = matrices(*shapes), matrices(*shapes)
    one = Muon([{"params": together, "use_muon": True}])
    many = Muon([{"params": [p], "use_muon": True} for p in apart])
    for _ in range(3):
        one.step()
        many.step()
    torch.testing.assert_close(together, apart, rtol=1e-9, atol=1e-12)


def test_without_hidden_matrices_it_is_adamw_bit_for_bit() -> None:
    def path(optimizer: Any, groups: Any) -> Tensor:
        return follow(Composed(optimizer, groups=groups), binary(), 30)

    muon = functools.partial(Muon, weight_decay=0.1)
    adamw = functools.partial(
        torch.optim.AdamW, lr=3e-3, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.1, fused=True
    )
    assert torch.equal(path(muon, MuonGroups), path(adamw, MuonGroups))


def test_a_schedule_scales_both_kinds_of_groups_from_their_own_base() -> None:
    task = classification()
    algorithm = Composed(
        functools.partial(Muon, lr=0.2, adamw_lr=0.01),
        groups=lambda: by_shape,
        schedule=lambda: lambda p: 0.5,
    )
    algorithm.setup(task)
    algorithm.step(task)
    assert [group["lr"] for group in algorithm.optimizer.param_groups] == [0.1, 0.005]


def by_shape(task: Any) -> list[dict[str, Any]]:
    return grouped(task.params)


def test_a_groups_own_values_go_first() -> None:
    a, b = (nn.Parameter(torch.ones(2)) for _ in range(2))
    groups = [{"params": [a], "use_muon": False, "lr": 0.5}, {"params": [b], "use_muon": False}]
    optimizer = Muon(groups, lr=0.1, adamw_lr=0.25)
    a.grad, b.grad = torch.ones(2), torch.ones(2)
    optimizer.step()
    assert (a[0].item(), b[0].item()) == pytest.approx((0.5, 0.75))


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_resumes_bit_for_bit(problem: Problem) -> None:
    assert_resumes(from_yaml, problem)


def test_steps_do_not_wait_and_leave_gradients_alone() -> None:
    params = matrices((4, 3), (3,))
    before = [copy.deepcopy(p.grad) for p in params]
    optimizer = from_yaml(params)
    with NoSync():
        optimizer.step()
        optimizer.step()
    assert all(torch.equal(p.grad, g) for p, g in zip(params, before, strict=True))  # type: ignore[arg-type]
    assert_no_sync(Composed(Muon, groups=lambda: by_shape), classification())


def test_skips_parameters_without_a_gradient_and_refuses_sparse_ones() -> None:
    for use_muon in (True, False):
        used, unused = matrices((2, 2), (2, 2))
        unused.grad = None
        Muon([{"params": [used, unused], "use_muon": use_muon}], weight_decay=0.5).step()
        assert torch.equal(unused.detach(), normal(1, 2, 2))
        assert not torch.equal(used.detach(), normal(0, 2, 2))
        table = nn.Embedding(4, 2, sparse=True)
        table(torch.tensor([1])).sum().backward()
        with pytest.raises(RuntimeError, match="sparse"):
            Muon([{"params": list(table.parameters()), "use_muon": use_muon}]).step()


def test_bfloat16_parameters_keep_their_type() -> None:
    params = [nn.Parameter(p.detach().bfloat16()) for p in matrices((4, 3), (3,))]
    optimizer = from_yaml(params)
    for _ in range(3):
        for p in params:
            p.grad = p.detach().clone()
        optimizer.step()
    assert all(p.dtype == torch.bfloat16 and p.isfinite().all() for p in params)


def test_groups_that_do_not_say_which_are_refused() -> None:
    p = nn.Parameter(torch.ones(2, 2))
    for groups in ([p], [{"params": [p]}], [{"params": [p], "use_muon": None}]):
        with pytest.raises(UserError, match="each group must say use_muon"):
            build_part("optimizer", part_config("optimizer", "muon"), groups)
    with pytest.raises(ValueError, match=r"use_muon must hold matrices, got shape \(3,\)"):
        Muon([{"params": [p, nn.Parameter(torch.ones(3))], "use_muon": True}])


@pytest.mark.parametrize(
    ("key", "value"),
    [("lr", -1), ("adamw_lr", math.nan), ("momentum", 1.0), ("betas", [0.9]), ("ns_steps", 0), ("eps", -1)],
)
def test_refuses_bad_values_by_name(key: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"{key} must .*, got "):
        build_part("optimizer", part_config("optimizer", "muon", **{key: value}), grouped(matrices((2, 2))))


def test_the_preset_brings_its_groups() -> None:
    algorithm = compose(["algorithm=muon"])["algorithm"]
    assert algorithm["groups"]["_target_"].endswith("MuonGroups")
    assert algorithm["optimizer"]["_target_"].endswith("Muon")
    assert algorithm["schedule"]["_target_"].endswith("Cosine")


def test_a_group_may_have_an_adamw_lr_of_its_own() -> None:
    p = nn.Parameter(torch.ones(2))
    assert Muon([{"params": [p], "use_muon": False, "adamw_lr": 0.5}]).param_groups[0]["lr"] == 0.5

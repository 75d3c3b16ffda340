"""GNS-Newton: the spec's iterates, a literal reference of every Hessian, rejections, costs, checkpoints."""

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

from algorithms.whole import gns_newton
from algorithms.whole.gns_newton import GNSNewton, exact_hessian, gauss_newton, solve
from runner.base.errors import UserError
from runner.contract.instantiate import build_part
from runner.contract.task import Task
from tests.problems import CONF
from tests.tasks import (
    CLASSES,
    FEATURES,
    assert_resumes,
    binary,
    classification,
    make_info,
    make_task,
    meters,
    normal,
    weights,
)

Matrix = list[list[float]]
Vector = list[float]
TASKS: dict[str, Callable[[], Task]] = {
    "one_logit": binary,
    "softmax": lambda: classification(lambda: nn.Linear(FEATURES, CLASSES).double()),
    "mlp": classification,
}


class Homogeneous(nn.Module):
    """aᵀθ without a bias, from θ = 0."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.theta


def four_rows() -> Task:
    x = torch.tensor([[1, 2], [-1, 1], [2, -1], [0.5, 0.5]], dtype=torch.float64)
    return make_task(Homogeneous, x, torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=torch.float64), "binary")


FIRST = [0.52291446, -0.04562804]
EXACT = [
    FIRST, [1.07247061, -0.08075051], [1.54023363, -0.18124059], [1.83549889, -0.29957262],
    [1.93543247, -0.34900917],
]  # fmt: skip
FISHER = [
    FIRST, [1.42444188, -0.20703422], [2.32133012, -0.57999382], [1.99178653, -0.30377293],
    [1.95947173, -0.39225584],
]  # fmt: skip


@pytest.mark.parametrize(
    ("hessian", "iterates", "gammas"),
    [
        ("exact", EXACT, [2, 4, 8, 16, 32]),
        ("ggn", EXACT, [2, 4, 8, 16, 32]),
        ("fisher", FISHER, [2, 4, 4, 1, 0.5]),
    ],
)
def test_spec_four_rows(hessian: str, iterates: Matrix, gammas: Vector) -> None:
    task, algorithm = four_rows(), GNSNewton(hessian=hessian)
    algorithm.setup(task)
    got, seen = [], []
    for _ in range(5):
        algorithm.step(task)
        got.append(task.params[0].tolist())
        seen.append(algorithm.gamma)
    close = functools.partial(torch.tensor, dtype=torch.float64)
    torch.testing.assert_close(close(got), close(iterates), rtol=0, atol=5.1e-9)
    assert seen == gammas


# -- a literal reference -----------------------------------------------------------------------------


def named(twin: Task, x: Tensor) -> dict[str, Tensor]:
    pieces = x.split([p.numel() for p in twin.params])
    names = [name for name, _ in twin.model.named_parameters()]
    return {k: v.view_as(p) for k, v, p in zip(names, pieces, twin.params, strict=True)}


def row_outputs(twin: Task, x: Tensor) -> Tensor:
    outputs = torch.func.functional_call(twin.model, named(twin, x), (twin.data.x,))
    return outputs.view(len(outputs), -1)


def row_losses(twin: Task, x: Tensor) -> Tensor:
    z, y = row_outputs(twin, x), twin.data.y
    if twin.info.task == "binary":
        return F.softplus(-(2 * y - 1) * z[:, 0])
    return torch.logsumexp(z, 1) - z[torch.arange(len(y)), y]


def slopes(values: Tensor, x: Tensor) -> Matrix:
    return [torch.autograd.grad(v, x, retain_graph=True)[0].tolist() for v in values]


def slow_gradient(twin: Task, x: Vector) -> tuple[float, Vector]:
    at = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    mean = row_losses(twin, at).mean()
    return mean.item(), torch.autograd.grad(mean, at)[0].tolist()


def slow_matrix(twin: Task, x: Vector, hessian: str) -> Matrix:
    size, n = len(x), twin.data.n
    at = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    total = [[0.0] * size for _ in x]
    if hessian == "exact":
        (first,) = torch.autograd.grad(row_losses(twin, at).mean(), at, create_graph=True)
        return slopes(first, at)
    if hessian == "fisher":
        for g in slopes(row_losses(twin, at), at):
            for i in range(size):
                for j in range(size):
                    total[i][j] += g[i] * g[j] / n
    if hessian == "ggn":
        for z in row_outputs(twin, at):
            p = [torch.sigmoid(z[0]).item()] if len(z) == 1 else torch.softmax(z, 0).tolist()
            jacobian = slopes(z, at)
            for a in range(len(p)):
                row = [
                    sum(p[a] * ((a == b) - p[b]) * jacobian[b][j] for b in range(len(p))) for j in range(size)
                ]
                for i in range(size):
                    for j in range(size):
                        total[i][j] += jacobian[a][i] * row[j] / n
    return total


def slow_solve(matrix: Matrix, shift: float, vector: Vector) -> Vector | None:
    """Cholesky, row by row; None at a pivot that is not positive."""
    n = len(vector)
    low = [[0.0] * n for _ in range(n)]
    for i in range(n):
        for j in range(i + 1):
            rest = matrix[i][j] + (shift if i == j else 0.0)
            rest -= sum(low[i][k] * low[j][k] for k in range(j))
            if i == j and not rest > 0:
                return None
            low[i][j] = math.sqrt(rest) if i == j else rest / low[j][j]
    half: Vector = []
    for i in range(n):
        half.append((vector[i] - sum(low[i][k] * half[k] for k in range(i))) / low[i][i])
    found = [0.0] * n
    for i in reversed(range(n)):
        found[i] = (half[i] - sum(low[k][i] * found[k] for k in range(i + 1, n))) / low[i][i]
    return found


def literal(twin: Task, hessian: str, gamma: float, steps: int) -> tuple[Matrix, Vector]:
    x = [v for p in twin.params for v in p.detach().flatten().tolist()]
    path, gammas, stuck = [], [], False
    for _ in range(steps):
        f, g = slow_gradient(twin, x)
        matrix = slow_matrix(twin, x, hessian)
        for _trial in range(0 if stuck else 40):
            shift = math.sqrt(sum(v * v for v in g)) / (gamma + 1e-8) + 1e-12
            move = slow_solve(matrix, shift, g)
            if move is not None:
                there = [a - b for a, b in zip(x, move, strict=True)]
                value, slope = slow_gradient(twin, there)
                if f - value >= sum(v * v for v in slope) / (8 * shift):
                    x, gamma = there, max(2 * gamma, 1e-9)
                    break
            gamma /= 2
        else:
            stuck = gamma < 1e-9
        path.append(list(x))
        gammas.append(gamma)
    return path, gammas


def follow_with_gammas(algorithm: GNSNewton, task: Task, steps: int) -> tuple[Tensor, Vector]:
    rows, gammas = [], []
    algorithm.setup(task)
    for _ in range(steps):
        algorithm.step(task)
        rows.append(torch.cat([p.detach().flatten() for p in task.params]))
        gammas.append(algorithm.gamma)
    return torch.stack(rows), gammas


# From a tiny γ 30 steps are all on the way, from 1 six are; behind them is the end, where rounding decides.
RUNS = [
    pytest.param(problem, gamma, steps, marks=pytest.mark.slow if problem == "mlp" and steps == 30 else ())
    for problem in TASKS
    for gamma, steps in ((1e-10, 30), (1.0, 6))
]


@pytest.mark.parametrize(("problem", "gamma", "steps"), RUNS)
@pytest.mark.parametrize("hessian", ["ggn", "exact", "fisher", "none"])
def test_reference(problem: str, hessian: str, gamma: float, steps: int) -> None:
    got, gammas = follow_with_gammas(GNSNewton(gamma, hessian), TASKS[problem](), steps)
    path, expected = literal(TASKS[problem](), hessian, gamma, steps)
    torch.testing.assert_close(got, torch.tensor(path, dtype=torch.float64), rtol=1e-6, atol=1e-7)
    assert gammas == expected


def test_gauss_newton_is_the_hessian_of_a_linear_model_and_chunks_make_no_difference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = TASKS["softmax"]()
    batch = task.data.all()
    exact, newton = exact_hessian(task, batch), gauss_newton(task, batch)
    torch.testing.assert_close(exact, newton, rtol=1e-12, atol=1e-12)
    monkeypatch.setattr(gns_newton, "COLUMNS", 5)
    torch.testing.assert_close(exact_hessian(task, batch), exact, rtol=1e-12, atol=1e-12)
    monkeypatch.setattr(gns_newton, "CHUNK", 7)
    parts = [four_steps(hessian) for hessian in ("exact", "ggn")]
    monkeypatch.setattr(gns_newton, "CHUNK", 24)
    for part in parts:
        torch.testing.assert_close(part, four_steps("exact"), rtol=1e-9, atol=1e-12)


def four_steps(hessian: str) -> Tensor:
    return follow_with_gammas(GNSNewton(hessian=hessian), TASKS["softmax"](), 4)[0]


def test_a_matrix_that_is_not_positive_definite_is_a_rejection_without_a_pass() -> None:
    matrix, vector = torch.diag(torch.tensor([2.0, -1.0])).double(), torch.ones(2).double()
    assert solve(matrix, 0.5, vector) is None
    found = solve(matrix, 3.0, vector)
    assert found is not None
    torch.testing.assert_close(found, torch.tensor([0.2, 0.5]).double())
    task, algorithm = classification(), GNSNewton(gamma=1e6, hessian="exact")  # λ far below the curvature
    algorithm.setup(task)
    algorithm.step(task)
    assert algorithm.trials > 1
    assert task.cost.forward < 24 * (1 + algorithm.trials)


def test_forty_rejections_leave_the_weights_and_end_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    task, algorithm = TASKS["softmax"](), GNSNewton()
    algorithm.setup(task)
    monkeypatch.setattr(GNSNewton, "_accepts", rejecting)
    before = weights(task)
    algorithm.step(task)
    assert all(torch.equal(p, q) for p, q in zip(task.params, before, strict=True))
    assert (algorithm.trials, algorithm.gamma) == (40, 2.0**-40)
    spent = meters(task)
    algorithm.step(task)  # which would try the same again
    assert meters(task) == (*spent[:3], spent[3] + 24)


def rejecting(_self: Any, task: Task, _batch: Any, candidate: Tensor, _regulariser: float) -> bool:
    gns_newton.put(task.params, candidate)
    return False


@pytest.mark.parametrize(
    ("hessian", "cost"),
    [
        ("none", (48, 48, 0)),
        ("fisher", (72, 72, 0)),
        ("ggn", (72, 48 + 3 * 24, 0)),
        ("exact", (48, 48, 18 * 24)),
    ],
)
def test_draws_the_rows_once_a_step_and_counts_every_pass(hessian: str, cost: tuple[int, int, int]) -> None:
    task, algorithm = TASKS["softmax"](), GNSNewton(hessian=hessian)
    algorithm.setup(task)
    loss = algorithm.step(task)
    assert algorithm.trials == 1
    assert meters(task) == (*cost, 24)
    assert (loss.shape, loss.requires_grad) == ((), False)
    algorithm.step(task)  # f and g are there
    assert algorithm.trials == 1
    assert meters(task) == (2 * cost[0] - 24, 2 * cost[1] - 24, 2 * cost[2], 48)


@pytest.mark.parametrize("hessian", ["ggn", "exact", "fisher"])
def test_resumes(hessian: str) -> None:
    make: Any = functools.partial(GNSNewton, hessian=hessian)
    assert_resumes(make, classification, before=3, after=3)


def test_other_losses_and_kinds_of_task() -> None:
    x, w = normal(4, 24, FEATURES), normal(5, FEATURES)
    task = make_task(lambda: Squeezed(), x, x @ w, "regression")
    algorithm = GNSNewton(gamma=1e12)
    algorithm.setup(task)
    algorithm.step(task)
    torch.testing.assert_close(task.params[0][0].detach(), w, rtol=0, atol=1e-6)  # one Newton step is enough


class Squeezed(nn.Module):
    """One number a row."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, 1).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).squeeze(1)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"task": "binary", "model": "linear", "num_parameters": 1000}, None),
        ({"task": "multiclass", "model": "linear", "num_parameters": 1503}, "at most 1000 parameters"),
        ({"task": "lm", "model": "transformer"}, "this one is transformer"),
    ],
)
def test_compatible_gives_reasons(facts: dict[str, Any], reason: str | None) -> None:
    got = GNSNewton().compatible(make_info(**facts))
    assert got is None if reason is None else got is not None and reason in got


def test_refuses_many_parameters_at_set_up_too() -> None:
    with pytest.raises(UserError, match="max_parameters must be at least 39, got 38"):
        GNSNewton(max_parameters=38).setup(classification())


def test_composes_from_its_yaml_and_refuses_bad_values() -> None:
    from omegaconf import OmegaConf

    config: Any = OmegaConf.to_container(OmegaConf.load(CONF / "gns_newton.yaml"))
    built = build_part("algorithm", copy.deepcopy(config), prefix="")
    assert (built.gamma, built.hessian, built.max_parameters) == (1.0, "ggn", 1000)
    for key, bad in (("gamma", 0), ("hessian", "bfgs"), ("max_parameters", 0)):
        with pytest.raises(UserError, match=rf"{key} must .*, got {bad}"):
            build_part("algorithm", config | {key: bad}, prefix="")

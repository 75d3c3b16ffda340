import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from algorithms.whole.normalized_lr_gd import NormalizedLRGD
from runner.base.errors import UserError
from runner.contract.instantiate import build_part
from runner.contract.task import Task
from tests.problems import CONF
from tests.tasks import NoSync, make_info, make_task

TWO_ROWS = ([[1.0, -1.0], [-1.0, -4.0]], [1, 0])


class Homogeneous(nn.Module):
    """aᵀθ without a bias, from θ = 0."""

    def __init__(self, features: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(features, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.theta


def linear_task(rows: list[list[float]], labels: list[int], dtype: torch.dtype = torch.float64) -> Task:
    x, y = torch.tensor(rows, dtype=dtype), torch.tensor(labels, dtype=dtype)
    return make_task(lambda: Homogeneous(x.shape[1], dtype), x, y, "binary")


def worst_case(n: int) -> Task:
    """One positive row (0.5, −1) against n − 1 negative copies of (−0.5, −1)."""
    return linear_task([[0.5, -1.0]] + [[-0.5, -1.0]] * (n - 1), [1] + [0] * (n - 1))


def thetas(task: Task, algorithm: NormalizedLRGD, steps: int) -> list[list[float]]:
    rows = []
    for _ in range(steps):
        algorithm.step(task)
        rows.append(task.params[0].tolist())
    return rows


def steps_to_separate(task: Task, algorithm: NormalizedLRGD) -> int:
    signs = 2 * task.data.y - 1
    for t in range(1, 1000):
        algorithm.step(task)
        if bool((signs * (task.data.x @ task.params[0].detach()) > 0).all()):
            return t
    raise AssertionError("not separated")


def literal(
    rows: list[list[float]], labels: list[int], lr: float, normalized: bool, steps: int
) -> list[list[float]]:
    theta, path = [0.0] * len(rows[0]), []
    for _ in range(steps):
        push, total = [0.0] * len(theta), 0.0
        for a, label in zip(rows, labels, strict=True):
            y = 2 * label - 1
            sigma = 1 / (1 + math.exp(y * sum(p * q for p, q in zip(a, theta, strict=True))))
            total += sigma
            push = [p + sigma * y * q for p, q in zip(push, a, strict=True)]
        scale = lr / (total if normalized else len(rows))
        theta = [p + scale * q for p, q in zip(theta, push, strict=True)]
        path.append(list(theta))
    return path


def test_spec_two_rows():
    got = thetas(linear_task(*TWO_ROWS), NormalizedLRGD(lr=1.0), 3)
    expected = [[1, 1.5], [2, 0.50730746], [3, -0.05792715]]
    torch.testing.assert_close(torch.tensor(got), torch.tensor(expected), rtol=0, atol=1e-7)


def test_spec_two_rows_factor_of_each_step():
    """β, by which a step is longer than plain gradient descent's."""
    task, algorithm = linear_task(*TWO_ROWS), NormalizedLRGD(lr=1.0)
    for expected in (2, 3.20836545, 9.95049249):
        theta = task.params[0].detach().clone()
        plain = linear_task(*TWO_ROWS)
        with torch.no_grad():
            plain.params[0].copy_(theta)
        NormalizedLRGD(lr=1.0, normalized=False).step(plain)
        algorithm.step(task)
        factors = (task.params[0].detach() - theta) / (plain.params[0].detach() - theta)
        assert factors.tolist() == pytest.approx([expected] * 2, abs=1e-7)


@pytest.mark.parametrize(("lr", "steps"), [(100, 2), (10, 2), (1, 16), (0.1, 157)])
def test_spec_steps_on_the_worst_case(lr: float, steps: int):
    assert steps_to_separate(worst_case(1000), NormalizedLRGD(lr=lr)) == steps


def test_spec_steps_of_plain_gradient_descent_on_the_worst_case():
    assert steps_to_separate(worst_case(1000), NormalizedLRGD(lr=100, normalized=False)) == 308


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("lr", [0.1, 3.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_reference(seed: int, lr: float, normalized: bool):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(30, 4, generator=generator, dtype=torch.float64).tolist()
    labels = [int(row[0] + 0.3 * row[1] > 0.1) for row in rows]
    got = thetas(linear_task(rows, labels), NormalizedLRGD(lr, normalized), 50)
    expected = literal(rows, labels, lr, normalized, 50)
    torch.testing.assert_close(torch.tensor(got), torch.tensor(expected), rtol=1e-9, atol=1e-12)


def test_goes_on_where_every_probability_of_error_underflows():
    task = linear_task(*TWO_ROWS, dtype=torch.float32)
    with torch.no_grad():
        task.params[0].copy_(torch.tensor([400.0, -100.0]))  # margins 500 and 0: exp(-500) is 0 in float32
        task.data.x[1, 0] = -2.0  # now 500 and 400
    before = task.params[0].detach().clone()
    loss = NormalizedLRGD(lr=1.0).step(task)
    assert loss == 0
    torch.testing.assert_close(task.params[0].detach() - before, torch.tensor([2.0, 4.0]))


def test_draws_and_passes_the_whole_split_once_a_step():
    task = worst_case(50)
    loss = NormalizedLRGD().step(task)
    cost = task.cost
    assert (cost.drawn, cost.forward, cost.backward, cost.hvp) == (50, 50, 50, 0)
    assert loss.item() == pytest.approx(math.log(2))
    assert loss.shape == ()
    assert not loss.requires_grad


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"task": "binary", "model": "linear"}, None),
        ({"task": "multiclass", "model": "linear"}, "needs a binary task"),
        ({"task": "binary", "model": "cnn"}, "needs a linear model, this one is cnn"),
    ],
)
def test_compatible_gives_reasons(facts: dict[str, Any], reason: str | None):
    got = NormalizedLRGD().compatible(make_info(**facts))
    assert got is None if reason is None else got is not None and got.startswith(reason)


def test_composes_from_its_yaml_and_refuses_a_bad_step_size():
    from omegaconf import OmegaConf

    config: Any = OmegaConf.to_container(OmegaConf.load(CONF / "normalized_lr_gd.yaml"))
    built = build_part("algorithm", config, prefix="")
    assert (built.lr, built.normalized) == (1.0, True)
    with pytest.raises(UserError, match="lr must be greater than 0, got 0"):
        build_part("algorithm", config | {"lr": 0}, prefix="")


def test_never_waits_for_the_device():
    task, algorithm = worst_case(20), NormalizedLRGD()
    with NoSync():
        algorithm.step(task)
        algorithm.step(task)

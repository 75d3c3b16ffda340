"""ASAM: the authors' version, biases measured plainly."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from algorithms.estimators.asam import ASAM
from runner.contract.instantiate import build_part
from runner.parts.composed import Composed
from tests.problems import part_config
from tests.tasks import (
    CLASSES,
    FEATURES,
    assert_no_sync,
    assert_resumes,
    classification,
    follow,
    make_task,
    mlp,
)

SGD = functools.partial(torch.optim.SGD, lr=0.1)
NETWORKS = (
    lambda: nn.Linear(FEATURES, CLASSES),
    mlp,
    lambda: nn.Sequential(nn.Linear(FEATURES, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, CLASSES)),
)


class Bowl(nn.Module):
    """½ (w₁² + 10 w₂²) from w = (1, 1), the same for every row."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.register_parameter(name, nn.Parameter(torch.ones(2, dtype=torch.float64)))

    def forward(self, x: Tensor) -> Tensor:
        (w,) = self.parameters()
        return (0.5 * (w**2 @ torch.tensor([1.0, 10.0], dtype=torch.float64))).expand(len(x))


def one_step(name: str, rho: float, eta: float) -> tuple[list[float], list[float]]:
    """How far it climbs, and where the step leads."""
    task = make_task(lambda: Bowl(name), torch.zeros(8, 1), torch.zeros(8), "binary")

    def objective() -> object:
        return lambda task, batch: task.outputs(batch)

    climbs: list[Tensor] = []

    class Spy(ASAM):
        def _scale(self, params: list[Tensor], grads: list[Tensor]) -> None:
            super()._scale(params, grads)
            climbs.append(grads[0].clone())

    algorithm = Composed(SGD, objective=objective, estimator=functools.partial(Spy, rho, eta))
    after = follow(algorithm, task, 1)[0].tolist()
    return climbs[0].tolist(), after


def test_spec_one_step() -> None:
    climb, after = one_step("weight", 0.5, 0.01)
    assert climb == pytest.approx([0.050249, 0.502494], abs=1e-6)
    assert after == pytest.approx([0.894975, -0.502494], abs=1e-6)


def test_spec_a_parameter_of_another_name_is_measured_as_in_sam() -> None:
    climb, after = one_step("bias", 0.05, 0.01)
    assert climb == pytest.approx([0.004975, 0.049752], abs=1e-6)
    assert after == pytest.approx([0.899502, -0.049752], abs=1e-6)


@pytest.mark.parametrize("network", NETWORKS)
def test_reference_trajectory(network: Callable[[], nn.Module]) -> None:
    def build() -> nn.Module:
        return network().double()

    task, stream, model = classification(build), classification(build).data, build()
    model.load_state_dict(task.model.state_dict())
    named = list(model.named_parameters())
    for got in follow(Composed(SGD, estimator=functools.partial(ASAM, 0.4, 0.02)), task, 50):
        batch = stream.next()
        start = [p.detach().clone() for _, p in named]
        first = torch.autograd.grad(F.cross_entropy(model(batch.x), batch.y), [p for _, p in named])
        sizes = [
            [abs(v) + 0.02 if "weight" in name else 1.0 for v in p.flatten().tolist()] for name, p in named
        ]
        pairs = list(zip(sizes, [g.flatten().tolist() for g in first], strict=True))
        norm = math.sqrt(sum((a * b) ** 2 for t, g in pairs for a, b in zip(t, g, strict=True)))
        with torch.no_grad():
            for (_, p), (t, g) in zip(named, pairs, strict=True):
                e = [0.4 * a * (a * b) / (norm + 1e-16) for a, b in zip(t, g, strict=True)]
                p.add_(torch.tensor(e, dtype=torch.float64).view_as(p))
        second = torch.autograd.grad(F.cross_entropy(model(batch.x), batch.y), [p for _, p in named])
        with torch.no_grad():
            for (_, p), w, g in zip(named, start, second, strict=True):
                p.copy_(w - 0.1 * g)
        expected = torch.cat([p.detach().flatten() for _, p in named])
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_steps_do_not_wait_and_resume() -> None:
    assert_no_sync(Composed(SGD, estimator=ASAM), classification())
    assert_resumes(lambda: Composed(SGD, estimator=ASAM), classification)


def test_preset_and_bad_values() -> None:
    part = build_part("estimator", part_config("estimator", "asam"))
    assert (part.rho, part.eta) == (0.5, 0.01)
    with pytest.raises(ValueError, match="eta must be at least 0"):
        ASAM(eta=-1.0)

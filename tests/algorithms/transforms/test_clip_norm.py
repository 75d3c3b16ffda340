"""Norm clipping: numbers, parity with torch's own, a literal trajectory."""

from __future__ import annotations

import functools
import math

import pytest
import torch

from algorithms.transforms.clip_norm import ClipNorm
from runner.contract.instantiate import build_part
from runner.parts.composed import Composed
from tests.problems import PROBLEMS, Problem, part_config, run_reference
from tests.tasks import assert_no_sync, assert_resumes, classification, follow, from_problem, normal

SGD = functools.partial(torch.optim.SGD, lr=0.05)


def clipped(max_norm: float, *grads: torch.Tensor) -> list[torch.Tensor]:
    copies = [g.clone() for g in grads]
    ClipNorm(max_norm)([g.clone() for g in grads], copies)
    return copies


def test_a_long_gradient_is_scaled_to_the_norm_all_tensors_by_one_factor() -> None:
    a, b = clipped(1.0, torch.tensor([3.0, 0.0]), torch.tensor([[4.0]]))
    torch.testing.assert_close(a, torch.tensor([0.6, 0.0]))
    torch.testing.assert_close(b, torch.tensor([[0.8]]))


def test_a_short_gradient_is_left_as_it_is_bit_for_bit() -> None:
    grads = [normal(0, 3, 4), normal(1, 5)]
    assert all(torch.equal(*pair) for pair in zip(clipped(100.0, *grads), grads, strict=True))


@pytest.mark.parametrize("max_norm", [0.1, 2.0, 50.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_reference_is_torchs_clip_grad_norm(max_norm: float, dtype: torch.dtype) -> None:
    grads = [normal(0, 3, 4).to(dtype), normal(1, 5).to(dtype), torch.tensor(2.0, dtype=dtype)]
    params = [torch.nn.Parameter(torch.zeros_like(g)) for g in grads]
    for p, g in zip(params, grads, strict=True):
        p.grad = g.clone()
    torch.nn.utils.clip_grad_norm_(params, max_norm, foreach=False)
    for got, p in zip(clipped(max_norm, *grads), params, strict=True):
        torch.testing.assert_close(got, p.grad)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_reference_trajectory(problem: Problem) -> None:
    task, objective = from_problem(problem)
    algorithm = Composed(SGD, objective=objective, transform=functools.partial(ClipNorm, 0.7))

    def update(t: int, x: list[list[float]], g: list[list[float]]) -> None:
        norm = math.sqrt(sum(v * v for tensor in g for v in tensor))
        for xs, gs in zip(x, g, strict=True):
            for i in range(len(xs)):
                xs[i] -= 0.05 * gs[i] * min(1.0, 0.7 / (norm + 1e-6))

    expected = run_reference(update, 50, problem)
    torch.testing.assert_close(follow(algorithm, task, 50), expected, rtol=1e-9, atol=1e-9)


def test_reports_the_norm_before_clipping() -> None:
    part = ClipNorm(1.0)
    assert part.report() == {}
    part([torch.zeros(2)], [torch.tensor([3.0, 4.0])])
    assert part.report() == {"norm": pytest.approx(5.0)}


def test_no_gradients_at_all_are_no_error() -> None:
    ClipNorm()([], [])


def test_steps_do_not_wait_and_resume() -> None:
    assert_no_sync(Composed(SGD, transform=ClipNorm), classification())
    assert_resumes(lambda: Composed(SGD, transform=ClipNorm), classification)


def test_preset_and_bad_values() -> None:
    assert build_part("transform", part_config("transform", "clip_norm")).max_norm == 1.0
    for bad in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="max_norm must be above 0, got"):
            ClipNorm(bad)


@pytest.mark.parametrize(("bad", "others"), [(math.inf, 0.0), (math.nan, math.nan)])
def test_an_infinite_coordinate_takes_the_others_to_0_and_nan_takes_all(bad: float, others: float) -> None:
    grads = [torch.tensor([1.0, bad]), torch.tensor([2.0])]
    ClipNorm()([], grads)
    assert torch.cat(grads).tolist() == pytest.approx([others, math.nan, others], nan_ok=True)

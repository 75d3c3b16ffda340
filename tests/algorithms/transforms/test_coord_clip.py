"""Coordinate clipping: numbers, one threshold over all tensors, a literal trajectory."""

from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.transforms.coord_clip import CoordClip
from runner.contract.instantiate import build_part
from runner.parts.composed import Composed
from tests.problems import PROBLEMS, Problem, part_config, run_reference
from tests.tasks import NoSync, assert_no_sync, assert_resumes, classification, follow, from_problem

G = [5.0, -3.0, 0.5, 0.2, -0.1, 0.4, -2.0, 1.0, 0.3, -0.6]
SGD = functools.partial(torch.optim.SGD, lr=0.05)


def clip(values: list[float], fraction: float, *sizes: int) -> list[float]:
    """Clip ``values`` as tensors of the given sizes (default: one)."""
    whole = torch.tensor(values, dtype=torch.float64)
    grads = [piece.clone() for piece in whole.split(list(sizes) or len(values))]
    CoordClip(fraction)([g.clone() for g in grads], grads)
    return torch.cat([g.flatten() for g in grads]).tolist()


def literal(values: list[float], fraction: float) -> list[float]:
    """Sort |g| in descending order, take entry ⌊N·k⌋, cut every coordinate there."""
    threshold = sorted((abs(v) for v in values), reverse=True)[int(len(values) * fraction)]
    return [(1 if v > 0 else -1) * min(abs(v), threshold) for v in values]


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [
        (0.1, [3, -3, 0.5, 0.2, -0.1, 0.4, -2, 1, 0.3, -0.6]),
        (0.3, [1, -1, 0.5, 0.2, -0.1, 0.4, -1, 1, 0.3, -0.6]),
        (0.5, [0.5, -0.5, 0.5, 0.2, -0.1, 0.4, -0.5, 0.5, 0.3, -0.5]),
        (0.0, G),
        (0.05, G),
    ],
)
def test_spec_vector(fraction: float, expected: list[float]) -> None:
    assert clip(G, fraction) == expected


def test_one_threshold_for_all_tensors() -> None:
    assert clip(G, 0.3, 2, 5, 3) == clip(G, 0.3)
    assert clip([10.0, 9.0, 8.0, 0.1, 0.2, 0.3], 0.4, 3, 3) == [8.0, 8.0, 8.0, 0.1, 0.2, 0.3]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.floats(-100, 100).filter(lambda v: v != 0), min_size=1, max_size=40),
    st.floats(0, 0.97),
)
def test_reference_any_vector(values: list[float], fraction: float) -> None:
    assert clip(values, fraction) == literal(values, fraction)


def test_shapes_strides_and_types_survive() -> None:
    grads = [
        torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).T,
        torch.tensor(100.0),
        torch.ones(2),
    ]
    before = [g.clone() for g in grads]
    CoordClip(0.1)(grads, grads)
    assert grads[1] == before[0].abs().max()
    assert torch.equal(grads[0], before[0])
    assert torch.equal(grads[2], before[2])


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_reference_trajectory(problem: Problem) -> None:
    task, objective = from_problem(problem)
    algorithm = Composed(SGD, objective=objective, transform=functools.partial(CoordClip, 0.3))

    def update(t: int, x: list[list[float]], g: list[list[float]]) -> None:
        flat = literal([v for tensor in g for v in tensor], 0.3)
        for tensor in x:
            for i in range(len(tensor)):
                tensor[i] -= 0.05 * flat.pop(0)

    expected = run_reference(update, 50, problem)
    torch.testing.assert_close(follow(algorithm, task, 50), expected, rtol=1e-9, atol=1e-9)


def test_clips_before_momentum() -> None:
    momentum = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    task = classification()
    algorithm = Composed(momentum, transform=functools.partial(CoordClip, 0.5))
    follow(algorithm, task, 1)
    buffers = [algorithm.optimizer.state[p]["momentum_buffer"].flatten() for p in task.params]
    largest = torch.cat(buffers).abs()
    assert (largest == largest.max()).sum() == int(0.5 * len(largest)) + 1


def test_steps_do_not_wait_and_resume() -> None:
    with NoSync():
        CoordClip(0.5)([], [torch.ones(6)])
    assert_no_sync(Composed(SGD, transform=CoordClip), classification())
    assert_resumes(lambda: Composed(SGD, transform=CoordClip), classification)


def test_preset_and_bad_values() -> None:
    assert build_part("transform", part_config("transform", "coord_clip")).fraction == 0.1
    for bad in (-0.1, 1.0):
        with pytest.raises(ValueError, match="fraction must lie in"):
            CoordClip(bad)


def test_no_gradients_are_none_to_clip() -> None:
    CoordClip()([], [])

"""SAF: numbers, a literal memory, whose past a row sees, seasons, SAM's second pass."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from algorithms.estimators.sam import SAM
from algorithms.objectives._common import divergence
from algorithms.objectives.saf import SAF
from runner.base.errors import UserError
from runner.contract.batch import Batch
from runner.contract.instantiate import build_part
from runner.contract.task import Task
from runner.parts.composed import Composed
from tests.algorithms.objectives.literal import (
    SGD,
    ZT,
    Y,
    Z,
    assert_follows,
    entries_of,
    slow_divergence,
    slow_log_softmax,
)  # fmt: skip
from tests.problems import part_config
from tests.tasks import (
    assert_no_sync,
    assert_resumes,
    binary,
    classification,
    follow,
    make_info,
    make_task,
    train,
)  # fmt: skip

EARLY: dict[str, Any] = {"lam": 0.8, "temperature": 2.0, "distance": 2, "start": 3, "end": 12}


class Slow:
    """One list of logits a row; a row's epoch is the length of its list."""

    def __init__(self, lam: float, temperature: float, distance: int, start: int, end: int) -> None:
        self.lam, self.temperature, self.distance = lam, temperature, distance
        self.start, self.end = start, end
        self.said: dict[int, list[list[Tensor]]] = {}

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        assert batch.index is not None
        total, fresh = torch.zeros((), dtype=torch.float64), dict[int, list[Tensor]]()
        for row, (scores, y) in zip(batch.index.tolist(), entries_of(model(batch.x), batch.y), strict=True):
            total = total - slow_log_softmax(scores)[y]
            said = self.said.setdefault(row, [])
            epoch = len(said)
            fresh[row] = [z.detach().float().double() for z in scores]  # the memory is in single precision
            if self.start < epoch < self.end:
                past = said[epoch - self.distance]
                total = total + self.lam * self.temperature**2 * slow_divergence(
                    past, scores, self.temperature
                )
        for row, scores in fresh.items():
            self.said[row].append(scores)
        return total / len(batch)


def given(logits: Tensor) -> Task:
    """A task whose model hands its parameter out as logits."""

    class Given(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.z = nn.Parameter(logits.clone())

        def forward(self, x: Tensor) -> Tensor:
            return self.z * 1

    task = make_task(Given, torch.zeros(3, 1), Y, batch_size=3)
    task.info = make_info(num_classes=4)
    return task


def test_spec_distance_and_loss() -> None:
    distances = divergence(ZT, Z, 5.0)
    assert distances.tolist() == pytest.approx([0.006290, 0.001791, 0.011210], abs=1e-6)
    assert 25 * distances.mean().item() == pytest.approx(0.160765, abs=1e-6)


def test_spec_objective_with_past_logits() -> None:
    task, part = given(ZT), SAF(distance=1, start=0)
    part.setup(task)
    rows = torch.arange(3)
    part(task, Batch(task.data.x, Y, rows))
    with torch.no_grad():
        task.params[0].copy_(Z)
    losses = part(task, Batch(task.data.x, Y, rows))
    assert losses.mean().item() == pytest.approx(1.394660, abs=1e-6)
    losses.mean().backward()
    pulls = 0.3 * 5 * (torch.softmax(Z / 5, 1) - torch.softmax(ZT / 5, 1)) / 3
    expected = (torch.softmax(Z, 1) - F.one_hot(Y, 4)) / 3 + pulls
    torch.testing.assert_close(task.params[0].grad, expected)


@pytest.mark.parametrize("problem", ["linear", "mlp", "one_logit"])
def test_reference_trajectory(problem: str) -> None:
    # 50 steps are 16 epochs of 3 steps: before, within and behind the season.
    assert_follows(functools.partial(SAF, **EARLY), Slow(**EARLY), problem)


def test_rows_of_a_batch_that_straddles_two_epochs_have_their_own() -> None:
    build = functools.partial(classification, batch_size=7)
    twin, slow = build(), Slow(**EARLY)
    model, stream = twin.model, twin.data
    task, algorithm = build(), Composed(SGD, objective=functools.partial(SAF, **EARLY))
    algorithm.setup(task)
    for _ in range(40):
        model.load_state_dict(task.model.state_dict())
        expected = slow(model, stream.next()).item()
        assert train(algorithm, task, 1).item() == pytest.approx(expected, rel=1e-9)


def test_nothing_but_the_cross_entropy_out_of_season_or_without_ids() -> None:
    plain = follow(Composed(SGD), classification(), 15)
    late = follow(Composed(SGD, objective=SAF), classification(), 15)  # 5 epochs
    torch.testing.assert_close(late, plain, rtol=1e-12, atol=1e-12)
    task, part = classification(), SAF(**EARLY)
    part.setup(task)
    batch = task.data.next()
    torch.testing.assert_close(
        part(task, Batch(batch.x, batch.y)), F.cross_entropy(task.model(batch.x), batch.y, reduction="none")
    )
    assert part.seen.sum() == 0


def test_a_second_pass_over_a_batch_is_no_other_epoch() -> None:
    task = classification()
    part = SAF(**EARLY)
    follow(Composed(SGD, objective=lambda: part, estimator=functools.partial(SAM, 0.1)), task, 6)
    assert part.seen.tolist() == [2] * 24


def test_row_ids_may_be_those_of_a_larger_set() -> None:
    task = classification()
    task.data.index = torch.arange(100, 124)
    part = SAF(**EARLY)
    follow(Composed(SGD, objective=lambda: part), task, 15)
    assert part.seen[100:].tolist() == [5] * 24
    assert part.seen[:100].sum() == 0


def test_token_rows_are_refused_with_a_reason() -> None:
    assert "token by token" in str(SAF().compatible(make_info("lm")))
    assert SAF().compatible(make_info("binary")) is None


def test_steps_do_not_wait_and_resume_and_cost_one_pass() -> None:
    for build in (binary, classification):
        make = functools.partial(Composed, SGD, objective=functools.partial(SAF, **EARLY))
        task = build()
        assert_no_sync(make(), task, 20)
        assert (task.cost.forward, task.cost.backward) == (task.cost.drawn, task.cost.drawn)
        assert_resumes(make, build, before=14, after=7)


@pytest.mark.parametrize(
    ("key", "value"),
    [("lam", -1.0), ("temperature", 0.0), ("distance", 0), ("distance", 1.5), ("start", 1), ("end", 5),
     ("lam", math.nan)],
)  # fmt: skip
def test_preset_and_bad_values(key: str, value: Any) -> None:
    part = build_part("objective", part_config("objective", "saf"))
    assert (part.lam, part.temperature, part.distance, part.start, part.end) == (0.3, 5.0, 3, 5, 300)
    with pytest.raises(UserError, match=rf"{key} must be .*, got {value}"):
        build_part("objective", part_config("objective", "saf", **{key: value}))

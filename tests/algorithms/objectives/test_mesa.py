"""MESA: numbers, a literal teacher, batch norm, when it starts, what it costs."""

from __future__ import annotations

import copy
import functools
import math

import pytest
import torch
from torch import Tensor, nn

from algorithms.objectives.mesa import MESA
from runner.base.errors import UserError
from runner.contract.batch import Batch
from runner.contract.instantiate import build_part
from runner.parts.composed import Composed
from tests.algorithms.objectives.literal import (
    PROBLEMS,
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
from tests.tasks import assert_no_sync, assert_resumes, classification, conv_net, follow, images, make_task

AT_ONCE = functools.partial(MESA, start=0.0)


class Slow:
    """The teacher, one number at a time: it moves when the network is next looked at, one step on."""

    def __init__(self, lam: float, temperature: float, decay: float) -> None:
        self.lam, self.temperature, self.decay = lam, temperature, decay
        self.teacher: nn.Module | None = None
        self.steps = 0

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        if self.teacher is None:
            self.teacher = copy.deepcopy(model)
        else:
            self._move(self.teacher, model)
        targets = entries_of(self.teacher(batch.x).detach(), batch.y)
        entries = entries_of(model(batch.x), batch.y)
        total = torch.zeros((), dtype=torch.float64)
        for (scores, y), (target, _) in zip(entries, targets, strict=True):
            far = slow_divergence(target, scores, self.temperature)
            total = total - slow_log_softmax(scores)[y] + self.lam * self.temperature**2 * far
        return total / len(entries)

    def _move(self, teacher: nn.Module, model: nn.Module) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for mine, its in zip(teacher.parameters(), model.parameters(), strict=True):
            values = zip(mine.flatten().tolist(), its.flatten().tolist(), strict=True)
            moved = torch.tensor([decay * a + (1 - decay) * b for a, b in values], dtype=mine.dtype)
            mine.data.copy_(moved.view_as(mine))


def test_spec_objective_with_the_teachers_logits() -> None:
    class Given(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.z = nn.Parameter(ZT.clone())

        def forward(self, x: Tensor) -> Tensor:
            return self.z * 1

    task, part = make_task(Given, torch.zeros(3, 1), Y, batch_size=3), AT_ONCE()
    part.setup(task)
    with torch.no_grad():
        task.params[0].copy_(Z)
    losses = part(task, Batch(task.data.x, Y))
    assert losses.mean().item() == pytest.approx(1.394660, abs=1e-6)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_reference_trajectory(problem: str) -> None:
    assert_follows(
        functools.partial(MESA, 0.7, 2.0, 0.6, start=0.0), Slow(0.7, 2.0, 0.6), problem, steps=50
    )  # fmt: skip


def test_the_teacher_is_in_evaluation_mode_and_has_averaged_statistics() -> None:
    task, part = images(conv_net), AT_ONCE(decay=0.9)
    algorithm = Composed(SGD, objective=lambda: part)
    algorithm.setup(task)
    mean, live = task.model[1].running_mean.clone(), task.model[1]
    for step in range(1, 5):
        algorithm.step(task)
        decay = min(0.9, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * live.running_mean
    teacher = part.teacher.model[1]
    assert not teacher.training
    torch.testing.assert_close(teacher.running_mean, mean)
    assert teacher.num_batches_tracked.item() == live.num_batches_tracked.item() == 4
    assert task.model.training


def test_nothing_but_the_cross_entropy_before_the_start() -> None:
    plain = follow(Composed(SGD), classification(), 12)
    late = follow(Composed(SGD, objective=functools.partial(MESA, start=0.1)), classification(), 12)
    steps = 9  # progress reads 8/800 … 72/800 while the batch drawn for steps 1 … 9 is counted
    torch.testing.assert_close(late[:steps], plain[:steps], rtol=1e-12, atol=1e-12)
    assert (late[-1] - plain[-1]).abs().max() > 1e-5


def test_steps_do_not_wait_and_resume_and_cost_another_forward_pass() -> None:
    task = images(conv_net)
    assert_no_sync(Composed(SGD, objective=AT_ONCE), task)
    assert (task.cost.forward, task.cost.backward) == (2 * task.cost.drawn, task.cost.drawn)
    assert_resumes(lambda: Composed(SGD, objective=AT_ONCE), lambda: images(conv_net))


def test_preset_and_bad_values() -> None:
    part = build_part("objective", part_config("objective", "mesa"))
    assert (part.lam, part.temperature, part.decay, part.start) == (0.3, 5.0, 0.999, 0.05)
    for key, bad in (("lam", -1.0), ("temperature", 0.0), ("decay", 1.0), ("start", 1.0), ("lam", math.nan)):
        with pytest.raises(UserError, match=rf"{key} must .*, got {bad}"):
            build_part("objective", part_config("objective", "mesa", **{key: bad}))

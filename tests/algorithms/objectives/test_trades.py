"""TRADES: a linear attack by hand, a literal attack and trajectory, batch norm, cost."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from torch import Tensor, nn

from algorithms.estimators.mezo import MeZO
from algorithms.objectives._common import divergence
from algorithms.objectives.trades import TRADES
from runner.base.errors import UserError
from runner.contract.batch import Batch
from runner.contract.instantiate import build_part
from runner.contract.seeding import derive
from runner.contract.task import Task
from runner.parts.composed import Composed
from tests.algorithms.objectives.literal import (
    SGD,
    assert_follows,
    entries_of,
    slow_divergence,
    slow_log_softmax,
)
from tests.problems import part_config
from tests.tasks import (
    assert_no_sync,
    assert_resumes,
    binary,
    classification,
    conv_net,
    follow,
    images,
    make_info,
    make_task,
)

FEW = functools.partial(TRADES, steps=3, eps=0.2, step_size=0.08)


class Slow:
    """The attack and the loss, one row and one number at a time."""

    def __init__(self, beta: float, eps: float, step_size: float, steps: int) -> None:
        self.beta, self.eps, self.step_size, self.steps = beta, eps, step_size, steps
        self.generator = torch.Generator().manual_seed(derive(0, "rng", "trades"))

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        noise = torch.randn(batch.x.shape, generator=self.generator, dtype=batch.x.dtype)
        clean = entries_of(model(batch.x), batch.y)
        total = torch.zeros((), dtype=torch.float64)
        for i, (scores, y) in enumerate(clean):
            far = self._attacked(model, batch.x[i], noise[i], [z.detach() for z in scores])
            moved = entries_of(model(far.unsqueeze(0)), batch.y[i : i + 1])[0][0]
            total = total - slow_log_softmax(scores)[y] + self.beta * slow_divergence(scores, moved)
        return total / len(clean)

    def _attacked(self, model: nn.Module, x: Tensor, noise: Tensor, target: list[Tensor]) -> Tensor:
        at = [a + 0.001 * b for a, b in zip(x.tolist(), noise.tolist(), strict=True)]
        for _ in range(self.steps):
            point = torch.tensor([at], dtype=torch.float64, requires_grad=True)
            scores = entries_of(model(point), torch.zeros(1))[0][0]
            (slope,) = torch.autograd.grad(slow_divergence(target, scores), point)
            for k, (start, g) in enumerate(zip(x.tolist(), slope[0].tolist(), strict=True)):
                moved = at[k] + self.step_size * ((g > 0) - (g < 0))
                moved = min(max(moved, start - self.eps), start + self.eps)
                at[k] = min(max(moved, 0.0), 1.0)
        return torch.tensor(at, dtype=torch.float64)


def logistic(weights: list[float], rows: list[list[float]]) -> tuple[Task, Batch]:
    task = binary()
    with torch.no_grad():
        task.model.linear.weight.copy_(torch.tensor([weights]))
        task.model.linear.bias.zero_()
    return task, Batch(torch.tensor(rows, dtype=torch.float64), torch.ones(len(rows)).double())


def test_spec_of_the_code_on_one_logit() -> None:
    # The divergence of a linear model grows along ± its weights: every entry ends eps away, to one side.
    task, batch = logistic([2.0, -1.0, 0.5, 0.0, 1.0], [[0.5] * 5])
    part = TRADES(beta=2.0, eps=0.1, step_size=0.07, steps=4)
    part.setup(task)
    moved = (part.attack(task, batch).x - batch.x)[0]
    side = math.copysign(1, moved[0])
    assert moved[[0, 1, 2, 4]].tolist() == pytest.approx([0.1 * side * v for v in (1, -1, 1, 1)])
    assert abs(moved[3]) < 0.01  # no weight, no slope: the random start alone
    # Scores 1.25 and 1.25 ± 0.45, so −log σ(1.25) + 2 KL(σ(1.25) ‖ σ(1.7 or 0.8)).
    p, up, down = (1 / (1 + math.exp(-s)) for s in (1.25, 1.7, 0.8))
    by_hand = [-math.log(p) + 2 * (p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))
               for q in (up, down)]  # fmt: skip
    assert by_hand == pytest.approx([0.284073, 0.289842], abs=1e-6)
    loss = part(task, batch).item()
    assert min(abs(loss - value) for value in by_hand) < 1e-12


@pytest.mark.parametrize("problem", ["linear", "mlp", "one_logit"])
def test_reference_trajectory(problem: str) -> None:
    assert_follows(FEW, Slow(6.0, 0.2, 0.08, 3), problem)


def test_the_attack_climbs_and_stays_in_the_ball_and_in_the_range() -> None:
    x = torch.rand(24, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    task = make_task(lambda: nn.Linear(5, 3).double(), x, torch.arange(24) % 3)
    part = TRADES()
    part.setup(task)
    batch = task.data.next()
    moved = part.attack(task, batch)
    assert (moved.x - batch.x).abs().max() <= 0.031 + 1e-12
    assert moved.x.min() >= 0
    assert moved.x.max() <= 1
    clean, start = task.outputs(batch), batch.x + 0.001
    far = divergence(clean, task.outputs(moved)).sum()
    assert far > 10 * divergence(clean, task.outputs(Batch(start, batch.y))).sum()
    assert all(p.grad is None for p in task.params)


def test_only_the_two_passes_that_are_trained_on_move_batch_norm_statistics() -> None:
    task = images(conv_net)
    follow(Composed(SGD, objective=FEW), task, 2)
    assert task.model[1].num_batches_tracked.item() == 4
    assert all(module.training for module in task.model.modules())


def test_an_estimator_that_turns_gradients_off_can_have_it() -> None:
    task = classification()
    estimator = functools.partial(MeZO, 1e-3)
    got = follow(Composed(SGD, objective=FEW, estimator=estimator), task, 3)
    assert torch.isfinite(got).all()


def test_inputs_without_a_range_are_refused_with_a_reason() -> None:
    assert "range" in str(TRADES().compatible(make_info("lm")))
    assert "range" in str(TRADES().compatible(make_info(input_range=None)))
    assert TRADES().compatible(make_info()) is None


def test_steps_do_not_wait_and_resume_and_cost_what_the_card_says() -> None:
    task = images(conv_net)
    assert_no_sync(Composed(SGD, objective=TRADES), task)
    assert (task.cost.forward, task.cost.backward) == (13 * task.cost.drawn, 12 * task.cost.drawn)
    assert_resumes(lambda: Composed(SGD, objective=FEW), lambda: images(conv_net))


def test_preset_and_bad_values() -> None:
    part = build_part("objective", part_config("objective", "trades"))
    assert (part.beta, part.eps, part.step_size, part.steps) == (6.0, 0.031, 0.007, 10)
    for key, bad in (("beta", -1.0), ("eps", 0.0), ("step_size", 0.0), ("steps", 0), ("beta", math.nan)):
        with pytest.raises(UserError, match=rf"{key} must be .*, got {bad}"):
            build_part("objective", part_config("objective", "trades", **{key: bad}))

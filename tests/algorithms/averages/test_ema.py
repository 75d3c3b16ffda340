"""EMA: formula, swaps, statistics, checkpoints."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor, nn

from algorithms.averages.ema import EMA
from runner.contract.instantiate import build_part
from runner.parts.composed import Composed
from tests.problems import PROBLEMS, Problem, part_config, run_reference
from tests.tasks import (
    assert_no_sync,
    assert_resumes,
    classification,
    conv_net,
    evaluated,
    follow,
    from_problem,
    images,
    train,
    weights,
)

SGD = functools.partial(torch.optim.SGD, lr=0.1)


def counting(values: list[float], decay: float, ramp: bool) -> list[float]:
    """Averages of one parameter that takes ``values`` after steps 1, 2, …, starting from 0."""
    task = classification(lambda: nn.Linear(1, 1, bias=False).double())
    (p,) = task.params
    with torch.no_grad():
        p.zero_()
    part = EMA(decay, ramp)
    part.setup(task)
    means = []
    for value in values:
        with torch.no_grad():
            p.fill_(value)
        part.update(task)
        part.swap_in(task)
        means.append(p.item())
        part.swap_out(task)
        assert p.item() == value
    return means


def test_spec_by_hand() -> None:
    # w̄ = d w̄ + (1 − d) w from 0: 0.5, then 0.5·0.5 + 0.5·3 = 1.75, then 0.875 − 1 = −0.125.
    assert counting([1.0, 3.0, -2.0], 0.5, ramp=False) == pytest.approx([0.5, 1.75, -0.125], abs=1e-12)
    # d = 2/11, 3/12, 4/13: 9/11, then 9/44 + 9/4 = 27/11, then 108/143 − 18/13 = −90/143.
    ramped = counting([1.0, 3.0, -2.0], 0.999, ramp=True)
    assert ramped == pytest.approx([9 / 11, 27 / 11, -90 / 143], abs=1e-12)


def test_ramp_ends_at_the_decay() -> None:
    # (1 + t) / (10 + t) reaches 0.5 at t = 8.
    values = [float(k % 5) for k in range(40)]
    decays = [min(0.5, (1 + t) / (10 + t)) for t in range(1, 41)]
    mean, expected = 0.0, []
    for value, decay in zip(values, decays, strict=True):
        mean = decay * mean + (1 - decay) * value
        expected.append(mean)
    assert decays[6] < decays[7] == 0.5
    assert counting(values, 0.5, ramp=True) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("ramp", [False, True])
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_reference_trajectory(problem: Problem, ramp: bool) -> None:
    task, objective = from_problem(problem)
    algorithm = Composed(SGD, objective=objective, average=functools.partial(EMA, 0.9, ramp))
    mean = [p.flatten().tolist() for p in problem.start]

    def update(t: int, x: list[list[float]], g: list[list[float]]) -> None:
        decay = min(0.9, (1 + t) / (10 + t)) if ramp else 0.9
        for xi, gi, mi in zip(x, g, mean, strict=True):
            for i in range(len(xi)):
                xi[i] -= 0.1 * gi[i]
                mi[i] = decay * mi[i] + (1 - decay) * xi[i]

    expected = run_reference(update, 50, problem)
    got = follow(algorithm, task, 50)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    flat = torch.tensor([v for mi in mean for v in mi], dtype=torch.float64)
    torch.testing.assert_close(evaluated(algorithm, task), flat, rtol=1e-9, atol=1e-9)


def test_evaluation_leaves_training_alone_bit_for_bit() -> None:
    make = functools.partial(Composed, SGD, average=EMA)
    plain = follow(make(), images(conv_net), 6)
    task, algorithm, rows = images(conv_net), make(), []
    algorithm.setup(task)
    for _ in range(6):
        evaluated(algorithm, task)
        train(algorithm, task, 1)
        rows.append(torch.cat([p.detach().flatten() for p in task.params]))
    assert torch.equal(torch.stack(rows), plain)


def test_swaps_are_idempotent_and_share_no_memory() -> None:
    task, part = classification(), EMA(0.5, ramp=False)
    part.setup(task)
    start = weights(task)
    part.swap_out(task)
    assert all(torch.equal(a, b) for a, b in zip(weights(task), start, strict=True))
    with torch.no_grad():
        for p in task.params:
            p.add_(2.0)
    part.update(task)
    moved = weights(task)
    part.swap_in(task)
    part.swap_in(task)
    for p, a in zip(task.params, start, strict=True):
        torch.testing.assert_close(p.detach(), a + 1)
    mean = part.state_dict()["mean"]
    with torch.no_grad():
        for p in task.params:
            p.zero_()  # an evaluation that spoils the model spoils neither copy
    assert all(m.abs().sum() > 0 for m in mean)
    part.swap_out(task)
    part.swap_out(task)
    assert all(torch.equal(a, b) for a, b in zip(weights(task), moved, strict=True))
    pointers = {t.data_ptr() for t in (*task.params, *task.model.buffers())}
    assert not pointers & {m.data_ptr() for m in mean}


def test_batch_norm_statistics_are_averaged_and_other_buffers_are_the_models() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = conv_net()
            self.register_buffer("mask", torch.tensor([0.0, float("-inf")]))

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    task = images(Masked)
    algorithm = Composed(SGD, average=functools.partial(EMA, 0.9, False))
    algorithm.setup(task)
    norm = task.model.net[1]
    mean, variance = norm.running_mean.clone(), norm.running_var.clone()
    for _ in range(4):
        train(algorithm, task, 1)
        mean, variance = 0.9 * mean + 0.1 * norm.running_mean, 0.9 * variance + 0.1 * norm.running_var
    live = norm.running_mean.clone()
    algorithm.enter_eval(task)
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)
    assert norm.num_batches_tracked.item() == 4
    assert task.model.mask.tolist() == [0.0, float("-inf")]
    algorithm.exit_eval(task)
    assert torch.equal(norm.running_mean, live)


def test_steps_do_not_wait_and_resume() -> None:
    make = functools.partial(Composed, SGD, average=EMA)
    assert_no_sync(make(), images(conv_net))
    assert_resumes(make, lambda: images(conv_net))


def test_costs_no_extra_pass() -> None:
    task = images(conv_net)
    algorithm = Composed(SGD, average=EMA)
    follow(algorithm, task, 3)
    evaluated(algorithm, task)
    assert (task.cost.forward, task.cost.backward) == (24, 24)


def test_preset_and_bad_values() -> None:
    part = build_part("average", part_config("average", "ema"))
    assert (part.decay, part.ramp) == (0.999, True)
    for bad in (-0.1, 1.0):
        with pytest.raises(ValueError, match="decay must lie in"):
            EMA(bad)

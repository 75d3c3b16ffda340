"""MeZO: numbers, a literal trajectory, what the estimate is on average, what the passes leave alone."""

from __future__ import annotations

import functools
import gc
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from algorithms.estimators import mezo
from algorithms.estimators.mezo import MeZO
from runner.compose.config import compose
from runner.contract.batch_norm import batch_norms
from runner.contract.instantiate import build_part
from runner.contract.task import Task
from runner.parts.composed import Composed
from tests.problems import PROBLEMS, Problem, flat, part_config, quad
from tests.tasks import (
    assert_no_sync,
    assert_resumes,
    classification,
    conv_net,
    follow,
    from_problem,
    generators_untouched,
    images,
    make_task,
    meters,
    mlp,
    normal,
    train,
    weights,
)

SGD = functools.partial(torch.optim.SGD, lr=0.01)
STILL = functools.partial(torch.optim.SGD, lr=0.0)


def literal(
    problem: Problem, steps: int, lr: float, eps: float, n_samples: int, z: Callable[[], Any]
) -> Tensor:
    """Algorithm 2 of the paper (1 for a single sample), a number at a time; ``z()`` gives N numbers."""
    params = problem.params()
    w, rows = flat(params).tolist(), []

    def value(at: list[float]) -> float:
        pieces = torch.tensor(at, dtype=torch.float64).split([p.numel() for p in params])
        with torch.no_grad():
            for p, piece in zip(params, pieces, strict=True):
                p.copy_(piece.view_as(p))
        return problem.loss(list(params)).item()

    for _ in range(steps):
        g = [0.0] * len(w)
        for _ in range(n_samples):
            direction = z()
            plus = value([a + eps * b for a, b in zip(w, direction, strict=True)])
            minus = value([a - eps * b for a, b in zip(w, direction, strict=True)])
            for j, b in enumerate(direction):
                g[j] += (plus - minus) / (2 * eps) * b / n_samples
        w = [a - lr * b for a, b in zip(w, g, strict=True)]
        rows.append(list(w))
    return torch.tensor(rows, dtype=torch.float64)


def estimate(part: MeZO, task: Task, batch: Any = None) -> tuple[Tensor, Tensor]:
    """The loss and the gradients of one call."""
    part.setup(task)
    loss = part(task, task.data.next() if batch is None else batch)
    return loss, torch.cat([p.grad.flatten() for p in task.params if p.grad is not None])


@pytest.mark.parametrize(("decay", "after"), [(0.0, [1.125, 0.75]), (0.01, [1.124, 0.749])])
def test_spec_one_step(monkeypatch: pytest.MonkeyPatch, decay: float, after: list[float]) -> None:
    z = torch.tensor([0.5, -1.0], dtype=torch.float64)
    monkeypatch.setattr(mezo, "draw", lambda params, generator: [z.clone() for _ in params])
    task, objective = from_problem(quad())
    sgd = functools.partial(torch.optim.SGD, lr=0.1, weight_decay=decay)
    got = follow(Composed(sgd, objective=objective, estimator=MeZO), task, 1)
    torch.testing.assert_close(task.params[0].grad, -2.5 * z, rtol=0, atol=1e-7)
    assert got[0].tolist() == pytest.approx(after, abs=1e-7)


@pytest.mark.parametrize("n_samples", [1, 3])
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_reference_trajectory(problem: Problem, n_samples: int) -> None:
    task, objective = from_problem(problem)
    part = functools.partial(MeZO, 1e-3, n_samples)
    got = follow(Composed(SGD, objective=objective, estimator=part), task, 50)
    generator = from_problem(problem)[0].rng("mezo")
    size = sum(p.numel() for p in problem.start)
    draw = lambda: torch.randn(size, generator=generator, dtype=torch.float64).tolist()  # noqa: E731
    torch.testing.assert_close(got, literal(problem, 50, 0.01, 1e-3, n_samples, draw), rtol=1e-6, atol=1e-7)
    assert (got[-1] - flat(problem.params())).abs().max() > 1e-2


def test_estimates_average_to_the_gradient() -> None:
    task, objective = from_problem(PROBLEMS[0])
    task.objective = objective()
    _, got = estimate(MeZO(1e-3, n_samples=1000), task)
    params = PROBLEMS[0].params()
    PROBLEMS[0].gradient(params)
    assert params[0].grad is not None
    # Over n samples the error is √((d + 1) / n) of the gradient's length: 0.07 here.
    assert (got - params[0].grad).norm() < 0.2 * params[0].grad.norm()


def test_weights_come_back_up_to_rounding() -> None:
    task, objective = from_problem(PROBLEMS[2])
    got = follow(Composed(STILL, objective=objective, estimator=functools.partial(MeZO, 0.3)), task, 50)
    torch.testing.assert_close(got[-1], flat(PROBLEMS[2].params()), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("chunk", [1, 10, 1 << 20])
def test_both_points_lie_on_one_line_whatever_is_moved_together(chunk: int) -> None:
    task, points = classification(), []

    def objective(task: Task, batch: Any) -> Tensor:
        points.append(torch.cat([p.detach().flatten() for p in task.params]))
        return points[-1].sum()

    task.objective = objective
    before = torch.cat([w.flatten() for w in weights(task)])
    part = MeZO(0.5)
    part.setup(task)
    part._chunks = list(mezo.chunks(task.params, chunk))
    part(task, task.data.next())
    z = (points[0] - before) / 0.5
    torch.testing.assert_close(points[1], before - 0.5 * z)
    got = torch.cat([p.grad.flatten() for p in task.params if p.grad is not None])
    torch.testing.assert_close(got, z.sum() * z)
    assert z.std().item() == pytest.approx(1, abs=0.3)


def test_every_step_and_every_sample_has_its_own_direction() -> None:
    points: list[Tensor] = []

    def objective(task: Task, batch: Any) -> Tensor:
        points.append(flat(task.params))
        return task.losses(batch)

    part = functools.partial(MeZO, 0.5, 3)
    follow(Composed(STILL, estimator=part, objective=lambda: objective), classification(), 2)
    plus = torch.stack(points[::2])
    assert len(plus) == 6
    assert torch.pdist(plus).min() > 0.5


def test_gradients_are_laid_out_like_their_parameters() -> None:
    task = images(lambda: conv_net().to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    _, got = estimate(MeZO(1e-4), task)
    assert got.isfinite().all()
    strides = [(p.stride(), p.grad.stride()) for p in task.params if p.grad is not None]
    assert all(mine == its for mine, its in strides)
    assert strides[0][0][1] == 1  # channels lie next to each other


def test_nothing_of_the_size_of_the_weights_is_kept_during_the_passes() -> None:
    side, found = 300, []

    def large(task: Task, batch: Any) -> Tensor:
        gc.collect()
        held = [o for o in gc.get_objects() if type(o) in (Tensor, nn.Parameter) and o.numel() >= side * side]
        found.append(len({t.untyped_storage().data_ptr() for t in held}))
        return task.losses(batch)

    task = make_task(lambda: nn.Linear(side, side), normal(0, 24, side).float(), torch.arange(24) % 3)
    batch = task.data.next()
    large(task, batch)
    task.objective = large
    estimate(MeZO(), task, batch)
    assert found[1:] == found[:1] * 2


def test_costs_two_forward_passes_a_sample() -> None:
    task = classification()
    estimate(MeZO(n_samples=3), task)
    assert meters(task) == (6 * 8, 0, 0, 8)


def test_loss_is_the_mean_of_the_passes_on_the_same_rows() -> None:
    task = classification()
    batch = task.data.next()
    expected = F.cross_entropy(task.model(batch.x), batch.y).item()
    loss, _ = estimate(MeZO(1e-4), task, batch)
    assert not loss.requires_grad
    assert loss.item() == pytest.approx(expected, abs=1e-7)


def test_losses_and_reweightings_are_respected() -> None:
    calls: list[Tensor] = []

    def reweighting(task: Task, batch: Any, losses: Tensor) -> Tensor:
        calls.append(losses)
        return 8 * torch.softmax(losses, 0)

    task = classification()
    task.loss = lambda outputs, targets: F.multi_margin_loss(outputs, targets, reduction="none")
    task.reweighting = reweighting
    batch = task.data.next()
    _, got = estimate(MeZO(1e-4), task, batch)
    assert len(calls) == 1  # the weights of the first pass are those of the second
    losses = F.multi_margin_loss(task.model(batch.x).float(), batch.y, reduction="none")
    assert batch.weights is not None
    slopes = torch.autograd.grad((losses * batch.weights).mean(), task.params)
    z = torch.randn(len(got), generator=classification().rng("mezo"), dtype=torch.float64)
    expected = z * (z @ torch.cat([g.flatten() for g in slopes]))
    torch.testing.assert_close(got, expected, rtol=0.02, atol=0.0)  # the loss is in float32


def test_dropout_is_off_and_modules_are_left_as_they_were() -> None:
    def build() -> nn.Module:
        return nn.Sequential(mlp(), nn.Dropout(0.5), nn.BatchNorm1d(3).eval()).double()

    def without() -> nn.Module:
        return nn.Sequential(mlp(), nn.Identity(), nn.BatchNorm1d(3).eval()).double()

    task, plain = classification(build), classification(without)
    modes = [module.training for module in task.model.modules()]
    with generators_untouched():
        loss, got = estimate(MeZO(), task)
    assert [module.training for module in task.model.modules()] == modes
    assert modes.count(False) == 1
    expected_loss, expected = estimate(MeZO(), plain)
    assert torch.equal(loss, expected_loss)
    assert torch.equal(got, expected)


def test_modes_come_back_after_an_error() -> None:
    task = classification()
    task.objective = lambda task, batch: 1 / 0  # type: ignore[assignment]
    with pytest.raises(ZeroDivisionError):
        estimate(MeZO(), task)
    assert task.model.training


def test_batch_norms_normalise_by_the_batch_and_count_it_once() -> None:
    task, twin = images(conv_net), images(conv_net)
    batch = task.data.next()
    loss, _ = estimate(MeZO(1e-6, n_samples=2), task, batch)
    twin.model(batch.x)
    (norm,), (expected,) = batch_norms(task.model), batch_norms(twin.model)
    assert norm.num_batches_tracked is not None
    assert norm.num_batches_tracked.item() == 1
    torch.testing.assert_close(norm.running_mean, expected.running_mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, expected.running_var, rtol=1e-4, atol=1e-5)
    assert loss.item() == pytest.approx(F.cross_entropy(twin.model(batch.x), batch.y).item(), abs=1e-5)
    assert norm.track_running_stats


def test_steps_do_not_wait_and_resume() -> None:
    momentum = functools.partial(torch.optim.SGD, lr=0.01, momentum=0.9)
    assert_no_sync(Composed(SGD, estimator=functools.partial(MeZO, 1e-3, 2)), images(conv_net))
    assert_resumes(lambda: Composed(momentum, estimator=MeZO), lambda: images(conv_net))


def test_training_falls_before_any_optimizer() -> None:
    for optimizer in (SGD, functools.partial(torch.optim.AdamW, lr=0.01)):
        task = classification()
        algorithm = Composed(optimizer, estimator=functools.partial(MeZO, 1e-3, 4))
        algorithm.setup(task)
        losses = train(algorithm, task, 90)
        assert losses[-30:].mean() < losses[:30].mean()


def test_preset_is_the_papers_plain_sgd() -> None:
    config = compose(["algorithm=mezo"])["algorithm"]
    optimizer = config["optimizer"]
    assert optimizer["_target_"] == "torch.optim.SGD"
    assert optimizer["momentum"] == optimizer["weight_decay"] == 0
    assert "schedule" not in config
    assert compose(["algorithm=mezo", "trial=1"])["algorithm"]["optimizer"]["momentum"] == 0
    part = build_part("estimator", part_config("estimator", "mezo"))
    assert (part.eps, part.n_samples) == (1e-3, 1)


@pytest.mark.parametrize(
    ("name", "value"), [("eps", 0.0), ("eps", math.nan), ("n_samples", 0), ("n_samples", 1.5)]
)
def test_refuses_bad_values_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be .*, got {value}"):
        MeZO(**{name: value})  # type: ignore[arg-type]

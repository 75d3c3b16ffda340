"""The task: losses and gradients by hand, exact meters."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runner.base.errors import UserError
from runner.contract.batch import Batch
from runner.contract.cost import Cost
from runner.contract.task import Task
from tests.problems import through_disk
from tests.tasks import (
    CLASSES,
    binary,
    classification,
    conv_net,
    images,
    language,
    meters,
    mlp,
    normal,
    weights,
)


def grads(task: Task) -> list[Tensor]:
    """The gradients, taken away."""
    found = [p.grad for p in task.params if p.grad is not None]
    for p in task.params:
        p.grad = None
    return found


def by_hand(task: Task, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, task.params))


def close(got: list[Tensor], expected: list[Tensor]) -> None:
    assert len(got) == len(expected) > 0
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def hinge(logits: Tensor, targets: Tensor) -> Tensor:
    """A loss part; sees float32 logits (N, C) on every kind of task."""
    assert logits.dtype == torch.float32
    assert logits.dim() == 2
    assert targets.dtype == torch.int64
    return ((1 + logits).relu() ** 2).sum(1) - 3 * logits.gather(1, targets[:, None]).squeeze(1)


def token_model() -> nn.Module:
    return nn.Embedding(CLASSES, CLASSES).double()


# -- losses and gradients ------------------------------------------------------------------------------


def test_backward_is_the_mean_cross_entropy() -> None:
    task = classification()
    batch = task.data.next()
    with task.cost.paused():
        expected = -torch.log_softmax(task.model(batch.x), 1)[torch.arange(8), batch.y].mean()
    slopes = by_hand(task, expected)
    loss = task.backward(batch)
    assert loss.dim() == 0
    assert not loss.requires_grad
    torch.testing.assert_close(loss, expected.detach())
    close(grads(task), slopes)


@pytest.mark.parametrize("part", [None, "loss", "reweighting", "objective"])
def test_mean_loss_is_that_of_backward_by_a_forward_pass_alone(part: str | None) -> None:
    task = classification()
    if part is not None:
        parts: dict[str, Any] = {
            "loss": hinge,
            "reweighting": lambda task, batch, losses: losses,
            "objective": lambda task, batch: task.losses(batch).max(),
        }
        setattr(task, part, parts[part])
    batch = task.data.next()
    loss = task.mean_loss(batch)
    assert not loss.requires_grad
    assert meters(task) == (8, 0, 0, 8)
    assert (batch.weights is not None) == (part == "reweighting")
    assert torch.equal(loss, task.backward(batch))


def test_backward_on_one_logit() -> None:
    task = binary()
    batch = task.data.next()
    p = torch.sigmoid(task.model(batch.x))
    expected = -(batch.y * p.log() + (1 - batch.y) * (1 - p).log()).mean()
    slopes = by_hand(task, expected)
    torch.testing.assert_close(task.backward(batch), expected.detach())
    close(grads(task), slopes)


def test_backward_on_tokens_is_the_mean_over_all_of_them() -> None:
    task = language(token_model)
    batch = task.data.next()
    logp = torch.log_softmax(task.model(batch.x), 2)
    expected = -sum(logp[i, t, batch.y[i, t]] for i in range(8) for t in range(4)) / 32
    assert isinstance(expected, Tensor)
    slopes = by_hand(task, expected)
    torch.testing.assert_close(task.backward(batch), expected.detach())
    close(grads(task), slopes)
    tokens = task.token_losses(batch)
    assert tokens.shape == (8, 4)
    torch.testing.assert_close(task.losses(batch), tokens.mean(1))


def test_token_losses_need_tokens() -> None:
    task = classification()
    with pytest.raises(TypeError, match="multiclass task has no token losses"):
        task.token_losses(task.data.next())


def test_gradients_are_added_up() -> None:
    task = classification()
    batch = task.data.next()
    task.backward(batch)
    once = grads(task)
    task.backward(batch)
    task.backward(batch)
    close(grads(task), [2 * g for g in once])


@pytest.mark.parametrize("make", [classification, binary, lambda: language(token_model)])
def test_a_loss_part_takes_the_workloads_place(make: Any) -> None:
    task = make()
    task.loss = hinge
    batch = task.data.next()
    outputs = task.model(batch.x).float()
    if task.info.task == "binary":
        rows = [
            hinge(torch.stack((0 * s, s))[None], y.long()[None])[0]
            for s, y in zip(outputs, batch.y, strict=True)
        ]
    elif task.info.task == "lm":
        rows = [hinge(z, y).mean() for z, y in zip(outputs, batch.y, strict=True)]
    else:
        rows = [hinge(z[None], y[None])[0] for z, y in zip(outputs, batch.y, strict=True)]
    expected = torch.stack(rows)
    slopes = by_hand(task, expected.mean())
    torch.testing.assert_close(task.losses(batch), expected)
    torch.testing.assert_close(task.backward(batch), expected.mean().detach())
    for a, b in zip(grads(task), slopes, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_weights_are_computed_once_and_used_again() -> None:
    task, calls = classification(), []

    def reweigh(at: Task, batch: Batch, losses: Tensor) -> Tensor:
        assert at is task
        assert not losses.requires_grad
        calls.append(losses)
        return losses**2

    task.reweighting = reweigh
    batch = task.data.next()
    losses = F.cross_entropy(task.model(batch.x), batch.y, reduction="none")
    expected = (losses.detach() ** 2 * losses).mean()
    slopes = by_hand(task, expected)
    torch.testing.assert_close(task.backward(batch), expected.detach())
    close(grads(task), slopes)
    with torch.no_grad():
        for p in task.params:
            p.mul_(1.5)
    moved = F.cross_entropy(task.model(batch.x), batch.y, reduction="none")
    torch.testing.assert_close(task.backward(batch), (calls[0] ** 2 * moved).mean().detach())
    assert len(calls) == 1
    task.backward(task.data.next())
    assert len(calls) == 2


def test_weights_that_come_with_a_batch_count_without_a_reweighting() -> None:
    task = classification()
    batch = task.data.next()
    batch.weights = torch.arange(8, dtype=torch.float64)
    losses = F.cross_entropy(task.model(batch.x), batch.y, reduction="none")
    slopes = by_hand(task, (batch.weights * losses).sum() / 8)
    task.backward(batch)
    close(grads(task), slopes)


def test_an_objective_owns_its_forward_passes() -> None:
    task = classification()
    batch = task.data.next()
    slopes = by_hand(task, (task.model(batch.x) ** 2).sum(1).mean())
    task.objective = lambda at, b: (at.outputs(b) ** 2).sum(1)
    task.backward(batch)
    close(grads(task), slopes)
    task.reweighting = lambda at, b, losses: 3 * torch.ones_like(losses)
    task.backward(batch)
    close(grads(task), [3 * g for g in slopes])


def test_a_batch_level_objective_wants_the_whole_batch() -> None:
    task = classification()
    task.objective = lambda at, b: at.outputs(b).logsumexp((0, 1))
    batch = task.data.next(6)
    slopes = by_hand(task, task.model(batch.x).logsumexp((0, 1)))
    task.backward(batch, denominator=6)
    close(grads(task), slopes)
    with pytest.raises(UserError, match="no mean over rows"):
        task.backward(batch, denominator=24)


@pytest.mark.parametrize("chunk", [24, 7, 1])
def test_backward_all_is_the_mean_over_the_training_split(chunk: int) -> None:
    task = classification()
    expected = F.cross_entropy(task.model(task.data.x), task.data.y)
    slopes, before = by_hand(task, expected), meters(task)
    torch.testing.assert_close(task.backward_all(chunk), expected.detach())
    close(grads(task), slopes)
    assert [b - a for a, b in zip(before, meters(task), strict=True)] == [24, 24, 0, 24]


def test_pieces_of_a_batch_add_up() -> None:
    task = classification()
    batch = task.data.next()
    whole = task.backward(batch)
    slopes = grads(task)
    pieces = [task.backward(piece, denominator=8) for piece in batch.split(3)]
    assert [len(piece) for piece in batch.split(3)] == [3, 3, 2]
    torch.testing.assert_close(torch.stack(pieces).sum(), whole)
    close(grads(task), slopes)


@pytest.mark.parametrize("make", [classification, binary, lambda: language(token_model)])
def test_per_sample_gradients_are_each_rows_and_average_to_the_batchs(make: Any) -> None:
    task = make()
    batch = task.data.next()
    each = task.per_sample_grads(batch)
    names = [name for name, _ in task.model.named_parameters()]
    assert list(each) == names
    for row in range(8):
        task.backward(batch.select(slice(row, row + 1)))
        close([each[name][row] for name in names], grads(task))
    task.backward(batch)
    close([each[name].mean(0) for name in names], grads(task))


def test_per_sample_gradients_are_those_of_the_loss_part() -> None:
    task = classification()
    task.loss = hinge
    batch = task.data.next()
    each = task.per_sample_grads(batch)
    task.backward(batch)
    for got, expected in zip(each.values(), grads(task), strict=True):
        torch.testing.assert_close(got.mean(0), expected, rtol=1e-5, atol=1e-6)


def test_losses_at_other_parameters() -> None:
    task = classification()
    batch = task.data.next()
    params = {name: p.detach() * 2 for name, p in task.model.named_parameters()}
    twin = copy.deepcopy(task.model)
    with torch.no_grad():
        for p in twin.parameters():
            p.mul_(2)
    expected = F.cross_entropy(twin(batch.x), batch.y, reduction="none")
    torch.testing.assert_close(task.losses(batch, params), expected)
    torch.testing.assert_close(task.outputs(batch, params), twin(batch.x))


def test_hvp_is_the_slope_of_the_gradient() -> None:
    task = classification()
    batch = task.data.next()
    v = [normal(10 + i, *p.shape) for i, p in enumerate(task.params)]
    got = task.hvp(batch, v)
    start, step, sides = weights(task), 1e-5, []
    for sign in (1, -1):
        with torch.no_grad():
            for p, w, d in zip(task.params, start, v, strict=True):
                p.copy_(w + sign * step * d)
        task.backward(batch)
        sides.append(grads(task))
    for h, up, down in zip(got, *sides, strict=True):
        torch.testing.assert_close(h, (up - down) / (2 * step), rtol=1e-6, atol=1e-8)


def test_hvp_leaves_gradients_and_statistics_alone() -> None:
    task = images(conv_net)
    batch = task.data.next()
    before = copy.deepcopy(task.model.state_dict())
    task.hvp(batch, [torch.ones_like(p) for p in task.params])
    assert all(p.grad is None for p in task.params)
    assert all(
        torch.equal(a, b) for a, b in zip(before.values(), task.model.state_dict().values(), strict=True)
    )
    task.backward(batch)
    assert task.model[1].num_batches_tracked.item() == 1  # training goes on counting


# -- meters --------------------------------------------------------------------------------------------


def in_pieces(task: Task, batch: Batch) -> None:
    for piece in batch.chunks(3):
        task.backward(piece, denominator=8)


@pytest.mark.parametrize(
    ("call", "forward", "backward", "hvp"),
    [
        (lambda t, b: t.backward(b), 8, 8, 0),
        (lambda t, b: [t.backward(b), t.backward(b)], 16, 16, 0),
        (in_pieces, 8, 8, 0),
        (lambda t, b: t.outputs(b), 8, 0, 0),
        (lambda t, b: t.outputs(b).sum().backward(), 8, 8, 0),
        (lambda t, b: t.losses(b).mean().backward(), 8, 8, 0),
        (lambda t, b: t.losses(b, dict(t.model.named_parameters())).mean().backward(), 8, 8, 0),
        (lambda t, b: torch.no_grad()(t.losses)(b), 8, 0, 0),
        (lambda t, b: t.model(b.x), 8, 0, 0),
        (lambda t, b: t.model(b.x[:3]).sum().backward(), 3, 3, 0),
        (lambda t, b: copy.deepcopy(t.model)(b.x).sum().backward(), 8, 8, 0),
        (lambda t, b: torch.autograd.grad(t.model(b.x).sum(), t.params[0]), 8, 8, 0),
        (lambda t, b: t.per_sample_grads(b), 8, 8, 0),
        (lambda t, b: t.hvp(b, [torch.ones_like(p) for p in t.params]), 0, 0, 8),
        (lambda t, b: t.spawn(name="a").backward(b), 8, 8, 0),
        (lambda t, b: t.spawn(name="a").losses(b).mean().backward(), 8, 8, 0),
        (lambda t, b: t.spawn(model=mlp().double()).model(b.x).sum().backward(), 8, 8, 0),
        (lambda t, b: t.spawn().spawn().per_sample_grads(b), 8, 8, 0),
    ],
)
@pytest.mark.parametrize("part", ["none", "loss", "reweighting", "objective", "hooked"])
def test_meters_are_exact(call: Any, forward: int, backward: int, hvp: int, part: str) -> None:
    task = classification()
    task.loss = hinge if part == "loss" else None
    task.reweighting = (lambda t, b, losses: torch.ones_like(losses)) if part == "reweighting" else None
    task.objective = (lambda t, b: t.losses(b)) if part == "objective" else None
    if part == "hooked":  # somebody else's hook on the model
        task.model.register_forward_hook(lambda *_: None)
    batch = task.data.next()
    before = meters(task)
    call(task, batch)
    weighed = 8 if part == "reweighting" and call is in_pieces else 0  # in a pass of its own
    assert [b - a for a, b in zip(before, meters(task), strict=True)] == [forward + weighed, backward, hvp, 0]


def test_paused_meters_stand_still_but_for_drawn_rows() -> None:
    task = classification()
    with task.cost.paused():
        batch = task.data.next()
        task.backward(batch)
        task.losses(batch).sum().backward()
    assert meters(task) == (0, 0, 0, 8)
    task.backward(batch)
    assert meters(task) == (8, 8, 0, 8)


def test_an_input_gradient_is_counted() -> None:
    task = classification()
    x = task.data.next().x.requires_grad_()
    torch.autograd.grad(task.model(x).sum(), x)
    assert meters(task)[:2] == (8, 8)


@pytest.mark.parametrize("copied", [False, True])
def test_a_model_that_wraps_the_old_one_is_counted_once(copied: bool) -> None:
    task = classification()
    task.operate(lambda model, t: nn.Sequential(copy.deepcopy(model) if copied else model, nn.Identity()))
    batch = task.data.next()
    task.backward(batch)
    assert meters(task)[:2] == (8, 8)
    task.losses(batch).mean().backward()
    assert meters(task)[:2] == (16, 16)


def test_samples_are_gradient_equivalents() -> None:
    assert Cost(forward=3, backward=3).samples == 3
    assert Cost(forward=3).samples == 1
    assert Cost(hvp=3).samples == 6
    cost = Cost(1, 2, 3, 4, 5, 6)
    fresh = Cost()
    fresh.load_state_dict(through_disk(cost.state_dict()))
    assert fresh == cost


def test_progress_is_drawn_rows_over_the_budget() -> None:
    task = classification()
    assert task.progress == 0
    task.data.next(200)
    assert task.progress == 0.25
    task.data.next(800)
    assert task.progress == 1


def test_per_sample_gradients_are_refused_where_batch_norm_mixes_rows() -> None:
    task = images(conv_net)
    batch = task.data.next(4)
    task.model.train()
    with pytest.raises(TypeError, match="batch norm mixes rows"):
        task.per_sample_grads(batch)
    task.model.eval()
    grads = task.per_sample_grads(batch)
    task.losses(batch).mean().backward()
    for (name, per_row), p in zip(grads.items(), task.params, strict=True):
        assert p.grad is not None and torch.allclose(per_row.mean(0), p.grad), name


def test_a_model_with_complex_parameters_is_refused() -> None:
    def build() -> nn.Module:
        model = mlp()
        model.spectrum = nn.Parameter(torch.ones(2, dtype=torch.complex64))
        return model

    with pytest.raises(
        UserError, match=r"the model's spectrum is complex: make it real \(torch.view_as_real\)"
    ):
        classification(build)

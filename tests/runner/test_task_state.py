"""The task: generators, models, sub-tasks, checkpoints, batch-norm statistics."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from runner.contract.batch_norm import batch_norms, frozen_statistics
from runner.contract.seeding import derive
from runner.contract.stream import Stream
from runner.contract.task import Task
from tests.problems import through_disk
from tests.tasks import classification, conv_net, images, meters, mlp, normal, weights

# -- generators ----------------------------------------------------------------------------------------


def test_generators_are_named_and_seeded_by_the_cell() -> None:
    def draw(name: str, seed: int = 0) -> list[float]:
        return torch.rand(4, generator=classification(seed=seed).rng(name)).tolist()

    expected = torch.rand(4, generator=torch.Generator().manual_seed(derive(0, "rng", "a"))).tolist()
    assert draw("a") == draw("a") == expected
    assert len({tuple(draw(*at)) for at in (("a", 0), ("b", 0), ("a", 1))}) == 3
    task = classification()
    assert task.rng("a") is task.rng("a")


@pytest.mark.parametrize("used_before_loading", [False, True])
def test_generators_resume(used_before_loading: bool) -> None:
    first, second = classification(), classification()
    torch.rand(3, generator=first.rng("a"))
    torch.rand(5, generator=first.rng("b"))
    if used_before_loading:
        torch.rand(7, generator=second.rng("a"))
    second.load_state_dict(through_disk(first.state_dict()))
    for name in "ab":
        expected = torch.rand(4, generator=first.rng(name))
        assert torch.equal(torch.rand(4, generator=second.rng(name)), expected)


def test_a_state_that_nobody_asked_for_is_kept() -> None:
    first, second, third = classification(), classification(), classification()
    torch.rand(3, generator=first.rng("late"))
    first.spawn(name="sub").data.next()
    second.load_state_dict(through_disk(first.state_dict()))
    third.load_state_dict(through_disk(second.state_dict()))
    assert torch.equal(torch.rand(4, generator=third.rng("late")), torch.rand(4, generator=first.rng("late")))
    assert third.spawn(name="sub").data.position == 8


# -- models and sub-tasks ------------------------------------------------------------------------------


def test_reset_model_draws_anew_in_place() -> None:
    task = images(conv_net)
    task.backward(task.data.next())
    params, before = task.params, weights(task)
    state = torch.get_rng_state()
    task.reset_model()
    assert torch.equal(torch.get_rng_state(), state)  # the global generator belongs to dropout
    torch.manual_seed(derive(task.seed, "reset", 1))
    fresh = conv_net()
    assert task.params is params
    assert all(a is b for a, b in zip(task.model.parameters(), params, strict=True))
    for key, value in fresh.state_dict().items():
        assert torch.equal(task.model.state_dict()[key], value), key
    assert not torch.equal(before[0], params[0])
    assert meters(task)[:2] == (8, 8)


def widen(model: nn.Module, task: Task) -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 3)).double()


def test_surgery_is_repeated_by_reset_and_inherited_by_copies() -> None:
    task = classification()
    task.operate(widen)
    assert [tuple(p.shape) for p in task.params] == [(6, 5), (6,), (3, 6), (3,)]
    for at in (task, task.spawn(name="copy")):
        before = weights(at)
        at.reset_model()
        assert [p.shape for p in at.params] == [w.shape for w in before]
        assert not torch.equal(at.params[0], before[0])


def test_a_sub_task_has_its_own_copy_and_order_on_the_same_meters() -> None:
    task = classification()
    child = task.spawn(name="guide")
    assert child.cost is child.data.cost is task.cost
    assert all(torch.equal(a, b) for a, b in zip(child.params, task.params, strict=True))
    assert not {p.data_ptr() for p in child.params} & {p.data_ptr() for p in task.params}
    a, b = child.data.next(24).index, task.data.next(24).index
    assert a is not None
    assert b is not None
    assert not torch.equal(a, b)
    assert sorted(a.tolist()) == sorted(b.tolist())
    assert child.rng("x").initial_seed() != task.rng("x").initial_seed()
    child.backward(child.data.next())
    assert all(p.grad is None for p in task.params)
    assert meters(task) == (8, 8, 0, 56)
    with pytest.raises(ValueError, match="named 'guide' exists"):
        task.spawn(name="guide")


def test_a_sub_task_may_bring_its_model_and_rows() -> None:
    task, model = classification(), mlp().double()
    data = Stream(task.data.x[:10], task.data.y[:10], 4, 1)
    child = task.spawn(model, data, "proxy")
    assert child.model is model
    assert child.data is data
    child.backward(child.data.next())
    assert meters(task) == (4, 4, 0, 4)


@pytest.mark.parametrize("loaded_first", [False, True])
def test_sub_tasks_resume(loaded_first: bool) -> None:
    def grow(task: Task) -> Task:
        return task.spawn(name="guide").spawn(name="grandchild")

    first, second = classification(), classification()
    leaf = grow(first)
    leaf.data.next(5)
    torch.rand(3, generator=leaf.rng("x"))
    with torch.no_grad():
        leaf.params[0].add_(1)
    state = through_disk(first.state_dict())
    if loaded_first:
        second.load_state_dict(state)
        other = grow(second)
    else:
        other = grow(second)
        second.load_state_dict(state)
    assert torch.equal(other.params[0], leaf.params[0])
    assert torch.equal(other.data.next().x, leaf.data.next().x)
    assert torch.equal(torch.rand(2, generator=other.rng("x")), torch.rand(2, generator=leaf.rng("x")))


def test_training_streams_and_models_resume() -> None:
    def build() -> Task:
        task = images(conv_net)
        task.aux["clean"] = task.data.clone("clean")
        return task

    first, second = build(), build()
    for _ in range(5):
        first.backward(first.data.next())
        first.aux["clean"].next(3)
    second.load_state_dict(through_disk(first.state_dict()))
    assert torch.equal(first.data.next().x, second.data.next().x)
    assert torch.equal(first.aux["clean"].next().x, second.aux["clean"].next().x)
    assert torch.equal(first.model[1].running_mean, second.model[1].running_mean)


# -- batch-norm statistics -----------------------------------------------------------------------------


def test_frozen_statistics_survive_an_overflow_and_leave_evaluation_mode_alone() -> None:
    model = nn.BatchNorm1d(3).double()
    frozen = functools.partial(frozen_statistics, batch_norms(model))
    x = normal(0, 8, 3)
    model(x)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with frozen():
        torch.testing.assert_close(model(x * 5 + 1), nn.BatchNorm1d(3).double()(x * 5 + 1))
        model(x * torch.inf)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    model.eval()
    expected = model(x)
    with frozen():
        assert torch.equal(model(x), expected)
    model.train()
    model(x)
    assert model.num_batches_tracked is not None
    assert model.num_batches_tracked.item() == 2

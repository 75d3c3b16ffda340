"""Composed: every kind of part at its place, in the documented order, with the hooks it may have."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from runner.base.errors import UserError
from runner.contract.batch import Batch, Info
from runner.contract.task import Task
from runner.parts.composed import KINDS, Composed
from tests.problems import through_disk
from tests.tasks import assert_resumes, classification, follow, make_info, train

SGD = functools.partial(torch.optim.SGD, lr=0.4)
HOOKED = [k for k in KINDS if k not in ("wrapper", "objective")]  # the outermost wrapper is "optimizer"


class Double:
    """A part of any kind that writes down what is called."""

    uses_metrics = True

    def __init__(self, kind: str, log: list[str], act: Callable[..., Any]) -> None:
        self.kind, self.log, self.act, self.state = kind, log, act, 0

    def __call__(self, *args: Any) -> Any:
        self.log.append(self.kind)
        return self.act(*args)

    def setup(self, task: Task) -> None:
        assert isinstance(task, Task)
        self.log.append(f"{self.kind}.setup")

    def compatible(self, info: Info) -> str | None:
        assert isinstance(info, Info)
        self.log.append(f"{self.kind}.compatible")
        return None

    def after_step(self, task: Task) -> None:
        self.state += 1
        self.log.append(f"{self.kind}.after_step")

    def update(self, task: Task) -> None:
        self.log.append(f"{self.kind}.update")

    def observe(self, metrics: dict[str, float]) -> None:
        self.log.append(f"{self.kind}.observe {metrics}")

    def report(self) -> dict[str, float]:
        return {"state": float(self.state)}

    def state_dict(self) -> dict[str, Any]:
        return {"state": self.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = state["state"]


class Swapping(Double):
    """Evaluates weights of its own: a constant."""

    constant = 2.0

    def swap_in(self, task: Task) -> None:
        self.log.append(f"{self.kind}.swap_in")
        torch._foreach_zero_(task.params)
        torch._foreach_add_(task.params, self.constant)

    def swap_out(self, task: Task) -> None:
        self.log.append(f"{self.kind}.swap_out")


class Halving(Double):
    """Evaluates half of whatever would be evaluated."""

    def map_evaluated(self, task: Task, trained: list[torch.Tensor]) -> None:
        self.log.append(f"{self.kind}.map_evaluated")
        torch._foreach_mul_(task.params, 0.5)

    def broken_promise(self, task: Task, trained: list[torch.Tensor]) -> str | None:
        return None if float(task.params[0].sum()) < 0 else "not negative"


class Outer:
    """A wrapper with every hook; wraps whatever optimizer there is."""

    def __init__(self, inner: Any, log: list[str], name: str) -> None:
        self.inner, self.log, self.name = inner, log, name
        self.double = Swapping("optimizer", log, lambda: None)
        log.append(f"wrap {name}({getattr(inner, 'name', 'sgd')})")

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.inner.param_groups

    def step(self) -> None:
        self.log.append(f"{self.name}.step")
        self.inner.step()

    def __getattr__(self, key: str) -> Any:
        if key in ("setup", "after_step", "swap_in", "swap_out", "report", "state_dict", "load_state_dict"):
            return getattr(self.double, key)
        raise AttributeError(key)


class LoudSGD(torch.optim.SGD):
    log: list[str]

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        self.log.append("sgd.step")
        super().step()


def everything(log: list[str], own: str = "loss") -> Composed:
    """A part of every kind; ``own`` is the loss or the objective, which exclude each other."""
    acts: dict[str, Callable[..., Any]] = {
        "surgery": lambda model, task: model,
        "groups": lambda task: [{"params": task.params}],
        "schedule": lambda progress: 1.0,
        "sampler": lambda task: task.data.next(),
        "loss": lambda outputs, targets: F.cross_entropy(outputs, targets, reduction="none"),
        "objective": lambda task, batch: task.outputs(batch).logsumexp(1),
        "reweighting": lambda task, batch, losses: torch.ones_like(losses),
        "estimator": lambda task, batch: task.backward(batch),
        "average": lambda: None,
    }
    del acts["objective" if own == "loss" else "loss"]
    doubles = {kind: Swapping if kind == "average" else Double for kind in acts}
    parts: Any = {kind: functools.partial(doubles[kind], kind, log, act) for kind, act in acts.items()}
    transforms: Any = {n: functools.partial(Double, f"transform.{n}", log, lambda p, g: None) for n in "ab"}
    wrappers: Any = {n: functools.partial(Outer, log=log, name=n) for n in ("inner", "outer")}
    LoudSGD.log = log
    optimizer = functools.partial(LoudSGD, lr=0.1)
    return Composed(optimizer, transform=transforms, wrapper=wrappers, **parts)


def hooked(own: str = "loss") -> list[str]:
    """Names of the parts with hooks, in their order."""
    names = [own if kind == "loss" else kind for kind in HOOKED]
    at = names.index("transform")
    return [*names[:at], "transform.a", "transform.b", *names[at + 1 :]]


# -- order ---------------------------------------------------------------------------------------------


def test_documented_order_of_kinds() -> None:
    assert KINDS == (
        "surgery", "groups", "schedule", "sampler", "loss", "objective", "reweighting", "estimator",
        "transform", "wrapper", "optimizer", "average",
    )  # fmt: skip


@pytest.mark.parametrize("own", ["loss", "objective"])
def test_set_up_operates_then_groups_then_builds_then_sets_up(own: str) -> None:
    log: list[str] = []
    everything(log, own).setup(classification())
    built = ["surgery", "groups", "wrap inner(sgd)", "wrap outer(inner)"]
    assert log == built + [f"{name}.setup" for name in hooked(own)]


@pytest.mark.parametrize("own", ["loss", "objective"])
def test_a_step_calls_every_part_once_and_in_order(own: str) -> None:
    log: list[str] = []
    task, algorithm = classification(), everything(log, own)
    algorithm.setup(task)
    for _ in range(2):
        log.clear()
        train(algorithm, task, 1)
        assert log == [
            "schedule", "sampler", "estimator", own, "reweighting", "transform.a", "transform.b",
            "outer.step", "inner.step", "sgd.step", "optimizer.after_step",
            *(f"{name}.after_step" for name in hooked(own) if name != "optimizer"), "average.update",
        ]  # fmt: skip


def test_an_average_is_evaluated_in_place_of_the_optimizers_own_weights() -> None:
    log: list[str] = []
    task, algorithm = classification(), everything(log)
    algorithm.setup(task)
    log.clear()
    algorithm.enter_eval(task)
    algorithm.enter_eval(task)
    assert log == ["average.swap_in"]
    algorithm.exit_eval(task)
    algorithm.exit_eval(task)
    assert log == ["average.swap_in", "average.swap_out"]


def test_a_map_sees_what_would_be_evaluated_and_training_weights_come_back() -> None:
    log: list[str] = []
    algorithm = Composed(
        functools.partial(torch.optim.SGD, lr=0.1),
        average=functools.partial(Swapping, "average", log, lambda: None),
        groups=functools.partial(Halving, "groups", log, lambda task: [{"params": task.params}]),
    )
    task = classification()
    algorithm.setup(task)
    train(algorithm, task, 2)
    before = [p.detach().clone() for p in task.params]
    algorithm.enter_eval(task)
    algorithm.enter_eval(task)
    assert all(bool((p == Swapping.constant / 2).all()) for p in task.params)
    assert algorithm.broken_promise(task) == "groups: not negative"
    algorithm.exit_eval(task)
    assert all(torch.equal(p, q) for p, q in zip(task.params, before, strict=True))


def test_two_parts_that_each_evaluate_weights_of_their_own_are_refused() -> None:
    two: Any = {
        kind: functools.partial(Swapping, kind, [], lambda *_: None) for kind in ("estimator", "average")
    }
    reason = Composed(SGD, **two).compatible(make_info())
    assert reason == "estimator and average each evaluate weights of their own, and only one of them can"
    two = {kind: functools.partial(Halving, kind, [], lambda *_: None) for kind in ("estimator", "groups")}
    reason = Composed(SGD, **two).compatible(make_info())
    assert reason is not None
    assert "groups and estimator both change the weights that are evaluated" in reason


def test_compatible_asks_every_part_before_set_up() -> None:
    log: list[str] = []
    assert everything(log).compatible(make_info()) is None
    assert log == [f"{name}.compatible" for name in hooked() if name != "optimizer"]


# -- what the parts are given ----------------------------------------------------------------------------


def test_bare_is_backprop_on_the_stream() -> None:
    task, stream = classification(), classification().data
    model = classification().model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.4)
    for got in follow(Composed(SGD), task, 5):
        batch = stream.next()
        optimizer.zero_grad()
        F.cross_entropy(model(batch.x), batch.y).backward()
        optimizer.step()
        torch.testing.assert_close(got, torch.cat([p.detach().flatten() for p in model.parameters()]))


def test_schedule_scales_every_groups_own_base_rate() -> None:
    task, seen = classification(), []

    def schedule() -> Any:
        return lambda progress: seen.append(progress) or 1 - progress

    def groups() -> Any:
        return lambda task: [{"params": task.params[:1], "lr": 0.5}, {"params": task.params[1:]}]

    algorithm = Composed(SGD, schedule=schedule, groups=groups)
    algorithm.setup(task)
    for step in range(4):
        train(algorithm, task, 1)
        assert seen[-1] == step * 8 / 800
        rates = [group["lr"] for group in algorithm.optimizer.param_groups]
        assert rates == pytest.approx([0.5 * (1 - seen[-1]), 0.4 * (1 - seen[-1])])
    assert algorithm.report()["lr"] == pytest.approx(0.5 * (1 - 24 / 800))


def test_groups_scale_what_the_optimizer_has_filled_in() -> None:
    def groups() -> Any:
        return lambda task: [
            {"params": task.params[:1], "lr_scale": 0.1, "weight_decay_scale": 3.0},
            {"params": task.params[1:2], "lr_scale": 0.5, "lr": 8.0, "momentum_scale": 2.0},
            {"params": task.params[2:]},
        ]

    algorithm = Composed(functools.partial(SGD, weight_decay=0.2, momentum=0.1), groups=groups)
    algorithm.setup(classification())
    kept = [(g["lr"], g["weight_decay"], g["momentum"]) for g in algorithm.optimizer.param_groups]
    assert kept == [
        pytest.approx((0.04, 0.6, 0.1)),
        pytest.approx((4.0, 0.2, 0.1)),
        pytest.approx((0.4, 0.2, 0.1)),
    ]


class Tally:
    """A schedule that counts steps in a tensor, and takes a loaded state as it is."""

    def __init__(self) -> None:
        self.steps = torch.zeros(())

    def __call__(self, progress: float) -> float:
        self.steps += 1
        return 1.0

    def state_dict(self) -> dict[str, Tensor]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.steps = state["steps"]


def test_a_restart_begins_with_the_state_of_the_beginning() -> None:
    """Momentum and all; and the state that was kept is not the one that goes on to be trained."""
    momentum = functools.partial(torch.optim.SGD, lr=0.2, momentum=0.9)
    task, algorithm = classification(), Composed(momentum, schedule=Tally)
    algorithm.setup(task)
    beginning = algorithm.beginning(task)
    for _ in range(2):
        train(algorithm, task, 3)
        assert algorithm.optimizer.state and algorithm.state_dict()["schedule"]["steps"] == 3
        algorithm.restart(task, beginning)
        assert not algorithm.optimizer.state and algorithm.state_dict()["schedule"]["steps"] == 0


def test_the_estimator_finds_no_old_gradients_and_the_samplers_batch() -> None:
    batches: list[Batch] = []

    def sampler() -> Any:
        return lambda task: batches.append(task.data.next(3)) or batches[-1]

    def estimator() -> Any:
        def call(task: Task, batch: Batch) -> Tensor:
            assert batch is batches[-1]
            assert all(p.grad is None for p in task.params)
            return task.backward(batch)

        return call

    task = classification()
    follow(Composed(SGD, sampler=sampler, estimator=estimator), task, 3)
    assert task.cost.drawn == 9


def test_transforms_apply_in_order_to_parameters_that_have_gradients() -> None:
    def spare(model: torch.nn.Module, task: Task) -> torch.nn.Module:
        model.register_parameter("spare", torch.nn.Parameter(torch.ones(2, dtype=torch.float64)))
        return model

    def add(params: list[Tensor], grads: list[Tensor]) -> None:
        assert [p.shape for p in params] == [g.shape for g in grads]
        assert len(params) == 4
        torch._foreach_add_(grads, 1.0)

    def double(params: list[Tensor], grads: list[Tensor]) -> None:
        torch._foreach_mul_(grads, 2.0)

    def after(**transforms: Any) -> Tensor:
        specs = {name: functools.partial(lambda part: part, part) for name, part in transforms.items()}
        return follow(Composed(SGD, transform=specs or None, surgery=lambda: spare), classification(), 1)[0]

    start, plain = (
        follow(
            Composed(functools.partial(torch.optim.SGD, lr=0.0), surgery=lambda: spare), classification(), 1
        )[0],
        after(),
    )
    gradient = (start - plain) / 0.4
    has = torch.ones_like(gradient)
    has[:2] = 0  # the spare parameter comes first: the model's own
    torch.testing.assert_close(after(a=add, b=double), start - 0.4 * has * (gradient + 1) * 2)
    torch.testing.assert_close(after(a=double, b=add), start - 0.4 * has * (gradient * 2 + 1))
    torch.testing.assert_close(
        follow(Composed(SGD, transform=lambda: double, surgery=lambda: spare), classification(), 1)[0],
        start - 0.8 * gradient,
    )


def test_wrappers_wrap_in_order_and_a_single_one_needs_no_name() -> None:
    log: list[str] = []
    algorithm = Composed(SGD, wrapper=functools.partial(Outer, log=log, name="only"))
    algorithm.setup(classification())
    assert log[0] == "wrap only(sgd)"
    assert algorithm.optimizer.name == "only"


def test_an_optimizer_that_needs_the_loss_gets_it() -> None:
    class Polyak(torch.optim.SGD):
        needs_loss = True
        seen: list[Tensor] = []  # noqa: RUF012

        def step(self, closure: None = None, *, loss: Tensor) -> None:  # type: ignore[override]
            self.seen.append(loss)
            super().step()

    algorithm = Composed(functools.partial(Polyak, lr=0.1))
    task = classification()
    algorithm.setup(task)
    losses = [algorithm.step(task) for _ in range(3)]
    assert all(
        a is b and a.dim() == 0 and not a.requires_grad for a, b in zip(losses, Polyak.seen, strict=True)
    )


def test_after_step_hooks_act_before_the_average_looks() -> None:
    """A projection behind the optimizer step is a part of that step."""
    seen: list[Tensor] = []

    class Project:
        def __call__(self, task: Task, batch: Batch) -> Tensor:
            return task.backward(batch)

        def after_step(self, task: Task) -> None:
            with torch.no_grad():
                for p in task.params:
                    p.clamp_(-0.1, 0.1)

    class Average:
        def update(self, task: Task) -> None:
            seen.append(torch.cat([p.detach().flatten() for p in task.params]).abs().max())

    follow(Composed(SGD, estimator=Project, average=Average), classification(), 2)
    assert all(value <= 0.1 for value in seen)


# -- what it says of itself ------------------------------------------------------------------------------


def test_reports_carry_the_name_of_their_part() -> None:
    task, algorithm = classification(), everything([])
    algorithm.setup(task)
    train(algorithm, task, 3)
    assert algorithm.report() == {"lr": 0.1} | {f"{name}/state": 3.0 for name in hooked()}


def test_metrics_go_to_the_parts_that_use_them() -> None:
    log: list[str] = []
    algorithm = everything(log)
    assert algorithm.uses_metrics
    algorithm.setup(classification())
    log.clear()
    algorithm.observe({"validation/loss": 1.0})
    # The outermost wrapper here does not use them.
    assert log == [f"{name}.observe {{'validation/loss': 1.0}}" for name in hooked() if name != "optimizer"]
    assert not Composed(SGD).uses_metrics


class Watchful(torch.optim.SGD):
    uses_metrics = True

    @staticmethod
    def compatible(info: Info) -> str | None:
        return "needs tokens" if info.task != "lm" else None


@pytest.mark.parametrize("spec", [Watchful, {"_target_": f"{__name__}.Watchful"}])
@pytest.mark.parametrize("kind", ["optimizer", "wrapper"])
def test_optimizers_and_wrappers_are_asked_before_they_are_built(kind: str, spec: Any) -> None:
    algorithm = Composed(spec) if kind == "optimizer" else Composed(SGD, wrapper={"w": spec})
    assert algorithm.uses_metrics
    where = "optimizer" if kind == "optimizer" else "wrapper.w"
    assert algorithm.compatible(make_info()) == f"{where}: needs tokens"
    assert algorithm.compatible(make_info("lm")) is None


def test_a_reason_names_its_part() -> None:
    class Picky:
        def __call__(self, params: list[Tensor], grads: list[Tensor]) -> None: ...

        def compatible(self, info: Info) -> str | None:
            return "wants images" if len(info.input_shape) < 3 else None

    algorithm = Composed(SGD, transform={"clip": Picky})
    assert algorithm.compatible(make_info()) == "transform.clip: wants images"
    assert algorithm.compatible(make_info(input_shape=(1, 8, 8))) is None


def flagged(**flags: Any) -> Callable[[], Any]:
    part = Double("x", [], lambda *args: None)
    for name, value in flags.items():
        setattr(part, name, value)
    return lambda: part


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"loss": flagged(), "objective": flagged()}, "a loss and an objective exclude each other"),
        ({"objective": flagged(batch_level=True), "reweighting": flagged()}, "no per-example losses"),
        (
            {"objective": flagged(batch_level=True), "estimator": flagged(per_example=True)},
            "not an objective's",
        ),
        ({"objective": flagged(), "estimator": flagged(per_example=True)}, "not an objective's"),
        ({"surgery": flagged(batch_level=True), "estimator": flagged(per_example=True)}, "whole batches"),
        ({"objective": flagged(), "sampler": flagged(per_example=True)}, "sampler: its per-example"),
        (
            {"objective": flagged(), "transform": {"t": flagged(per_example=True)}},
            "transform.t: its per-example",
        ),
        ({"surgery": flagged(batch_level=True), "sampler": flagged(per_example=True)}, "whole batches"),
        ({"sampler": flagged(per_example=True), "estimator": flagged(forward_only=True)}, "backward passes"),
        ({"objective": flagged(), "reweighting": flagged(own_gradients=True)}, "an objective replaces"),
        (
            {"surgery": flagged(changes_gradient=True), "reweighting": flagged(own_gradients=True)},
            "the surgery changes",
        ),
        (
            {"surgery": flagged(changes_gradient=True), "estimator": flagged(forward_only=True)},
            "the estimator makes none",
        ),
        (
            {"objective": flagged(changes_gradient=True), "estimator": flagged(forward_only=True)},
            "the estimator makes none",
        ),
        (
            {"objective": flagged(batch_level=True), "estimator": flagged(splits_batches=True)},
            "the estimator splits them",
        ),
        (
            {"surgery": flagged(batch_level=True), "estimator": flagged(splits_batches=True)},
            "the estimator splits them",
        ),
        ({"sampler": flagged(workers=10), "estimator": flagged(workers=4)}, "deals rows to 10 workers"),
        ({"sampler": flagged(least_rows=8), "estimator": flagged(workers=10)}, "the sampler draws 8"),
    ],
)
def test_clashes_are_reported(parts: dict[str, Any], reason: str) -> None:
    assert reason in str(Composed(SGD, **parts).compatible(make_info()))


@pytest.mark.parametrize(
    "parts",
    [
        {"objective": flagged(), "reweighting": flagged()},
        {"loss": flagged(), "reweighting": flagged(), "estimator": flagged(per_example=True)},
        {"objective": flagged(batch_level=True), "estimator": flagged()},
        {"surgery": flagged(), "estimator": flagged(per_example=True)},
        {"surgery": flagged(changes_gradient=True), "estimator": flagged(changes_gradient=True)},
        {"objective": flagged(), "estimator": flagged(forward_only=True), "sampler": flagged(least_rows=1)},
        {"objective": flagged(), "estimator": flagged(splits_batches=True)},
        {"reweighting": flagged(own_gradients=True), "estimator": flagged(splits_batches=True)},
        {"sampler": flagged(workers=4, least_rows=8), "estimator": flagged(workers=4)},
        {"sampler": flagged(workers=4), "estimator": flagged()},
    ],
)
def test_what_goes_together_is_not_refused(parts: dict[str, Any]) -> None:
    assert Composed(SGD, **parts).compatible(make_info()) is None


@pytest.mark.parametrize(
    "part",
    [{"estimator": flagged(changes_gradient=True)}, {"transform": {"t": flagged(changes_gradient=True)}}],
)
def test_a_loss_and_another_gradient_are_no_pair(part: dict[str, Any]) -> None:
    class Paired(torch.optim.SGD):
        needs_loss = True

    assert Composed(SGD, **part).compatible(make_info()) is None
    for spec in (Paired, {"_target_": "algorithms.optimizers.momo_adam.MomoAdam"}):
        reason = Composed(spec, **part).compatible(make_info())
        assert str(reason).startswith("optimizer: needs the loss and its gradient at the same point")


def test_surgery_opens_the_division_unless_it_preserves_the_function() -> None:
    assert not Composed(SGD).open_division
    assert Composed(SGD, surgery=flagged()).open_division
    assert not Composed(SGD, surgery=flagged(function_preserving=True)).open_division


def test_predict_is_the_losss() -> None:
    assert Composed(SGD).predict is None
    assert Composed(SGD, loss=flagged(predict=torch.exp)).predict is torch.exp


def test_the_parts_that_wait_most_often_say_how_often() -> None:
    algorithm = Composed(SGD, sampler=flagged(syncs_every=20), transform={"t": flagged(syncs_every=5)})
    algorithm.setup(classification())
    assert algorithm.syncs_every == 5
    bare = Composed(SGD)
    bare.setup(classification())
    assert bare.syncs_every == 0


def test_a_part_that_refuses_a_value_names_the_key() -> None:
    spec = {"_target_": "algorithms.transforms.coord_clip.CoordClip", "fraction": 2.0}
    with pytest.raises(
        UserError, match=r"algorithm\.transform\.clip .*fraction must lie in \[0, 1\), got 2\.0"
    ):
        Composed(SGD, transform={"clip": spec})
    broken = Composed({"_target_": "torch.optim.SGD", "lr": -1.0})
    with pytest.raises(UserError, match=r"algorithm\.optimizer .*learning rate"):
        broken.setup(classification())


# -- state -----------------------------------------------------------------------------------------------


def test_state_of_every_part_survives_a_checkpoint() -> None:
    task, algorithm = classification(), everything([])
    algorithm.setup(task)
    train(algorithm, task, 4)
    fresh = everything([])
    fresh.setup(classification())
    fresh.load_state_dict(through_disk(algorithm.state_dict()))
    assert fresh.report() == {"lr": 0.1} | {f"{name}/state": 4.0 for name in hooked()}


def test_momentum_and_schedule_resume() -> None:
    momentum = functools.partial(torch.optim.SGD, lr=0.2, momentum=0.9)

    def schedule() -> Any:
        return lambda progress: 1 - 5 * progress

    assert_resumes(lambda: Composed(momentum, schedule=schedule), classification)


def test_the_schedule_still_drives_the_optimizer_after_a_resume() -> None:
    def schedule() -> Any:
        return lambda progress: 1 - progress

    task, algorithm = classification(), Composed(SGD, schedule=schedule)
    algorithm.setup(task)
    train(algorithm, task, 1)
    algorithm.load_state_dict(through_disk(algorithm.state_dict()))
    train(algorithm, task, 5)
    assert algorithm.optimizer.param_groups[0]["lr"] == pytest.approx(0.4 * (1 - 40 / 800))

"""What torch's own tests ask of every optimizer, asked of every YAML of an optimizer, alone and wrapped.

A method is found by its YAML: nothing here knows its name. Copies, loaded states, groups, layouts, types, an
lr that is a tensor, empty and late parameters, sparse and complex ones, hooks.
"""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from algorithms.optimizers._base import Base
from runner.base.errors import UserError
from runner.check.same import difference
from runner.contract.instantiate import NOT_ARGUMENTS, build_part
from runner.parts.composed import Composed
from tests.problems import CONF, PROBLEMS, Problem, continue_optimizer, flat, part_config, through_disk
from tests.tasks import classification, normal, train

MLP = PROBLEMS[2]
Params = list[nn.Parameter]
read = functools.cache(part_config)


def names(kind: str) -> list[str]:
    return sorted(path.stem for path in (CONF / kind).glob("*.yaml"))


class Case(NamedTuple):
    """An optimizer, alone or in a wrapper."""

    optimizer: str
    wrapper: str | None = None

    def __str__(self) -> str:
        return self.optimizer if self.wrapper is None else f"{self.wrapper}-{self.optimizer}"

    def make(self, params: Params, other: bool = False, **changes: Any) -> Any:
        """Built from the YAMLs; ``other`` than their defaults."""
        return self.on(grouped(params), other, **changes)

    def on(self, groups: list[dict[str, Any]], other: bool = False, **changes: Any) -> Any:
        """:meth:`make`, on groups."""
        config = read("optimizer", self.optimizer)
        config = config | (others(config) if other else {}) | changes
        optimizer = build_part("optimizer", config, groups)
        if self.wrapper is None:
            return optimizer
        config = read("wrapper", self.wrapper)
        return build_part("wrapper", config | (others(config) if other else {}), optimizer)


def grouped(params: Params) -> list[dict[str, Any]]:
    """Matrices and the rest, with what only some optimizers want to know."""
    matrices, vectors = ([p for p in params if (p.ndim > 1) == wide] for wide in (True, False))
    groups = [{"params": matrices, "use_muon": True}, {"params": vectors, "use_muon": False}]
    return [group for group in groups if group["params"]]


def others(config: dict[str, Any]) -> dict[str, Any]:
    """Every number of a YAML at another value, so that a default would be seen."""
    arguments = {
        key: value for key, value in config.items() if key not in (*NOT_ARGUMENTS, "fused", "dampening")
    }
    return {key: other(value) for key, value in arguments.items() if not isinstance(value, (str, type(None)))}


def other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        return [other(entry) for entry in value]
    if isinstance(value, int):
        return max(1, value // 2)
    return value / 2 if value else 0.25


def accepted(case: Case) -> bool:
    try:
        case.make(MLP.params())
    except UserError:
        return False
    return True


ALONE = [Case(name) for name in names("optimizer")]
CASES = [*ALONE, *filter(accepted, (Case(o, w) for w in names("wrapper") for o in names("optimizer")))]
OURS = [case for case in CASES if isinstance(case.make(MLP.params()), Base)]
every = pytest.mark.parametrize("case", CASES, ids=str)
ours = pytest.mark.parametrize("case", OURS, ids=str)
alone = pytest.mark.parametrize("case", ALONE, ids=str)


def test_all_were_found() -> None:
    assert len(ALONE) >= 15
    assert {case.wrapper for case in CASES} == {None, *names("wrapper")}
    assert len(CASES) > 2 * len(ALONE)


def pull(start: list[Tensor]) -> Problem:
    """Half the squared distance to a fixed point of each parameter."""
    ends = [normal(i, *p.shape).to(p.dtype) for i, p in enumerate(start)]
    return Problem(
        "pull",
        tuple(start),
        lambda p: sum_of((a - b).square().sum() / 2 for a, b in zip(p, ends, strict=True)),
    )


def sum_of(terms: Any) -> Tensor:
    return torch.stack(list(terms)).sum()


def begun(case: Case, steps: int = 3, **options: Any) -> tuple[Any, Params]:
    params = MLP.params()
    optimizer = case.make(params, **options)
    if steps:
        continue_optimizer(optimizer, params, steps, MLP)
    return optimizer, params


def fresh(params: Params) -> Params:
    return [nn.Parameter(p.detach().clone()) for p in params]


# -- copies and states ---------------------------------------------------------------------------------

COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda pair: pickle.loads(pickle.dumps(pair)),
}


@pytest.mark.parametrize("way", COPIES)
@every
def test_a_copy_goes_on_as_its_original(case: Case, way: str) -> None:
    for steps in (0, 3):
        pair = begun(case, steps, other=True)
        optimizer, params = COPIES[way](pair)
        assert torch.equal(continue_optimizer(optimizer, params, 5, MLP), continue_optimizer(*pair, 5, MLP))
        assert repr(optimizer) == repr(pair[0])


@pytest.mark.parametrize("drawn", [0, 360])  # parts change what they do at the start and in the middle
@every
def test_a_copy_goes_on_in_a_task(case: Case, drawn: int) -> None:
    task = classification()
    wrapper = None if case.wrapper is None else read("wrapper", case.wrapper)
    algorithm = Composed(
        read("optimizer", case.optimizer),
        groups=lambda: lambda task: grouped(task.params),
        wrapper=wrapper,
    )
    algorithm.setup(task)
    train(algorithm, task, 2)
    task.cost.drawn += drawn
    twin = copy.deepcopy(algorithm.optimizer)
    params = [p for group in twin.param_groups for p in group["params"]]
    originals = [p for group in algorithm.optimizer.param_groups for p in group["params"]]
    for _ in range(6):
        loss = train(algorithm, task, 1)[0]
        for p, original in zip(params, originals, strict=True):
            p.grad = None if original.grad is None else original.grad.clone()
        twin.step(**({"loss": loss} if getattr(twin, "needs_loss", False) else {}))
        if hasattr(twin, "after_step"):
            twin.after_step(task)
        assert torch.equal(flat(params), flat(originals))


@every
def test_a_loaded_state_restores_all(case: Case) -> None:
    for steps in (0, 3):
        optimizer, params = begun(case, steps, other=True)
        again = fresh(params)
        resumed = case.make(again)
        resumed.load_state_dict(through_disk(optimizer.state_dict()))
        assert torch.equal(
            continue_optimizer(resumed, again, 5, MLP), continue_optimizer(optimizer, params, 5, MLP)
        )


@ours
def test_a_loaded_state_is_a_copy(case: Case) -> None:
    optimizer, params = begun(case)
    state = optimizer.state_dict()
    before = copy.deepcopy(state)
    again = fresh(params)
    resumed = case.make(again)
    resumed.load_state_dict(state)
    continue_optimizer(resumed, again, 3, MLP)
    assert difference(optimizer.state_dict(), before) is None
    assert resumed.param_groups[0]["params"][0] is again[0]


@alone
def test_step_counts_may_be_numbers(case: Case) -> None:
    optimizer, params = begun(case)
    state = copy.deepcopy(optimizer.state_dict())
    for entries in state["state"].values():
        if isinstance(entries.get("step"), Tensor):
            entries["step"] = int(entries["step"])
    again = fresh(params)
    resumed = case.make(again)
    resumed.load_state_dict(state)
    assert torch.equal(
        continue_optimizer(resumed, again, 3, MLP), continue_optimizer(optimizer, params, 3, MLP)
    )


# -- hooks -----------------------------------------------------------------------------------------------


@every
def test_hooks_of_a_state_run_and_see_all_of_it(case: Case) -> None:
    optimizer, params = begun(case)
    seen: list[Any] = []
    optimizer.register_state_dict_pre_hook(lambda _: seen.append("before"))
    optimizer.register_state_dict_post_hook(lambda _, state: seen.append(set(state)) or {**state, "mark": 1})
    state = optimizer.state_dict()
    assert seen == ["before", set(state) - {"mark"}]
    assert state["mark"] == 1
    again = fresh(params)
    resumed = case.make(again)
    resumed.register_load_state_dict_pre_hook(lambda _, given: seen.append(set(given)) or None)
    resumed.register_load_state_dict_pre_hook(
        lambda _, given: {k: v for k, v in given.items() if k != "mark"}
    )
    resumed.register_load_state_dict_pre_hook(lambda _, given: seen.append(set(given)) or None)
    resumed.register_load_state_dict_post_hook(lambda one: seen.append(copy.deepcopy(one.state_dict())))
    resumed.load_state_dict(state)
    assert seen[2:4] == [set(state), set(state) - {"mark"}]
    assert difference(seen[4], {k: v for k, v in state.items() if k != "mark"}) is None


@every
def test_hooks_of_a_step_run_once(case: Case) -> None:
    optimizer, params = begun(case, 0)
    seen: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("behind"))
    continue_optimizer(optimizer, params, 1, MLP)
    assert seen == ["before", "behind"]


# -- groups ----------------------------------------------------------------------------------------------


@alone
def test_values_of_groups_are_read(case: Case) -> None:
    config = read("optimizer", case.optimizer)
    for key, value in others(config).items():
        if key == "lr" and any(name.endswith("_lr") for name in config):
            continue  # groups of two kinds, each with an lr of its own
        by_group, by_default = MLP.params(), MLP.params()
        groups = [group | {key: value} for group in grouped(by_group)]
        got = continue_optimizer(case.on(groups), by_group, 5, MLP)
        expected = continue_optimizer(case.make(by_default, **{key: value}), by_default, 5, MLP)
        assert torch.equal(got, expected), key


@alone
def test_a_value_of_one_group_is_read_or_refused(case: Case) -> None:
    config = read("optimizer", case.optimizer)
    for key, value in others(config).items():
        for index in range(2):
            params = MLP.params()
            groups = grouped(params)
            groups[index] |= {key: value}
            try:
                optimizer = case.on(groups)
            except UserError as error:
                assert f"{key} must be the same in all groups" in str(error)
                optimizer = case.make(params)
                optimizer.param_groups[index][key] = value
                with pytest.raises(ValueError, match=f"{key} must be the same in all groups"):
                    continue_optimizer(optimizer, params, 1, MLP)
                continue
            assert optimizer.param_groups[index][key] == value
            continue_optimizer(optimizer, params, 2, MLP)


@every
def test_a_late_group_joins(case: Case) -> None:
    optimizer, params = begun(case)
    late = [nn.Parameter(normal(9, 3, 2))]
    for group in grouped(late):
        optimizer.add_param_group(group)
    problem = Problem("later", (), lambda p: MLP.loss(p[:4]) + sum_of(q.square().sum() for q in p[4:]))
    before = late[0].detach().clone()
    path = continue_optimizer(optimizer, [*params, *late], 3, problem)
    assert path.isfinite().all()
    assert not torch.equal(late[0], before)
    again = fresh([*params, *late])
    resumed = case.on([*grouped(again[:4]), *grouped(again[4:])])
    resumed.load_state_dict(through_disk(optimizer.state_dict()))
    assert torch.equal(
        continue_optimizer(resumed, again, 3, problem),
        continue_optimizer(optimizer, [*params, *late], 3, problem),
    )


@ours
def test_a_group_that_is_refused_is_not_there(case: Case) -> None:
    optimizer, _ = begun(case, 0)
    before = len(optimizer.param_groups)
    with pytest.raises(ValueError, match="complex"):
        optimizer.add_param_group({"params": [complex_parameter()], "use_muon": True})
    assert len(optimizer.param_groups) == before


# -- parameters of all kinds -------------------------------------------------------------------------------


def laid_out(kind: str) -> tuple[Params, list[Tensor]]:
    """Parameters that are not contiguous, and the memory around them."""
    big, wide, filters = normal(1, 4, 6), normal(2, 5, 3), normal(3, 4, 3, 2, 2)
    views = {
        "columns": [big[:, :3], big[:, 4]],
        "transposed": [wide.T, normal(4, 4)],
        "channels last": [filters.to(memory_format=torch.channels_last), normal(4, 4)],
        "every other": [filters[::2, :, :, ::2], big[0, ::2]],
    }[kind]
    return [nn.Parameter(view) for view in views], [big[:, 3], big[:, 5], wide, filters]


@pytest.mark.parametrize("kind", ["columns", "transposed", "channels last", "every other"])
@every
def test_strides_change_nothing(case: Case, kind: str) -> None:
    params, around = laid_out(kind)
    strides = [p.stride() for p in params]
    beside = [t.clone() for t in around[:2]]
    straight = [nn.Parameter(p.detach().clone(memory_format=torch.contiguous_format)) for p in params]
    problem = pull([p.detach() for p in params])
    for make in (case.make, lambda p: case.on([{"params": p, "use_muon": False}])):
        got = continue_optimizer(make(params), params, 5, problem)
        expected = continue_optimizer(make(straight), straight, 5, problem)
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
    assert [p.stride() for p in params] == strides
    assert kind != "columns" or all(torch.equal(a, b) for a, b in zip(around, beside, strict=False))


@ours
def test_gradients_may_lie_otherwise_than_their_parameters(case: Case) -> None:
    if any(group.get("fused") for group in case.make(MLP.params()).param_groups):
        pytest.skip("torch's fused kernels; the harness's gradients lie as their parameters do")
    start = [normal(1, 4, 3, 2, 2), normal(2, 4)]
    straight, turned = fresh(start), fresh(start)  # type: ignore[arg-type]
    a, b = case.make(straight), case.make(turned)
    for step in range(4):
        for pair in zip(straight, turned, strict=True):
            grad = normal(step, *pair[0].shape)
            pair[0].grad = grad
            pair[1].grad = grad.to(memory_format=torch.channels_last) if grad.ndim == 4 else grad.clone()
        for optimizer in (a, b):
            optimizer.step(**({"loss": torch.tensor(2.0)} if getattr(optimizer, "needs_loss", False) else {}))
    torch.testing.assert_close(flat(straight), flat(turned), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@every
def test_types_are_kept(case: Case, dtype: torch.dtype) -> None:
    start = [normal(1, 4, 3).to(dtype), normal(2, 4).to(dtype)]
    params = [nn.Parameter(p.clone()) for p in start]
    eps: dict[str, Any] = (
        {"eps": 1e-4} if "eps" in read("optimizer", case.optimizer) else {}
    )  # float16 has no 1e-8
    try:
        optimizer = case.make(params, **eps)
    except UserError as error:
        assert str(dtype).removeprefix("torch.") in str(error)
        return
    continue_optimizer(optimizer, params, 5, pull(start))
    assert all(p.dtype == dtype and p.isfinite().all() for p in params)


@every
def test_types_may_be_mixed(case: Case) -> None:
    start = [normal(1, 4, 3).float(), normal(2, 3, 3), normal(3, 4).float(), normal(4, 2)]
    params = [nn.Parameter(p.clone()) for p in start]
    optimizer = case.make(params)
    for _ in range(3):
        for p, end in zip(params, start, strict=True):
            p.grad = (p.detach() + end) / 2
        loss = torch.tensor(1.0, dtype=torch.float32)
        optimizer.step(**({"loss": loss} if getattr(optimizer, "needs_loss", False) else {}))
    assert [p.dtype for p in params] == [p.dtype for p in start]
    assert all(p.isfinite().all() for p in params)


@every
def test_the_loss_may_come_from_a_closure_as_a_number(case: Case) -> None:
    params, problem = MLP.params(), MLP
    optimizer = case.make(params)
    assert isinstance(optimizer.step(lambda: float(problem.gradient(params))), float)
    assert not torch.equal(flat(params), flat(problem.params()))
    assert flat(params).isfinite().all()


@every
def test_lr_may_be_a_tensor_that_a_scheduler_changes(case: Case) -> None:
    paths = []
    lr = read("optimizer", case.optimizer)["lr"]
    for value in (lr, torch.tensor(lr, dtype=torch.float64)):
        params = MLP.params()
        optimizer = case.make(params, lr=value)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        rows = []
        for _ in range(3):
            rows.append(continue_optimizer(optimizer, params, 1, MLP))
            scheduler.step()
        paths.append(torch.cat(rows))
    torch.testing.assert_close(*paths, rtol=1e-12, atol=1e-14)


@every
def test_the_first_group_may_be_empty(case: Case) -> None:
    params = MLP.params()
    optimizer = case.on([{"params": [], "use_muon": True}, *grouped(params)])
    continue_optimizer(optimizer, params, 3, MLP)
    again = fresh(params)
    resumed = case.on([{"params": [], "use_muon": True}, *grouped(again)])
    resumed.load_state_dict(through_disk(optimizer.state_dict()))
    got, expected = continue_optimizer(resumed, again, 3, MLP), continue_optimizer(optimizer, params, 3, MLP)
    assert torch.equal(got, expected)
    alone = MLP.params()
    torch.testing.assert_close(
        expected, continue_optimizer(case.make(alone), alone, 6, MLP)[3:], rtol=0, atol=0
    )


@every
def test_parameters_may_have_no_numbers(case: Case) -> None:
    start = [normal(1, 3, 0), normal(2, 0, 3), normal(3, 2, 2), normal(4, 0), normal(5, 2)]
    params = [nn.Parameter(p.clone()) for p in start]
    path = continue_optimizer(case.make(params), params, 3, pull(start))
    full = [p for p in params if p.numel()]
    assert path.isfinite().all()
    assert not torch.equal(flat(full), flat([p for p in start if p.numel()]))


@every
def test_a_gradient_may_come_late(case: Case) -> None:
    params, late = MLP.params(), [nn.Parameter(normal(9, 3, 2)), nn.Parameter(normal(8, 2))]
    fused: dict[str, Any] = (
        {"fused": None} if "fused" in read("optimizer", case.optimizer) else {}
    )  # torch's SGD: its card
    optimizer = case.make([*params, *late], **fused)
    continue_optimizer(optimizer, params, 3, MLP)
    for p, seed in zip(late, (9, 8), strict=True):
        assert torch.equal(p, normal(seed, *p.shape))
        assert p not in optimizer.state
    problem = Problem("later", (), lambda p: MLP.loss(p[:4]) + sum_of(q.square().sum() for q in p[4:]))
    path = continue_optimizer(optimizer, [*params, *late], 3, problem)
    assert path.isfinite().all()
    assert not torch.equal(late[0], normal(9, 3, 2))


@ours
def test_sparse_gradients_are_refused_or_right(case: Case) -> None:
    tables = [nn.Embedding(4, 2, sparse=sparse).double() for sparse in (True, False)]
    tables[1].load_state_dict(tables[0].state_dict())
    optimizers = [case.make(list(table.parameters()), **unfused(case)) for table in tables]
    for table, optimizer in zip(tables, optimizers, strict=True):
        loss = table(torch.tensor([1, 2])).square().sum()
        loss.backward()
        given = {"loss": loss.detach()} if getattr(optimizer, "needs_loss", False) else {}
        if table.sparse:
            try:
                optimizer.step(**given)
            except RuntimeError as error:
                assert "sparse" in str(error)
                return
        else:
            optimizer.step(**given)
    torch.testing.assert_close(tables[0].weight, tables[1].weight)


def unfused(case: Case) -> dict[str, Any]:
    return {"fused": None, "weight_decay": 0.0} if "fused" in read("optimizer", case.optimizer) else {}


def complex_parameter() -> nn.Parameter:
    return nn.Parameter(torch.ones(2, 2, dtype=torch.complex64))


@every
def test_complex_parameters_are_refused_or_pairs_of_real_ones(case: Case) -> None:
    start = torch.complex(normal(1, 2, 2), normal(2, 2, 2))
    one, pair = nn.Parameter(start.clone()), nn.Parameter(torch.view_as_real(start).clone())
    try:
        optimizer = case.make([one])
    except UserError as error:
        assert "is not for complex parameters: make them real (torch.view_as_real)" in str(error)
        return
    assert not isinstance(optimizer, Base)
    as_real = case.make([pair])
    for _ in range(4):
        one.grad = one.detach() * (0.5 + 0.2j)
        pair.grad = torch.view_as_real(one.grad).clone()
        optimizer.step()
        as_real.step()
    torch.testing.assert_close(torch.view_as_real(one.detach()), pair.detach())

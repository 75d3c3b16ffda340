"""What every optimizer of this folder owes its users, inside this project and outside of it."""

from typing import Any

import pytest
import torch

from algorithms.optimizers.adagradnorm import AdaGradNorm
from algorithms.optimizers.diffgrad import DiffGrad
from algorithms.optimizers.dog import DoG
from algorithms.optimizers.lamb import Lamb
from algorithms.optimizers.lars import Lars
from algorithms.optimizers.lion import Lion
from algorithms.optimizers.nadamw import NadamW
from algorithms.optimizers.prodigy import Prodigy
from algorithms.optimizers.schedule_free_adamw import ScheduleFreeAdamW
from runner.base.errors import UserError
from runner.contract.instantiate import build_part
from tests.problems import PROBLEMS, Problem, assert_resumes, continue_optimizer, flat, part_config, quad
from tests.tasks import NoSync

NAMES = ["sgd", "nesterov", "adam", "adamw", "nadamw", "lion", "lamb", "schedule_free_adamw"]
NAMES += ["diffgrad", "lars", "prodigy", "dog", "momo_adam", "adagradnorm"]
DECOUPLED: list[Any] = [Lion, NadamW, Lamb, ScheduleFreeAdamW]  # a step's decay is lr·λ·x
OURS: list[Any] = [*DECOUPLED, DiffGrad, Lars, Prodigy, DoG, AdaGradNorm]


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_resumes_bit_for_bit(name: str, problem: Problem):
    assert_resumes(lambda params: build_part("optimizer", part_config("optimizer", name), params), problem)


@pytest.mark.parametrize("name", NAMES)
def test_falls_from_the_defaults_of_the_yaml(name: str):
    problem = PROBLEMS[1]
    params = problem.params()
    before = problem.gradient(params)
    optimizer = build_part("optimizer", part_config("optimizer", name), params)
    continue_optimizer(optimizer, params, 20, problem)
    assert problem.gradient(params) < before


@pytest.mark.parametrize("name", NAMES)
def test_every_searched_hyperparameter_is_one(name: str):
    config = part_config("optimizer", name)
    assert set(config["search_space"]) <= set(config)
    for key, space in config["search_space"].items():
        for value in space.get("choices", [space.get("min"), space.get("max")]):
            build_part("optimizer", part_config("optimizer", name, **{key: value}), quad().params())


@pytest.mark.parametrize("name", ["nadamw", "lion", "lamb", "schedule_free_adamw"])
@pytest.mark.parametrize(
    ("key", "value"),
    [("lr", -1e-3), ("lr", float("nan")), ("weight_decay", -1), ("betas", [0.9, 1.0]), ("betas", [0.9])],
)
def test_refuses_bad_values_by_name(name: str, key: str, value: object):
    with pytest.raises(UserError, match=rf"{key} must .*, got "):
        build_part("optimizer", part_config("optimizer", name, **{key: value}), quad().params())


@pytest.mark.parametrize("cls", OURS)
def test_skips_parameters_without_a_gradient(cls: Any):
    used, unused = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = cls([used, unused], lr=0.1, weight_decay=0.5)
    used.grad = torch.ones(2)
    optimizer.step()
    assert unused.tolist() == [1, 1]
    assert used[0] < 1
    assert unused not in optimizer.state


@pytest.mark.parametrize("cls", OURS)
def test_a_step_without_any_gradient_does_nothing(cls: Any):
    p = torch.nn.Parameter(torch.ones(2))
    cls([p], lr=0.1, weight_decay=0.5).step()
    assert p.tolist() == [1, 1]


@pytest.mark.parametrize("cls", DECOUPLED)
def test_groups_have_their_own_values_and_may_carry_more(cls: Any):
    decayed, free = (torch.nn.Parameter(torch.full((2,), 3.0)) for _ in range(2))
    optimizer = cls(
        [{"params": [decayed], "initial_lr": 7.0}, {"params": [free], "weight_decay": 0.0, "lr": 0.2}],
        lr=0.1,
        weight_decay=0.5,
    )
    for p in (decayed, free):
        p.grad = torch.zeros(2)
    optimizer.step()
    assert free.tolist() == [3, 3]
    torch.testing.assert_close(decayed.detach(), torch.full((2,), 3 * (1 - 0.1 * 0.5)))
    assert optimizer.param_groups[0]["initial_lr"] == 7.0


@pytest.mark.parametrize("cls", OURS)
def test_one_group_or_many_make_the_same_steps(cls: Any):
    problem = PROBLEMS[2]
    together, apart = problem.params(), problem.params()
    one = continue_optimizer(cls(together, lr=0.02), together, 5, problem)
    many = continue_optimizer(cls([{"params": [p]} for p in apart], lr=0.02), apart, 5, problem)
    assert torch.equal(one, many)


@pytest.mark.parametrize("cls", OURS)
def test_takes_a_closure_and_a_torch_scheduler(cls: Any):
    problem = quad()
    params = problem.params()
    optimizer = cls(params, lr=0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = problem.loss(list(params))
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == pytest.approx(3.5)
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.05


@pytest.mark.parametrize("cls", OURS)
def test_refuses_sparse_gradients(cls: Any):
    table = torch.nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse"):
        cls(table.parameters(), lr=0.1).step()


@pytest.mark.parametrize("cls", OURS)
def test_leaves_gradients_and_the_global_generator_alone(cls: Any):
    problem = PROBLEMS[2]
    params = problem.params()
    optimizer = cls(params, lr=0.02, weight_decay=0.1)
    problem.gradient(params)
    grads = [p.grad for p in params if p.grad is not None]
    before = [g.clone() for g in grads]
    seed = torch.get_rng_state()
    optimizer.step()
    assert all(torch.equal(*pair) for pair in zip(grads, before, strict=True))
    assert torch.equal(torch.get_rng_state(), seed)


@pytest.mark.parametrize("cls", OURS)
def test_bfloat16_parameters_stay_finite_and_keep_their_type(cls: Any):
    p = torch.nn.Parameter(torch.linspace(-1, 1, 8, dtype=torch.bfloat16))
    optimizer = cls([p], lr=0.01, weight_decay=0.1)
    for _ in range(5):
        p.grad = p.detach().clone()
        optimizer.step()
    assert p.dtype == torch.bfloat16
    assert flat([p]).isfinite().all()


@pytest.mark.parametrize("cls", OURS)
def test_never_waits_for_the_device(cls: Any):
    problem = PROBLEMS[2]
    params = problem.params()
    optimizer = cls(params, lr=0.02, weight_decay=0.1)
    problem.gradient(params)
    with NoSync():
        optimizer.step()
        optimizer.step()

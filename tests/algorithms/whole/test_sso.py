"""SSO: the spec's iterates and target, a literal reference, SGD at m = 1, what is held, costs, resuming."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from algorithms.whole.sso import SSO, Surrogate
from runner.base.errors import UserError
from runner.contract.instantiate import build_part
from runner.contract.task import Task
from runner.parts.composed import Composed
from tests.problems import CONF
from tests.tasks import (
    CLASSES,
    FEATURES,
    assert_no_sync,
    assert_resumes,
    binary,
    classification,
    conv_net,
    follow,
    images,
    language,
    make_task,
    meters,
    train,
)

TASKS: dict[str, Callable[[], Task]] = {
    "one_logit": binary,
    "softmax": lambda: classification(lambda: nn.Linear(FEATURES, CLASSES).double()),
    "mlp": classification,
}
SGD = functools.partial(torch.optim.SGD, lr=0.3)


SEARCHED = ("softmax", "mlp")  # with hundreds of trials


class Homogeneous(nn.Module):
    """aᵀw without a bias, from w = 0."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w


def two_rows() -> Task:
    x = torch.tensor([[1.0, 2.0], [-1.0, 1.0]], dtype=torch.float64)
    return make_task(Homogeneous, x, torch.tensor([1.0, 0.0], dtype=torch.float64), "binary", batch_size=2)


# Of a Q that is a sum over the two rows, with the gradient of their mean loss: η = 1 there is ½ in a mean.


def test_spec_three_batches_of_five_inner_steps() -> None:
    task, algorithm = two_rows(), SSO(m=5, eta=0.5, lr=0.2)
    got = follow(algorithm, task, 3)  # type: ignore[arg-type]
    expected = [[0.2212, 0.00872], [0.41799794, 0.01541464], [0.59356992, 0.02051588]]
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=5.1e-9)


def test_spec_the_target_is_where_the_surrogate_is_least() -> None:
    task = two_rows()
    batch = task.data.all()
    outputs = task.outputs(batch)
    surrogate = Surrogate(task, batch, outputs, 0.5)
    torch.testing.assert_close(surrogate.target(), torch.tensor([0.25, -0.25]).double(), rtol=0, atol=1e-12)
    at = surrogate.target().requires_grad_()
    (slope,) = torch.autograd.grad(surrogate(at), at)
    assert slope.abs().max() < 1e-12
    assert surrogate.loss.item() == pytest.approx(math.log(2))


# -- a literal reference -----------------------------------------------------------------------------


def slow_outputs(twin: Task, x: Tensor) -> list[list[Tensor]]:
    return [list(row) if row.dim() else [row] for row in twin.model(x)]


def slow_slopes(z: list[list[float]], y: Tensor) -> list[list[float]]:
    """∂ℓᵢ/∂zᵢ by the formulas: σ(z) − y, and softmax(z) less the one of the label."""
    rows = []
    for row, label in zip(z, y.tolist(), strict=True):
        if len(row) == 1:
            rows.append([1 / (1 + math.exp(-row[0])) - label])
        else:
            total = sum(math.exp(v) for v in row)
            rows.append([math.exp(v) / total - (c == label) for c, v in enumerate(row)])
    return rows


def slow_q(now: list[list[Tensor]], z0: list[list[float]], g: list[list[float]], eta: float) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for row, start, slope in zip(now, z0, g, strict=True):
        for f, z, s in zip(row, start, slope, strict=True):
            total = total + s * (f - z) + (f - z) ** 2 / (2 * eta)
    return total / len(now)


def move(params: list[Tensor], start: list[Tensor], grads: list[Tensor], lr: float) -> None:
    with torch.no_grad():
        for p, s, g in zip(params, start, grads, strict=True):
            p.copy_(s - lr * g)


def slow_step(twin: Task, m: int, eta: float, lr: float, search: bool) -> None:
    batch, params = twin.data.next(), list(twin.params)
    z0 = [[v.item() for v in row] for row in slow_outputs(twin, batch.x)]
    g = slow_slopes(z0, batch.y)
    for k in range(m):
        q = slow_q(slow_outputs(twin, batch.x), z0, g, eta)
        grads = list(torch.autograd.grad(q, params))
        square = sum((v * v).sum().item() for v in grads)
        start = [p.detach().clone() for p in params]
        if not search:
            move(params, start, grads, lr)
            continue
        if math.sqrt(square) <= 1e-6:
            return
        lr = lr * 1.8 ** (len(batch) / twin.data.n) if k > 0 else lr
        for _trial in range(100):
            move(params, start, grads, lr)
            if slow_q(slow_outputs(twin, batch.x), z0, g, eta).item() <= q.item() - 0.5 * lr * square:
                break
            lr *= 0.9
        else:
            move(params, start, grads, 0.0)
            return


def slow_scale(schedule: str, t: int) -> float:
    return {"constant": 1.0, "stochastic": 1 / math.sqrt(t), "exponential": 100 ** (-t / 100)}[schedule]


@pytest.mark.parametrize("schedule", ["constant", "stochastic", "exponential"])
@pytest.mark.parametrize("problem", TASKS)
def test_reference(problem: str, schedule: str) -> None:
    got = follow(SSO(3, 1.5, schedule, 0.1), TASKS[problem](), 50)  # type: ignore[arg-type]
    twin, rows = TASKS[problem](), []
    for t in range(1, 51):
        scale = slow_scale(schedule, t)
        slow_step(twin, 3, 1.5 * scale, 0.1 * scale, search=False)
        rows.append(torch.cat([p.detach().flatten() for p in twin.params]))
    torch.testing.assert_close(got, torch.stack(rows), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("schedule", ["constant", "exponential"])
@pytest.mark.parametrize(
    "problem", ["one_logit", *(pytest.param(p, marks=pytest.mark.slow) for p in SEARCHED)]
)
def test_reference_with_the_line_search(problem: str, schedule: str) -> None:
    got = follow(SSO(3, 1.5, schedule, 2.0, True), TASKS[problem](), 50)  # type: ignore[arg-type]
    twin, rows = TASKS[problem](), []
    for t in range(1, 51):
        slow_step(twin, 3, 1.5 * slow_scale(schedule, t), 2.0, search=True)
        rows.append(torch.cat([p.detach().flatten() for p in twin.params]))
    torch.testing.assert_close(got, torch.stack(rows), rtol=1e-8, atol=1e-9)


# -- what follows from the rule ----------------------------------------------------------------------


def words() -> Task:
    return language(lambda: nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 3)).double(), 40)


MORE = {**TASKS, "conv_net": lambda: images(conv_net), "words": words}


@pytest.mark.parametrize("problem", MORE)
def test_one_inner_step_is_sgd(problem: str) -> None:
    got = follow(SSO(m=1, eta=0.7, lr=0.3), MORE[problem](), 50)  # type: ignore[arg-type]
    expected = follow(Composed(SGD), MORE[problem](), 50)
    torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-8)


def test_many_inner_steps_of_a_linear_map_reach_the_target() -> None:
    task, algorithm = two_rows(), SSO(m=400, eta=0.5, lr=0.2)
    algorithm.setup(task)
    loss = algorithm.step(task)
    torch.testing.assert_close(task.outputs(task.data.all()), torch.tensor([0.25, -0.25]).double())
    assert loss.item() == pytest.approx(math.log(2))


def test_the_batch_size_does_not_change_the_target_nor_the_step() -> None:
    once, thrice = two_rows(), two_rows()
    thrice.data.x, thrice.data.y = once.data.x.repeat(3, 1), once.data.y.repeat(3)
    thrice.data.n, thrice.data.batch_size = 6, 6
    for task in (once, thrice):
        algorithm = SSO(m=5, eta=0.5, lr=0.2)
        algorithm.setup(task)
        algorithm.step(task)
    torch.testing.assert_close(once.params[0], thrice.params[0], rtol=0, atol=1e-12)


def test_batch_norm_keeps_the_statistics_of_the_first_pass() -> None:
    one, five = images(conv_net), images(conv_net)
    for task, m in ((one, 1), (five, 5)):
        algorithm = SSO(m=m)
        algorithm.setup(task)
        algorithm.step(task)
    for key, value in one.model.state_dict().items():
        if "running" in key or "tracked" in key:
            assert torch.equal(value, five.model.state_dict()[key])


def test_dropout_keeps_its_mask_within_a_step_and_leaves_the_global_generator_alone() -> None:
    task = classification(lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(FEATURES, CLASSES)).double())
    algorithm = SSO(m=3)
    algorithm.setup(task)
    algorithm.step(task)
    before = torch.get_rng_state()
    batch = task.data.next()
    masks = []
    for algorithm.steps in (1, 1, 2):
        masks.append(algorithm._outputs(task, batch).detach())
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    algorithm.step(task)
    assert torch.equal(before, torch.get_rng_state())


def test_a_penalty_on_the_weights_is_in_the_surrogate_as_it_is() -> None:
    task = penalised()
    algorithm = SSO(m=1, lr=0.1)
    algorithm.setup(task)
    batch = copy.deepcopy(task.data).next()
    wanted = task.losses(batch).mean()
    grads = torch.autograd.grad(wanted, task.params)
    expected = [p - 0.1 * g for p, g in zip(task.params, grads, strict=True)]
    loss = algorithm.step(task)
    torch.testing.assert_close(loss, wanted.detach())
    torch.testing.assert_close([p.detach() for p in task.params], [e.detach() for e in expected])


class Ridge:
    """Squared error of the right class's logit, and a penalty on the first weights."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return (1 - logits.gather(1, targets[:, None]).squeeze(1)) ** 2

    def penalty(self, params: Any) -> Tensor:
        return 3 * next(iter(params.values())).square().sum()


def penalised() -> Task:
    task = classification(dtype=torch.float32)
    task.own_loss = Ridge()
    return task


@pytest.mark.parametrize("m", [1, 4])
def test_costs_a_pass_for_every_inner_step_and_one_draw(m: int) -> None:
    task, algorithm = classification(), SSO(m=m)
    algorithm.setup(task)
    loss = algorithm.step(task)
    assert meters(task) == (8 * m, 8 * m, 0, 8)
    assert (loss.shape, loss.requires_grad) == ((), False)


def test_the_line_search_counts_its_trials_and_says_that_it_waits() -> None:
    task, algorithm = classification(), SSO(m=2, lr=1e-3, line_search=True)
    algorithm.setup(task)
    algorithm.step(task)  # so small a step is taken at the first trial
    assert meters(task) == (8 * 4, 8 * 2, 0, 8)
    assert (algorithm.syncs_every, SSO().syncs_every) == (1, 0)


def test_never_waits_for_the_device() -> None:
    assert_no_sync(SSO(), classification())  # type: ignore[arg-type]


@pytest.mark.parametrize("search", [False, True])
def test_resumes(search: bool) -> None:
    make: Any = functools.partial(SSO, schedule="stochastic", line_search=search)
    assert_resumes(make, lambda: images(conv_net), before=3, after=3)


def test_eta_is_by_default_that_of_the_loss() -> None:
    for task, eta in ((binary(), 4.0), (classification(), 2.0), (words(), 2.0)):
        algorithm = SSO()
        algorithm.setup(task)
        assert algorithm.report() == {"eta": eta}
    algorithm = SSO(eta=3.0, schedule="stochastic")
    algorithm.setup(task := binary())
    train(algorithm, task, 4)  # type: ignore[arg-type]
    assert algorithm.report() == {"eta": 1.5}


def test_composes_from_its_yaml_and_refuses_bad_values() -> None:
    from omegaconf import OmegaConf

    config: Any = OmegaConf.to_container(OmegaConf.load(CONF / "sso.yaml"))
    built = build_part("algorithm", copy.deepcopy(config), prefix="")
    assert (built.m, built.eta, built.schedule, built.lr, built.line_search) == (
        5,
        None,
        "constant",
        0.03,
        False,
    )
    for key, bad in (("m", 0), ("m", 1.5), ("eta", 0), ("schedule", "cosine"), ("lr", 0)):
        with pytest.raises(UserError, match=rf"{key} must .*, got {bad}"):
            build_part("algorithm", config | {key: bad}, prefix="")

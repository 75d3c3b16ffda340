"""BO-REP: the scalar example, a literal trajectory with full Hessians, clean and held-out rows."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from algorithms.reweightings.bo_rep import BORep
from runner.base.errors import UserError
from runner.contract.batch import Batch
from runner.contract.instantiate import build_part
from runner.contract.stream import Stream
from runner.contract.task import Task
from runner.parts.composed import Composed
from tests.problems import part_config
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
    make_task,
    normal,
    train,
)

LR = 0.3
SGD = functools.partial(torch.optim.SGD, lr=LR)


def with_clean(task: Task) -> Task:
    """The task, with other rows of its kind in the stream ``clean``."""
    x = normal(77, 10, *task.data.x.shape[1:]).to(task.data.x.dtype)
    y = (torch.arange(10) % 2 if task.info.task == "binary" else torch.arange(10) % CLASSES).to(task.data.y)
    task.aux["clean"] = Stream(x, y, 4, 5, task.cost)
    return task


TASKS: dict[str, Callable[[], Task]] = {
    "linear": lambda: with_clean(classification(lambda: nn.Linear(FEATURES, CLASSES).double())),
    "mlp": lambda: with_clean(classification()),
    "one_logit": lambda: with_clean(binary()),
}


def test_spec_scalar_example() -> None:
    class Scalars(BORep):
        def lower(self, task: Task, batch: Batch, x: Tensor) -> Tensor:
            return 0.5 * (task.params[0] - x.sum()).square().sum()

        def upper(self, task: Task, clean: Batch) -> Tensor:
            return 0.5 * (task.params[0] - 1).square().sum()

    class Scalar(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.y = nn.Parameter(torch.tensor([3.0], dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return self.y * x

    task = make_task(Scalar, torch.zeros(1, 1).double(), torch.zeros(1, dtype=torch.int64), batch_size=1)
    task.aux["clean"] = task.data.clone("clean")
    part = Scalars(eta=0.1, nu=0.5, beta=0.9, decay=1.0)
    part.setup(task)
    part.x, part.m = torch.tensor([3.0], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    y, batch = task.params[0], task.data.next()
    got = []
    for t in range(3):
        if t % 2 == 0:
            for _ in range(3):
                with torch.no_grad():
                    y -= 0.5 * (y - part.x)
        part._update(task, batch, batch)
        got.append([y.item(), part.z[0].item(), part.m.item(), part.x.item()])
    expected = [(3, 1, 0.1, 2.9), (3, 1.5, 0.24, 2.8), (2.825, 1.6625, 0.38225, 2.7)]
    for row, values in zip(got, expected, strict=True):
        assert row == pytest.approx(values, abs=1e-9)


def slow_iterates(task: Task, settings: dict[str, Any], steps: int) -> tuple[Tensor, list[float]]:
    """Gradient descent with weights σ(xᵢ), and the upper level by full Hessians and loops over rows."""
    params, clean = list(task.params), task.aux["clean"]
    sizes = [p.numel() for p in params]
    n, width = task.data.n, sum(sizes)
    x, m = [1.0] * n, [0.0] * n
    z = torch.zeros(width, dtype=torch.float64)
    names = [name for name, _ in task.model.named_parameters()]
    shapes = [p.shape for p in params]

    def losses(flat: Tensor, batch: Batch) -> Tensor:
        pieces = [piece.view(shape) for piece, shape in zip(flat.split(sizes), shapes, strict=True)]
        return task.losses(batch, dict(zip(names, pieces, strict=True)))

    y, iterates = torch.cat([p.detach().flatten() for p in params]), []
    for step in range(1, steps + 1):
        batch = task.data.next()
        assert batch.index is not None
        rows, size = batch.index.tolist(), len(batch)
        jacobian = torch.autograd.functional.jacobian(lambda v, b=batch: losses(v, b), y)
        y = y - LR * sum(jacobian[k] / (1 + math.exp(-x[i])) for k, i in enumerate(rows)) / size
        iterates.append(y)
        if step % settings["inner"]:
            continue
        for _ in range(settings["period"]):
            other = clean.next()
            goal = torch.autograd.functional.jacobian(lambda v, b=other: losses(v, b).mean(), y)
            hessian = torch.zeros(width, width, dtype=torch.float64)
            for k, i in enumerate(rows):
                own = torch.autograd.functional.hessian(lambda v, b=batch, k=k: losses(v, b)[k], y)
                hessian = hessian + own / (1 + math.exp(-x[i])) / size
            z = z - settings["nu"] * (hessian @ z - goal)
            jacobian = torch.autograd.functional.jacobian(lambda v, b=batch: losses(v, b), y)
            h = [0.0] * n
            for k, i in enumerate(rows):
                s = 1 / (1 + math.exp(-x[i]))
                h[i] = -s * (1 - s) * (jacobian[k] @ z).item() / size
            m = [0.9 * a + 0.1 * b for a, b in zip(m, h, strict=True)]
            norm = math.sqrt(sum(a * a for a in m)) + 1e-10
            eta = settings["eta"] * settings["decay"] ** int(3 * task.progress)
            x = [a - eta * b / norm for a, b in zip(x, m, strict=True)]
    return torch.stack(iterates), x


@pytest.mark.parametrize("problem", TASKS)
def test_reference_trajectory(problem: str) -> None:
    settings: dict[str, Any] = {"eta": 0.8, "nu": 0.2, "inner": 5, "period": 2, "decay": 0.2}
    expected, x = slow_iterates(TASKS[problem](), settings, 50)
    part, task = BORep(**settings), TASKS[problem]()
    setup = part.setup

    def in_double(task: Task) -> None:
        setup(task)
        part.x, part.m, part.trains = part.x.double(), part.m.double(), part.trains.double()

    part.setup = in_double  # type: ignore[method-assign]
    got = follow(Composed(SGD, reweighting=lambda: part), task, 50)
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-8)
    assert part.x.tolist() == pytest.approx(x, rel=1e-7)
    assert max(abs(v - 1) for v in x) > 0.1


def test_wrong_labels_end_with_smaller_weights() -> None:
    x = normal(5, 200, FEATURES)
    truth = (x @ torch.tensor([2.0, -1.0, 1.0, 0.5, -2.0]).double() > 0).long()
    wrong = torch.arange(200) % 3 == 0
    task = make_task(lambda: nn.Linear(FEATURES, 2).double(), x[:160], (truth ^ wrong.long())[:160])
    task.aux["clean"] = Stream(x[160:], truth[160:], 16, 5, task.cost)
    part = BORep(eta=0.5, nu=0.1, inner=2, decay=1.0)
    follow(Composed(SGD, reweighting=lambda: part), task, 400)
    flipped, right = part.x[wrong[:160]], part.x[~wrong[:160]]
    auroc = (right.unsqueeze(1) > flipped).double().mean().item()
    assert auroc > 0.9


def test_without_a_clean_stream_rows_are_held_out() -> None:
    task, part = classification(), BORep(holdout=0.25, inner=2)
    algorithm = Composed(SGD, reweighting=lambda: part)
    algorithm.setup(task)
    held_out = (part.trains == 0).nonzero().flatten()
    assert len(held_out) == 6
    seen: list[Tensor] = []
    take = task.data.take

    def spy(index: Tensor, augment: bool = False) -> Batch:
        seen.append(index)
        return take(index, augment)

    task.data.take = spy  # type: ignore[method-assign]
    train(algorithm, task, 12)
    assert set(torch.cat(seen).tolist()) <= set(held_out.tolist())
    assert (part.x[held_out] == 1).all()  # their weight is 0 whatever it is
    batch = task.data.next()
    assert batch.index is not None
    weights = part(task, batch, torch.zeros(len(batch)))
    assert ((weights == 0) == (part.trains[batch.index] == 0)).all()
    assert algorithm.report()["reweighting/mean"] == pytest.approx(0.73, abs=0.05)


def test_updates_move_neither_weights_nor_batch_norm_statistics() -> None:
    task, part = images(conv_net), BORep(inner=1000)
    algorithm = Composed(SGD, reweighting=lambda: part)
    algorithm.setup(task)
    train(algorithm, task, 1)
    before = {key: value.clone() for key, value in task.model.state_dict().items()}
    batch = task.data.next()
    part._update(task, batch, part._clean(task))
    assert all(torch.equal(value, before[key]) for key, value in task.model.state_dict().items())
    assert (part.m != 0).any()


def test_steps_do_not_wait_and_resume_and_cost_what_the_card_says() -> None:
    for build in (lambda: images(conv_net), lambda: with_clean(classification(batch_size=4))):
        part = functools.partial(BORep, inner=2)
        assert_no_sync(Composed(SGD, reweighting=part), build(), 4)
        assert_resumes(lambda part=part: Composed(SGD, reweighting=part), build)
    task = with_clean(classification(batch_size=4))
    follow(Composed(SGD, reweighting=BORep), task, 20)
    cost = task.cost
    assert (cost.drawn, cost.forward, cost.backward, cost.hvp) == (96, 96, 96, 32)


def test_preset_and_bad_values() -> None:
    part = build_part("reweighting", part_config("reweighting", "bo_rep"))
    assert (part.eta, part.nu, part.beta, part.inner, part.period) == (0.05, 0.01, 0.9, 10, 2)
    for key, bad in (
        ("eta", 0.0), ("nu", -1.0), ("beta", 1.0), ("inner", 0), ("period", 1.5), ("decay", 0.0),
        ("holdout", 1.0), ("nu", math.nan),
    ):  # fmt: skip
        with pytest.raises(UserError, match=rf"{key} must .*, got {bad}"):
            build_part("reweighting", part_config("reweighting", "bo_rep", **{key: bad}))

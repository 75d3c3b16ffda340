"""RHO-LOSS: the selected rows, literal trajectories, the holdout model, cost."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from algorithms.losses.label_smoothing import LabelSmoothing
from algorithms.samplers.rho_loss import RhoLoss, fit, score
from runner.base.errors import UserError
from runner.contract.instantiate import build_part
from runner.contract.stream import Stream
from runner.contract.task import Task
from runner.parts.composed import Composed
from tests.problems import part_config
from tests.tasks import (
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
    normal,
    train,
)

LR = 0.1
SGD = functools.partial(torch.optim.SGD, lr=LR)
LOGITS = torch.tensor([[2.0, 0, 0], [0, 0, 0], [0, 3, 0], [1, 1, 0]], dtype=torch.float64)
IL = torch.tensor([0.1, 0.2, 3.0, 0.1])
HALF = functools.partial(RhoLoss, select=0.5, fit=0.02)


def with_holdout(task: Task) -> Task:
    """The task, its own rows in another order in the stream ``holdout``."""
    task.aux["holdout"] = Stream(task.data.x.flip(0), task.data.y.flip(0), 4, 5, task.cost)
    return task


TASKS: dict[str, Callable[[], Task]] = {
    "mlp": lambda: with_holdout(classification(batch_size=4)),
    "one_logit": lambda: with_holdout(binary(batch_size=4)),
    "tokens": lambda: with_holdout(language(lambda: nn.Embedding(3, 3).double(), batch_size=3)),
}


class Table(nn.Module):
    """Logits by row."""

    def __init__(self) -> None:
        super().__init__()
        self.z = nn.Parameter(LOGITS.clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.z[x.long().flatten()]


def test_spec_the_two_rows_with_the_most_reducible_loss() -> None:
    x, y = torch.arange(4).double().unsqueeze(1), torch.tensor([0, 1, 0, 0])
    task = with_holdout(make_task(Table, x, y, batch_size=2))
    part = RhoLoss(select=0.5)
    part.setup(task)
    with torch.no_grad():
        task.params[0].copy_(LOGITS)
    part.irreducible.copy_(IL)
    losses = F.cross_entropy(LOGITS, y, reduction="none")
    assert losses.tolist() == pytest.approx([0.239545, 1.098612, 3.094923, 0.861995], abs=1e-6)
    scores = (losses - IL).tolist()
    assert scores == pytest.approx([0.139545, 0.898612, 0.094923, 0.761995], abs=1e-6)
    batch = part(task)
    assert batch.index is not None
    assert sorted(batch.index.tolist()) == [1, 3]  # by their losses alone it would be 1 and 2
    assert set(losses.topk(2).indices.tolist()) == {1, 2}


@pytest.mark.parametrize("problem", TASKS)
def test_reference_trajectory(problem: str) -> None:
    task, twin, part = TASKS[problem](), TASKS[problem](), HALF()
    got = follow(Composed(SGD, sampler=lambda: part), task, 50)
    size, il, params = twin.data.batch_size, part.irreducible.tolist(), list(twin.params)
    for row in got:
        batch = twin.data.next(2 * size)
        assert batch.index is not None
        losses = twin.losses(batch)
        gaps = [v - il[i] for v, i in zip(losses.tolist(), batch.index.tolist(), strict=True)]
        best = sorted(range(len(gaps)), key=lambda k: -gaps[k])[:size]
        total = sum((losses[k] for k in best), torch.zeros(())) / size
        with torch.no_grad():
            for p, slope in zip(params, torch.autograd.grad(total, params), strict=True):
                p.sub_(LR * slope)
        flat = torch.cat([p.detach().flatten() for p in params])
        torch.testing.assert_close(row, flat, rtol=1e-8, atol=1e-9)


def test_the_holdout_model_is_trained_on_holdout_rows_alone() -> None:
    task = with_holdout(classification())
    before = [p.detach().clone() for p in task.params]
    holdout = task.aux["holdout"].clone("rho_loss")
    twin = with_holdout(classification()).spawn(data=holdout, name="twin")
    part = RhoLoss(fit=0.5)
    part.setup(task)
    fit(twin, 50, 1e-3)
    losses = F.cross_entropy(twin.model(task.data.x), task.data.y, reduction="none")
    torch.testing.assert_close(part.irreducible, losses.detach().float())
    assert all(torch.equal(p, start) for p, start in zip(task.params, before, strict=True))
    assert task.data.position == 0
    assert task.cost.drawn == 50 * 4  # of the holdout rows; what is only scored is not drawn
    assert task.cost.forward == 50 * 4 + 24


def test_scores_have_the_rows_own_ids() -> None:
    task = with_holdout(classification())
    task.data.index = torch.arange(100, 124)
    part = HALF()
    part.setup(task)
    plain = with_holdout(classification())
    other = HALF()
    other.setup(plain)
    assert torch.equal(part.irreducible[100:], other.irreducible)
    train_on = part(task).index
    assert train_on is not None
    assert train_on.min() >= 100
    assert torch.equal(score(plain, plain.data), score(plain, plain.data))


def test_without_a_holdout_stream_rows_are_taken_and_never_trained_on() -> None:
    task, part = classification(batch_size=3), HALF(holdout=0.25)
    part.setup(task)
    taken = set(range(24)) - set(part._source.index.tolist())  # type: ignore[union-attr]
    assert len(taken) == 6
    holdout = task._children["rho_loss holdout"].data.index
    assert holdout is not None
    assert sorted(holdout.tolist()) == sorted(taken)
    seen: set[int] = set()
    for _ in range(40):
        index = part(task).index
        assert index is not None
        seen |= set(index.tolist())
    assert len(seen) > 8
    assert not seen & taken


def test_rows_with_wrong_labels_are_avoided() -> None:
    x = normal(5, 300, FEATURES)
    truth = (x @ torch.tensor([2.0, -1.0, 1.0, 0.5, -2.0]).double() > 0).long()
    wrong = torch.arange(300) % 5 == 0
    build = functools.partial(nn.Linear, FEATURES, 2, dtype=torch.float64)
    task = make_task(build, x[:200], (truth ^ wrong.long())[:200])
    task.aux["holdout"] = Stream(x[200:], truth[200:], 8, 5, task.cost)
    part = RhoLoss(select=0.25, fit=0.9, fit_lr=0.05)
    algorithm = Composed(functools.partial(torch.optim.SGD, lr=1.0), sampler=lambda: part)
    algorithm.setup(task)
    train(algorithm, task, 60)

    def share() -> float:
        picked = torch.cat([part(task).index for _ in range(50)])  # type: ignore[misc]
        return wrong[picked].double().mean().item()

    assert share() < 0.2  # as many as there are
    part.irreducible.zero_()
    assert share() > 0.5  # the largest losses are those of the wrong labels


def test_scoring_moves_no_statistics_and_takes_the_workloads_loss() -> None:
    task, part = images(conv_net), HALF()
    part.setup(task)
    before = {key: value.clone() for key, value in task.model.state_dict().items()}
    part(task)
    assert all(torch.equal(value, before[key]) for key, value in task.model.state_dict().items())
    assert task.model.training
    smooth = classification()
    other = classification()
    smooth.loss = LabelSmoothing(0.5)
    for at in (smooth, other):
        part = HALF()
        part.setup(at)
        last = part(at).index
    again = classification()
    part = HALF()
    part.setup(again)
    assert last is not None
    assert torch.equal(part(again).index, last)  # type: ignore[arg-type]


def test_steps_do_not_wait_and_resume_and_cost_what_the_card_says() -> None:
    task = images(conv_net)
    assert_no_sync(Composed(SGD, sampler=HALF), task)
    assert_resumes(lambda: Composed(SGD, sampler=HALF), lambda: images(conv_net))
    task = classification()
    algorithm = Composed(SGD, sampler=functools.partial(RhoLoss, fit=0.02))
    algorithm.setup(task)
    before = task.cost.state_dict()
    train(algorithm, task, 3)
    spent = {key: value - before[key] for key, value in task.cost.state_dict().items()}
    assert (spent["drawn"], spent["forward"], spent["backward"]) == (240, 264, 24)


def test_preset_and_bad_values() -> None:
    part = build_part("sampler", part_config("sampler", "rho_loss"))
    assert (part.select, part.holdout, part.fit, part.fit_lr) == (0.1, 0.1, 0.1, 1e-3)
    for key, bad in (("select", 0.0), ("holdout", 1.0), ("fit", 1.0), ("fit_lr", 0.0), ("fit", math.nan)):
        with pytest.raises(UserError, match=rf"{key} must .*, got {bad}"):
            build_part("sampler", part_config("sampler", "rho_loss", **{key: bad}))

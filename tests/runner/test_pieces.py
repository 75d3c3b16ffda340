"""A batch in pieces is trained on as the whole batch is: weights once, penalties once; or it is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from algorithms.objectives.saf import SAF
from algorithms.reweightings.linupper import LinUpper
from runner.base.errors import UserError
from runner.check.subjects import SMALL, small_workload, subject
from runner.check.trial import Trial
from runner.compose.config import compose
from runner.contract.batch import Batch
from runner.contract.instantiate import build_part
from runner.contract.task import Task
from runner.parts.composed import Composed
from tests.doubles.card import card
from tests.tasks import classification, meters, train, weights

ROWS = 640  # in batches of 32


@card()
class Accumulates:
    """A batch in pieces of 5 rows, as docs/adding_a_method/estimator.md has it."""

    def __call__(self, task: Task, batch: Batch) -> Tensor:
        losses = [task.backward(piece, denominator=len(batch)) for piece in batch.chunks(5)]
        return torch.stack(losses).sum()


@card()
class Cuts:
    """Pieces by positions, of which nobody knows the whole batch."""

    def __call__(self, task: Task, batch: Batch) -> Tensor:
        halves = torch.arange(len(batch)).view(2, -1)
        losses = [task.backward(batch.select(rows), denominator=len(batch)) for rows in halves]
        return torch.stack(losses).sum()


@card()
class Weighs(Cuts):
    """The same, the whole batch weighed before."""

    def __call__(self, task: Task, batch: Batch) -> Tensor:
        task.weigh(batch)
        return super().__call__(task, batch)


def trained(estimator: type | None, *overrides: str) -> Trial:
    config = compose(["algorithm=adamw", *overrides])
    if estimator is not None:
        config["algorithm"]["estimator"] = {"_target_": f"{__name__}.{estimator.__name__}"}
    tried = subject(config, [small_workload(name) for name in SMALL])
    assert tried.refusal is None
    return tried.train(ROWS // 32, eval_every=ROWS)


def scores(trial: Trial) -> tuple[float, float]:
    return trial.rows[-1]["validation/loss"], trial.rows[-1]["train/loss"]


@pytest.mark.parametrize("estimator", [Accumulates, Weighs])
@pytest.mark.parametrize(
    "parts",
    [
        "algorithm/reweighting=linupper",
        "algorithm/reweighting=quadratic algorithm/loss=l2_svm",
        "algorithm/reweighting=bo_rep algorithm/loss=l2_svm",
        "algorithm/reweighting=extremes algorithm/objective=mesa",
        "algorithm/loss=l2_svm",
        "",
    ],
)
def test_a_run_in_pieces_is_the_unsplit_run(parts: str, estimator: type) -> None:
    whole = trained(None, "workload=digits", *parts.split())
    split = trained(estimator, "workload=digits", *parts.split())
    assert scores(split) == pytest.approx(scores(whole), rel=1e-4)


def test_the_numbers_of_linupper_on_digits() -> None:
    split = trained(Accumulates, "workload=digits", "algorithm/reweighting=linupper")
    plain = trained(None, "workload=digits")
    assert abs(scores(split)[0] - scores(plain)[0]) > 1e-3  # the weights matter


@pytest.mark.parametrize("objective", ["anyloss", "mw_loss"])
def test_a_loss_of_whole_batches_is_refused_in_pieces(objective: str) -> None:
    with pytest.raises(UserError, match="no mean over rows"):
        trained(Accumulates, "workload=breast_cancer", f"algorithm/objective={objective}")


def test_pieces_whose_batch_nobody_knows_are_refused_under_a_reweighting() -> None:
    with pytest.raises(UserError, match=r"call task\.weigh\(batch\)"):
        trained(Cuts, "workload=digits", "algorithm/reweighting=linupper")
    assert trained(Cuts, "workload=digits").ended == "budget"


# -- of the task ---------------------------------------------------------------------------------------


def reweighed() -> Task:
    task = classification()
    task.reweighting = lambda task, batch, losses: losses / losses.mean()
    return task


def gradients(task: Task) -> list[Tensor]:
    return [p.grad.clone() for p in task.params if p.grad is not None]


def test_all_training_rows_are_weighed_as_one_batch() -> None:
    whole, split = reweighed(), reweighed()
    losses = [whole.backward(whole.data.all()), split.backward_all(chunk=7)]
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(gradients(whole), gradients(split))
    assert meters(split) == (48, 24, 0, 24)  # a forward pass for the weights


def test_weighing_is_once_and_charged() -> None:
    task = reweighed()
    batch = task.data.next()
    task.weigh(batch, chunk=3)
    before = batch.weights
    losses = F.cross_entropy(task.model(batch.x), batch.y, reduction="none").detach()
    torch.testing.assert_close(before, losses / losses.mean())
    task.cost.forward -= 8
    task.weigh(batch)
    assert batch.weights is before
    assert meters(task) == (8, 0, 0, 8)


def test_gradients_of_rows_have_the_weights_in() -> None:
    task = reweighed()
    batch = task.data.next()
    task.weigh(batch)
    each = task.per_sample_grads(batch)
    task.backward(batch)
    torch.testing.assert_close([g.mean(0) for g in each.values()], gradients(task))


class Ridge:
    """Cross-entropy, and a penalty on all weights."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets, reduction="none")

    def penalty(self, params: Any) -> Tensor:
        return sum((p.square().sum() for p in params.values()), torch.zeros(()))


@pytest.mark.parametrize(
    "passes",
    [
        lambda task, batch: task.backward(batch),
        lambda task, batch: [task.backward(piece, denominator=8) for piece in batch.chunks(3)],
        lambda task, batch: task.weighted_loss(batch, 3 * torch.ones(8)).backward(),
    ],
)
def test_a_penalty_counts_once_whatever_rows_weigh(passes: Callable[[Task, Batch], Any]) -> None:
    task = classification()
    task.loss, task.reweighting = Ridge(), lambda task, batch, losses: 3 * torch.ones_like(losses)
    batch = task.data.next()
    rows = F.cross_entropy(task.model(batch.x), batch.y)
    wanted = torch.autograd.grad(3 * rows + sum(p.square().sum() for p in task.params), task.params)
    passes(task, batch)
    torch.testing.assert_close(gradients(task), list(wanted))


def test_penalties_are_not_what_a_reweighting_weighs_by() -> None:
    task, seen = classification(), []
    task.loss = Ridge()
    task.reweighting = lambda task, batch, losses: seen.append(losses) or torch.ones_like(losses)
    batch = task.data.next()
    task.backward(batch)
    rows = F.cross_entropy(task.model(batch.x), batch.y, reduction="none")
    torch.testing.assert_close(seen[0], rows.detach().float())  # losses are computed in single precision


def test_rows_that_were_weighed_are_no_epoch_further() -> None:
    def make(estimator: Any, reweighting: Any = None) -> Composed:
        sgd = {"_target_": "torch.optim.SGD", "lr": 0.1}
        return Composed(
            sgd, objective=lambda: SAF(distance=1, start=1), estimator=estimator, reweighting=reweighting
        )

    tasks = []
    for estimator in (None, Accumulates):
        task, algorithm = classification(), make(estimator, lambda: LinUpper(warmup=0))
        algorithm.setup(task)
        train(algorithm, task, 12)
        assert algorithm.single["objective"].seen.tolist() == [4] * 24
        tasks.append(task)
    torch.testing.assert_close(weights(tasks[1]), weights(tasks[0]))


def test_workers_share_weights_of_the_whole_batch() -> None:
    spec = {"_target_": "algorithms.estimators.ef.EF", "workers": 4, "ratio": 1.0}
    task, twin = reweighed(), reweighed()
    part = build_part("estimator", spec)
    part.setup(task)
    part(task, task.data.next())
    twin.backward(twin.data.next())
    torch.testing.assert_close(gradients(task), gradients(twin))

"""What chooses rows by losses uses the loss that is trained on; a second phase begins as the first did."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from algorithms.losses.spherical_softmax import SphericalSoftmax
from algorithms.samplers.rho_loss import RhoLoss
from algorithms.whole.useful_upsample import predictions
from runner.check.subjects import subject
from runner.compose.config import compose
from runner.contract.task import Task
from runner.parts.composed import Composed
from tests.tasks import classification, train

STEPS = 20


def accuracy(*overrides: str) -> float:
    tried = subject(compose(["workload=digits", "algorithm=adamw", *overrides]), [])
    return tried.train(1500, eval_every=1500).rows[-1]["validation/accuracy"]


def test_rho_loss_selects_by_the_loss_in_force() -> None:
    assert accuracy("algorithm/sampler=rho_loss", "algorithm/loss=spherical_softmax") > 0.8  # chance is 0.1


def test_a_loss_with_a_penalty_is_set_up_for_the_holdout_model() -> None:
    tried = subject(compose(["workload=digits", "algorithm/sampler=rho_loss", "algorithm/loss=l2_svm"]), [])
    assert tried.train(16).ended == "budget"


def test_the_holdout_model_has_the_loss_in_force() -> None:
    task, loss = classification(), SphericalSoftmax()
    algorithm = Composed({"_target_": "torch.optim.SGD", "lr": 0.1}, loss=lambda: loss, sampler=RhoLoss)
    algorithm.setup(task)
    holdout = task._children["rho_loss holdout"]
    assert isinstance(holdout.loss, SphericalSoftmax)
    rows = task.data.all()
    with torch.no_grad():
        wanted = loss(holdout.model(rows.x).float(), rows.y)
    sampler = algorithm.single["sampler"]
    torch.testing.assert_close(sampler.irreducible, wanted.to(sampler.irreducible.dtype))


def test_useful_clusters_what_an_evaluation_sees() -> None:
    task, loss = classification(dtype=torch.float32), SphericalSoftmax()
    plain, _ = predictions(task)
    task.loss = loss
    logits, losses = predictions(task)
    torch.testing.assert_close(logits, loss.predict(plain))
    torch.testing.assert_close(losses, loss(plain, task.data.y))


# -- a second phase ------------------------------------------------------------------------------------

SGD = {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9}
PARTS = [
    {"objective": {"_target_": "algorithms.objectives.mesa.MESA", "start": 0.0}},
    {"objective": {"_target_": "algorithms.objectives.saf.SAF"}},
    {"sampler": {"_target_": "algorithms.samplers.rho_loss.RhoLoss"}},
    {"sampler": {"_target_": "algorithms.samplers.batch_norm_test.BatchNormTest", "every": 2}},
    {"reweighting": {"_target_": "algorithms.reweightings.bo_rep.BORep", "inner": 2}},
    {"average": {"_target_": "algorithms.averages.ema.EMA"}},
    {"wrapper": {"_target_": "algorithms.wrappers.mechanic.Mechanic"}},
    {"estimator": {"_target_": "algorithms.estimators.econtrol.EControl", "workers": 4}},
    {"objective": {"_target_": "algorithms.objectives.quantized_distillation.QuantizedDistillation"}},
]


class Proxy:
    """A sub-task that trains along."""

    def setup(self, task: Task) -> None:
        self.proxy = task.spawn(name="proxy")

    def after_step(self, task: Task) -> None:
        with torch.no_grad():
            torch._foreach_add_(self.proxy.params, 1.0)
        self.proxy.data.next()

    def __call__(self, params: list[Tensor], grads: list[Tensor]) -> None: ...


def shown(algorithm: Composed, task: Task) -> dict[str, Any]:
    """All that parts and sub-tasks keep."""
    return copy.deepcopy({"parts": algorithm.state_dict(), "sub-tasks": task.subtasks_state()})


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize(
    "parts", [*PARTS, {"transform": {"proxy": Proxy}}], ids=lambda parts: str(parts)[:40]
)
def test_a_restart_has_every_part_and_sub_task_as_it_was_set_up(parts: dict[str, Any]) -> None:
    task, algorithm = classification(), Composed(SGD, **parts)
    algorithm.setup(task)
    beginning, before = algorithm.beginning(task), shown(algorithm, task)
    train(algorithm, task, STEPS)
    assert not same(shown(algorithm, task), before)
    algorithm.restart(task, beginning)
    after = shown(algorithm, task)
    if teacher := after["sub-tasks"].get("mesa teacher"):  # begins at the network's weights, the new ones
        assert same(teacher["model"], task.model.state_dict())
        teacher["model"] = before["sub-tasks"]["mesa teacher"]["model"]
    if "average" in parts:
        assert same(after["parts"]["average"]["mean"], [p.detach() for p in task.params])
        after["parts"]["average"] = before["parts"]["average"]
    assert same(after, before)
    train(algorithm, task, 2)

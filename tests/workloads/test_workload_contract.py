"""What the runner relies on, on every workload: evaluation, determinism, and what reaches an algorithm."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from runner.contract.seeding import cell_seed
from runner.contract.stream import decode
from runner.contract.task import Task
from workloads.base import Split
from workloads.evaluation import Evaluation

CPU = torch.device("cpu")
EMBEDDED = ["digits", "breast_cancer"]
ALL = [*EMBEDDED, *(pytest.param(name, marks=pytest.mark.data) for name in ("mnist", "fashion_mnist"))]
ONE_OF_EACH = ALL[:3]  # fashion_mnist differs from mnist in its files alone
# Mean cross-entropy before training, in nats. A uniform guess has ln 10 = 2.303 or ln 2 = 0.693.
# CNN-SVM's weights (std 0.1) give logits of the order of ten, so its first losses lie far above.
FIRST_LOSS = {
    "digits": (math.log(10) - 0.1, math.log(10) + 0.1),
    "breast_cancer": (math.log(2) - 1e-6, math.log(2) + 1e-6),
    "mnist": (4.0, 14.0),
    "fashion_mnist": (4.0, 14.0),
}


def build(make, name: str, seed: int = 1, **changes) -> tuple[Task, Evaluation]:
    torch.manual_seed(seed)
    return make(name, **changes).build(seed, CPU)


def train(task: Task, steps: int, size: int = 8, lr: float = 1e-3) -> None:
    optimizer = torch.optim.Adam(task.params, lr=lr)
    task.model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        task.backward(task.data.next(size))
        optimizer.step()


def part(evaluate: Evaluation, rows: int, batch_size: int) -> Evaluation:
    """An evaluation of the first rows of the validation split."""
    split = evaluate.splits["validation"]
    return Evaluation(evaluate.task, {"validation": Split(split.x[:rows], split.y[:rows])}, batch_size)


def reference(model: torch.nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Mean cross-entropy and accuracy, one row at a time, in plain Python."""
    losses, right = [], 0
    for row, target in zip(x, y.tolist(), strict=True):
        with torch.no_grad():
            out = model(decode(row.unsqueeze(0)))[0].tolist()
        logits = [0.0, out] if isinstance(out, float) else out
        top = max(logits)
        losses.append(top + math.log(sum(math.exp(z - top) for z in logits)) - logits[int(target)])
        right += logits.index(top) == int(target)
    return sum(losses) / len(losses), right / len(losses)


@pytest.mark.parametrize("name", ALL)
def test_loss_before_training(make, name: str):
    for seed in range(3):
        task, evaluate = build(make, name, seed)
        task.model.eval()
        low, high = FIRST_LOSS[name]
        assert low <= part(evaluate, 100, 50)(task.model, "validation")["loss"] <= high


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_metrics_are_those_of_a_row_by_row_reference(make, name: str):
    task, evaluate = build(make, name)
    train(task, 2)
    task.model.eval()
    some = part(evaluate, 47, 10)
    metrics = some(task.model, "validation")
    loss, accuracy = reference(task.model, some.splits["validation"].x, some.splits["validation"].y)
    assert metrics == {"loss": pytest.approx(loss, rel=1e-5), "accuracy": pytest.approx(accuracy, abs=1e-12)}
    assert 0.0 < accuracy < 1.0


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_metrics_do_not_depend_on_the_evaluation_batch_size(make, name: str):
    task, evaluate = build(make, name)
    train(task, 2)
    task.model.eval()
    whole, *ragged = (part(evaluate, 53, size)(task.model, "validation") for size in (53, 20, 52, 7))
    for metrics in ragged:
        assert metrics == {"loss": pytest.approx(whole["loss"], rel=1e-5), "accuracy": whole["accuracy"]}


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_evaluation_leaves_training_as_it_was(make, name: str):
    tasks = []
    for evaluates in (False, True):
        task, evaluate = build(make, name)
        rows = [t.clone() for t in (task.data.x[:50], task.data.y[:50])]
        train(task, 1)
        if evaluates:
            task.model.eval()
            part(evaluate, 60, 25)(task.model, "validation")
        train(task, 1)
        assert torch.equal(task.data.x[:50], rows[0]) and torch.equal(task.data.y[:50], rows[1])
        tasks.append(task)
    assert tasks[0].data.position == tasks[1].data.position
    assert all(torch.equal(a, b) for a, b in zip(tasks[0].params, tasks[1].params, strict=True))


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_same_seed_same_numbers(make, name: str):
    seed = cell_seed(name, study=0, trial=0)
    ends, orders = [], []
    for given in (seed, seed, cell_seed(name, study=1, trial=0)):
        task, _ = build(make, name, given)
        index = task.data.next().index
        assert index is not None
        orders.append(index.tolist())
        train(task, 2)
        ends.append(torch.cat([p.detach().flatten() for p in task.params]))
    assert torch.equal(ends[0], ends[1]) and orders[0] == orders[1]
    assert not torch.equal(ends[0], ends[2]) and orders[0] != orders[2]


@pytest.mark.parametrize("name", ALL)
def test_batches_are_training_rows_in_the_range_that_info_states(make, name: str):
    workload = make(name)
    torch.manual_seed(1)
    task, _ = workload.build(1, CPU)
    batch, info, train_split = task.data.next(), task.info, workload._data.train
    assert batch.index is not None and info.input_range is not None
    plain = task.data.take(batch.index)
    assert len(batch) == workload.batch_size and info.num_train == len(train_split) == task.data.n
    assert torch.equal(plain.x, decode(train_split.x[batch.index]))
    for given in (batch, plain):  # with and without augmentation
        assert tuple(given.x.shape[1:]) == info.input_shape and given.x.dtype == torch.float32
        assert torch.equal(given.y, train_split.y[batch.index])
        assert info.input_range[0] <= given.x.min() and given.x.max() <= info.input_range[1]
    assert int(batch.y.max()) < info.num_classes
    assert torch.equal(batch.x, plain.x) == (name != "digits")


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_outputs_and_roles_fit_the_task(make, name: str):
    task, _ = build(make, name)
    outputs = task.outputs(task.data.next(8))
    assert outputs.shape == ((8,) if task.info.task == "binary" else (8, task.info.num_classes))
    assert set(task.info.param_kind) == {n for n, p in task.model.named_parameters() if p.requires_grad}
    assert list(task.info.param_kind.values()).count("head") == 1


@pytest.mark.parametrize("name", EMBEDDED)
def test_a_short_training_learns(make, name: str):
    task, evaluate = build(make, name)
    train(task, 80, size=64, lr=1e-2)
    task.model.eval()
    assert evaluate(task.model, "validation")["accuracy"] > 0.85


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_first_module_standardises_training_inputs(make, name: str):
    task, _ = build(make, name)
    normalised = task.model.get_submodule("normalise")(decode(task.data.x))
    assert abs(float(normalised.mean())) < 5e-3
    assert abs(float(normalised.std()) - 1) < 5e-3


@pytest.mark.parametrize("name", ALL)
def test_grid_and_budget_are_whole_numbers_of_default_batches(make, name: str):
    workload = make(name)
    assert workload.eval_every % workload.batch_size == 0
    assert 20 <= workload.budget_samples / workload.eval_every <= 200


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"metric": "r2"}, r"metric must be one of accuracy, loss, f1, auc, .*got r2"),
    ],
)
def test_a_bad_value_is_named(make, change: dict, message: str):
    from runner.base.errors import UserError

    with pytest.raises(UserError, match=message):
        make("digits", **change)

"""Logistic regression on LIBSVM files: classes, splits, scaling, and one model in two forms."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from runner.base.errors import UserError
from runner.compose.config import compose
from runner.contract.task import Task
from tests.conftest import ROOT
from workloads.base import Data
from workloads.evaluation import Evaluation
from workloads.logreg import LogReg

DATA = Path(os.environ.get("BENCH_DATA", ROOT / "data"))
CPU = torch.device("cpu")
BASE = {"name": "logreg", "batch_size": 8, "budget_samples": 800, "eval_every": 80, "metric": "loss"}


def write(path: Path, y: Any, x: Any, start: int = 1) -> Path:
    """A LIBSVM file of the entries of ``x`` that are not zero."""
    lines = []
    for label, row in zip(y, np.asarray(x), strict=True):
        lines.append(" ".join([f"{label:g}", *(f"{i + start}:{v:.9g}" for i, v in enumerate(row) if v)]))
    path.write_text("\n".join(lines) + "\n")
    return path


def random_rows(n: int = 60, d: int = 7, classes: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels and sparse rows, in float32; every feature occurs, none decides."""
    rng = np.random.default_rng(seed)
    x = rng.normal(1.0, 2.0, (n, d)) * (rng.random((n, d)) < 0.6)
    scores = x @ rng.normal(size=(d, classes)) + rng.gumbel(size=(n, classes)) * 3
    x[0, -1] = 1.5
    return scores.argmax(1).astype(float), x.astype(np.float32)


def load(path: Path, **options: Any) -> LogReg:
    """A workload on that file, prepared."""
    workload = LogReg(**(BASE | {"file": str(path)} | options))
    workload.prepare(path.parent)
    return workload


def data(workload: LogReg) -> Data:
    assert workload._data is not None
    return workload._data


def build(workload: LogReg) -> tuple[Task, Evaluation]:
    torch.manual_seed(0)
    return workload.build(0, CPU)


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- labels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [(-1, 1), (1, 2), (0, 5.5), (-3.5, -1)])
def test_two_labels_are_0_and_1_in_ascending_order(tmp_path: Path, labels: tuple[float, float]) -> None:
    y, x = random_rows()
    y[:2] = 1, 0  # the larger one comes first in the file
    workload = load(write(tmp_path / "file", np.array(labels)[y.astype(int)], x), sparse=False)
    task, _ = build(workload)
    assert (task.info.task, task.info.num_classes, task.info.model) == ("binary", 2, "linear")
    positives = [set(map(tuple, s.x[s.y == 1].tolist())) for s in vars(data(workload)).values()]
    assert set().union(*positives) == set(map(tuple, x[y == 1].tolist()))
    assert task.outputs(task.data.next()).shape == (8,)


def test_more_labels_are_classes_in_ascending_order(tmp_path: Path) -> None:
    y, x = random_rows(n=90, classes=4)
    workload = load(write(tmp_path / "file", np.array([-7, 0.5, 3, 11])[y.astype(int)], x), sparse=False)
    task, evaluate = build(workload)
    assert (task.info.task, task.info.num_classes) == ("multiclass", 4)
    train = data(workload).train
    where = {tuple(row): label for row, label in zip(x.tolist(), y, strict=True)}
    assert [where[tuple(row)] for row in train.x.tolist()] == train.y.tolist()
    assert evaluate(task.model, "validation")["loss"] == pytest.approx(math.log(4), rel=1e-6)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([3.0] * 20, "one class alone, label 3"),
        ([0.0, 1.0] * 4, "8 rows: too few"),
        (np.linspace(0, 1, 30), "30 labels in 30 rows: numbers to predict"),
        ([0.0, 1.0] * 9 + [math.nan], ":19: label nan is not finite"),
    ],
)
def test_labels_that_are_no_classes_are_the_users_error(tmp_path: Path, labels: Any, says: str) -> None:
    path = write(tmp_path / "file", labels, np.ones((len(labels), 2)))
    message = refusal(path)
    assert message.startswith(str(path)) and says in message


# -- splits and the test file ----------------------------------------------------------------------


def test_without_a_test_file_rows_are_dealt_80_10_10(tmp_path: Path) -> None:
    y, x = random_rows(n=200, classes=2)
    y[:] = 0
    y[:50] = 1
    splits = data(load(write(tmp_path / "file", y, x), sparse=False))
    sizes = {name: len(split) for name, split in vars(splits).items()}
    assert sizes == {"train": 160, "validation": 20, "test": 20}
    assert [int(split.y.sum()) for split in vars(splits).values()] == [40, 5, 5]
    rows = [tuple(row) for split in vars(splits).values() for row in split.x.tolist()]
    assert sorted(rows) == sorted(map(tuple, x.tolist()))


def test_a_test_file_that_is_not_there_may_be_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "own.svm", *random_rows())
    said = refusal(path, test_file=f"{path}.t")
    assert said.startswith(f"no file {path}.t for the test split: workload.test_file=null takes a tenth")
    data(load(path, test_file=None))


def test_with_a_test_file_a_tenth_is_for_validation(tmp_path: Path) -> None:
    y, x = random_rows(n=100)
    write(tmp_path / "file.t", y[:30], x[:30])
    splits = data(load(write(tmp_path / "file", y, x), test_file="file.t", sparse=False))
    assert [len(split) for split in vars(splits).values()] == [90, 10, 30]
    assert torch.equal(splits.test.x, torch.from_numpy(x[:30]))
    assert torch.equal(splits.test.y, torch.from_numpy(y[:30]).float())


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("d", [4, 12])
def test_what_the_test_file_has_beyond_the_features_is_dropped(tmp_path: Path, sparse: bool, d: int) -> None:
    y, x = random_rows(d=7)
    other_y, other = random_rows(d=d, seed=1)
    write(tmp_path / "file.t", other_y, other)
    workload = load(write(tmp_path / "file", y, x), test_file="file.t", sparse=sparse, scale="none")
    task, evaluate = build(workload)
    weights = torch.arange(1.0, 8.0)
    with torch.no_grad():
        next(p for name, p in task.model.named_parameters() if "bias" not in name).view(-1).copy_(weights)
    expected = torch.from_numpy(other[:, :7]) @ weights[: min(d, 7)]
    assert torch.allclose(task.model(evaluate.splits["test"].x), expected, atol=1e-5)


def test_a_label_unknown_to_the_file_is_named_with_its_line(tmp_path: Path) -> None:
    y, x = random_rows()
    write(tmp_path / "file.t", [0, 1, 2], x[:3])
    test = tmp_path / "file.t"
    test.write_text("# a comment\n\n" + test.read_text())
    message = refusal(write(tmp_path / "file", y, x), test_file="file.t")
    assert message == f"{test}:5: label 2 is not one of the training file's: 0, 1"


def test_an_index_of_0_makes_features_count_from_0(tmp_path: Path) -> None:
    y, x = random_rows()
    from_0 = data(load(write(tmp_path / "zero", y, x, start=0), sparse=False))
    from_1 = data(load(write(tmp_path / "one", y, x, start=1), sparse=False))
    assert from_0.train.x.shape[1] == 7 and torch.equal(from_0.train.x, from_1.train.x)


@pytest.mark.parametrize("starts", [(0, 1), (1, 0)])
def test_a_test_file_that_counts_from_another_index_is_refused(
    tmp_path: Path, starts: tuple[int, int]
) -> None:
    y, x = random_rows()
    write(tmp_path / "file.t", y, x, start=starts[1])
    message = refusal(write(tmp_path / "file", y, x, start=starts[0]), test_file="file.t")
    assert f"from {starts[0]} and " in message and f"file.t from {starts[1]}" in message


def test_a_test_file_from_0_may_lack_its_first_features(tmp_path: Path) -> None:
    y, x = random_rows()
    fewer = x * (np.arange(7) > 1)
    write(tmp_path / "file.t", y, fewer, start=0)
    splits = data(load(write(tmp_path / "file", y, x, start=0), test_file="file.t", sparse=False))
    assert torch.equal(splits.test.x, torch.from_numpy(fewer))


# -- scaling ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["standard", "max_abs", "none"])
@pytest.mark.parametrize("sparse", [False, True])
def test_logits_are_those_of_scaled_rows(tmp_path: Path, scale: str, sparse: bool) -> None:
    if sparse and scale == "standard":
        with pytest.raises(ValueError, match="scale=max_abs"):
            LogReg(**BASE, file="file", sparse=True, scale="standard")
        return
    y, x = random_rows(n=200)
    path = write(tmp_path / "file", y, x)
    train = data(load(path, sparse=False)).train.x.double()
    shift = train.mean(0) if scale == "standard" else torch.zeros(7)
    spread = {"standard": train.std(0, correction=0), "max_abs": train.abs().amax(0), "none": torch.ones(7)}
    workload = load(path, sparse=sparse, scale=scale)
    task, evaluate = build(workload)
    weights = torch.linspace(-1, 1, 7, dtype=torch.float64)
    with torch.no_grad():
        next(p for name, p in task.model.named_parameters() if "bias" not in name).view(-1).copy_(weights)
    rows = data(load(path, sparse=False)).validation.x.double()
    expected = ((rows - shift) / spread[scale]) @ weights
    assert torch.allclose(task.model(evaluate.splits["validation"].x).double(), expected, atol=1e-5)


def test_a_constant_feature_is_harmless(tmp_path: Path) -> None:
    y, x = random_rows(n=100)
    x[:, 2], x[:, 4] = 0.1, 1e6  # neither's mean is exact
    task, _ = build(load(write(tmp_path / "file", y, x), scale="standard"))
    rows = task.model.get_submodule("normalise")(task.data.x)
    assert rows[:, [2, 4]].abs().max() < 0.1 and rows.abs().max() < 10


@pytest.mark.parametrize("sparse", [False, True])
def test_a_feature_that_training_rows_lack_is_harmless(tmp_path: Path, sparse: bool) -> None:
    y, x = random_rows(n=60)
    alone = np.diag(np.full(60, 3.0))  # some rows, each with a feature of its own, are held out
    task, evaluate = build(load(write(tmp_path / "file", y, np.hstack([x, alone])), sparse=sparse))
    task.backward_all()
    torch.optim.SGD(task.params, lr=0.1).step()
    for split in ("validation", "test"):
        assert 0.1 < evaluate(task.model, split)["loss"] < 2


def test_the_default_is_standard_for_whole_rows_and_max_abs_for_sparse_ones(tmp_path: Path) -> None:
    y, x = random_rows()
    path = write(tmp_path / "file", y, x)
    for sparse, scale in ((False, "standard"), (True, "max_abs")):
        default, said = (build(load(path, sparse=sparse, scale=s))[0] for s in (None, scale))
        buffers = [dict(task.model.named_buffers()) for task in (default, said)]
        assert buffers[0] and all(torch.equal(buffers[0][key], buffers[1][key]) for key in buffers[0])


# -- sparse rows -----------------------------------------------------------------------------------


def pair(tmp_path: Path, classes: int) -> tuple[Task, Task]:
    """The same problem on whole and on sparse rows."""
    y, x = random_rows(n=120, classes=classes)
    path = write(tmp_path / "file", y, x)
    dense, sparse = (build(load(path, sparse=form, scale="max_abs"))[0] for form in (False, True))
    return dense, sparse


def flat(task: Task, tensors: list[Tensor]) -> Tensor:
    """Weight and bias in one vector, with the weight as whole rows have it."""
    named = dict(zip([name for name, _ in task.model.named_parameters()], tensors, strict=True))
    weight, bias = (next(t for name, t in named.items() if name.endswith(end)) for end in ("weight", "bias"))
    is_sparse = task.data.x.dim() == 3
    return torch.cat([(weight.transpose(-1, -2) if is_sparse else weight).flatten(), bias.flatten()])


@pytest.mark.parametrize("classes", [2, 3])
def test_sparse_rows_train_as_whole_ones_do(tmp_path: Path, classes: int) -> None:
    ends = []
    for task in pair(tmp_path, classes):
        optimizer = torch.optim.SGD(task.params, lr=0.5, momentum=0.9)
        for _ in range(60):
            optimizer.zero_grad()
            task.backward(task.data.next())
            optimizer.step()
        ends.append(flat(task, task.params).detach())
    assert ends[0].abs().max() > 0.5 and torch.allclose(*ends, atol=1e-4)


@pytest.mark.parametrize("classes", [2, 3])
def test_sparse_rows_give_the_same_derivatives(tmp_path: Path, classes: int) -> None:
    tasks = pair(tmp_path, classes)
    results = []
    for task in tasks:
        torch.manual_seed(1)
        start = torch.randn(sum(p.numel() for p in task.params))
        vectors = torch.split(start, [p.numel() for p in task.params])
        for p, v in zip(task.params, vectors, strict=True):
            shaped = v.view(p.shape[::-1]).t() if task is tasks[1] and p.dim() == 2 else v.view(p.shape)
            p.data.copy_(shaped)
        batch = task.data.next()
        per_row = list(task.per_sample_grads(batch).values())
        rows = torch.stack([flat(task, [g[i] for g in per_row]) for i in range(len(batch))])
        results.append((rows, flat(task, task.hvp(batch, [p.detach() for p in task.params]))))
    for dense, sparse in zip(*results, strict=True):
        assert dense.abs().max() > 1e-3 and torch.allclose(dense, sparse, atol=1e-5)


@pytest.mark.parametrize(("d", "entries", "sparse"), [(2048, 3, True), (2047, 3, False), (2048, 90, False)])
def test_rows_are_sparse_by_default_where_it_pays(tmp_path: Path, d: int, entries: int, sparse: bool) -> None:
    y, _ = random_rows(n=40)
    wide = np.zeros((40, d), np.float32)
    wide[:, [0, d - 1]] = 1
    wide[:, 1 : entries - 1] = 2
    path = write(tmp_path / "file", y, wide)
    for option in (None, "auto"):
        shape = build(load(path, sparse=option))[0].info.input_shape
        assert shape == ((entries, 2) if sparse else (d,))
    assert build(load(path, scale="standard"))[0].info.input_shape == (d,)


@pytest.mark.parametrize(("sparse", "span"), [(False, (-2.5, 8.0)), (True, None)])
def test_what_an_algorithm_is_told(tmp_path: Path, sparse: bool, span: tuple[float, float] | None) -> None:
    y, x = random_rows()
    x[:, 0], x[:, 1] = -2.5, 8.0
    info = build(load(write(tmp_path / "file", y, x.clip(-2.5, 8)), sparse=sparse))[0].info
    assert info.input_range == span and sorted(info.param_kind.values()) == ["bias", "head"]
    assert (info.num_train, info.metric) == (48, "loss")


@pytest.mark.parametrize("option", [{"sparse": "yes"}, {"scale": "minmax"}])
def test_an_option_that_is_none_is_refused(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        LogReg(**BASE, file="file", **option)


# -- the optimum -----------------------------------------------------------------------------------


def minimise(task: Task, l2: float) -> tuple[float, Tensor]:
    """Loss and parameters where scipy says that mean cross-entropy + l2/2·|weights|² is least."""
    from scipy.optimize import minimize
    from scipy.special import expit, log1p

    x = torch.cat([task.model.get_submodule("normalise")(task.data.x), torch.ones(task.data.n, 1)], 1)
    x, sign = x.double().numpy(), 2 * task.data.y.double().numpy() - 1
    ridge = np.r_[np.full(x.shape[1] - 1, l2), 0]

    def objective(w: np.ndarray) -> tuple[float, np.ndarray]:
        margins = sign * (x @ w)
        losses = np.maximum(-margins, 0) + log1p(np.exp(-np.abs(margins)))
        return losses.mean() + ridge @ w**2 / 2, -(sign * expit(-margins)) @ x / len(x) + ridge * w

    found = minimize(objective, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B", options={"gtol": 1e-7})
    assert found.success
    return float(found.fun - ridge @ found.x**2 / 2), torch.from_numpy(found.x).float()


def assert_optimal(task: Task, loss: float, at: Tensor, l2: float) -> None:
    """Our loss there is the one given, and its gradient is what the penalty's cancels."""
    weight, bias = task.params
    with torch.no_grad():
        weight.copy_(at[:-1].view(weight.shape))
        bias.copy_(at[-1:])
    assert task.backward_all().item() == pytest.approx(loss, abs=1e-5)
    assert weight.grad is not None and bias.grad is not None
    assert torch.allclose(weight.grad, -l2 * weight, atol=1e-4) and bias.grad.abs().item() < 1e-4


def test_loss_and_gradient_at_scipys_optimum(tmp_path: Path) -> None:
    y, x = random_rows(n=300)
    task, _ = build(load(write(tmp_path / "file", y, x)))
    loss, at = minimise(task, l2=1e-3)
    assert_optimal(task, loss, at, l2=1e-3)
    assert 0.2 < loss < 0.65


@pytest.mark.data
def test_a9a_and_its_optimum() -> None:
    for name in ("a9a", "a9a.t"):
        if not (DATA / "libsvm" / name).exists():
            pytest.skip(f"no libsvm/{name} in {DATA}: set BENCH_DATA to the folder that holds it")
    config = compose(["workload=logreg", "workload.download=false"])["workload"]
    workload = LogReg(**{k: v for k, v in config.items() if k != "_target_"} | {"target": None})
    workload.prepare(DATA)
    splits = data(workload)
    assert [len(split) for split in vars(splits).values()] == [29305, 3256, 16281]
    assert splits.train.x.shape[1] == 123 and set(splits.train.x.unique().tolist()) == {0.0, 1.0}
    shares = [split.y.mean().item() for split in (splits.train, splits.validation)]
    assert shares == pytest.approx([7841 / 32561] * 2, abs=3e-4)  # positives among the 32,561
    task, evaluate = build(workload)
    loss, at = minimise(task, l2=1e-5)
    assert_optimal(task, loss, at, l2=1e-5)
    metrics = evaluate(task.model, "test")
    assert metrics["accuracy"] == pytest.approx(0.850, abs=0.002)

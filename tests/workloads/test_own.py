"""Data from elsewhere, by YAML alone: small real sets that ship with packages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from sklearn import datasets, metrics
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from runner import UserError
from runner.contract.instantiate import build_part
from workloads.own import OwnData

HERE = "tests.workloads.test_own"
CPU = torch.device("cpu")
SIZES: dict[str, Any] = {
    "name": "mine", "batch_size": 16, "budget_samples": 3200, "eval_every": 320, "metric": "loss",
    "minimize": True,
}  # fmt: skip


def frame(name: str) -> pd.DataFrame:
    """One of scikit-learn's, its target as text where it has names."""
    bunch: Any = getattr(datasets, f"load_{name}")(as_frame=True)
    table = bunch.frame.copy()
    if "target_names" in bunch:
        table["target"] = bunch.target_names[bunch.target]
    return table


def made(target: str, root: Path, **options: Any) -> OwnData:
    workload = build_part("workload", {"_target_": f"workloads.own.{target}", **SIZES, **options}, prefix="")
    workload.prepare(root)
    return workload


def trained(workload: OwnData, steps: int = 150, lr: float = 0.05) -> dict[str, float]:
    """Scores on the validation split after steps of Adam."""
    torch.manual_seed(1)
    task, evaluate = workload.build(1, CPU)
    optimizer = torch.optim.Adam(task.params, lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        task.backward(task.data.next())
        optimizer.step()
    return evaluate(task.model.eval(), "validation")


def table(root: Path, name: str, ending: str = "csv", **options: Any) -> OwnData:
    write(frame(name), root / f"{name}.{ending}")
    return made("Table", root, file=f"{name}.{ending}", target_column="target", **options)


def write(rows: pd.DataFrame, path: Path) -> None:
    if path.suffix == ".parquet":
        rows.to_parquet(path)
    else:
        rows.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
def test_a_table_of_classes_by_name(tmp_path: Path, ending: str) -> None:
    workload = table(tmp_path, "iris", ending, task="multiclass")
    data = workload._loaded()
    assert [len(s) for s in (data.train, data.validation, data.test)] == [90, 30, 30]
    assert workload.num_classes == 3 and data.train.y.bincount().tolist() == [30, 30, 30]
    torch.testing.assert_close(data.train.x.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(data.train.x.std(0, correction=0), torch.ones(4))
    rows = torch.cat([s.x for s in (data.train, data.validation, data.test)]).unique(dim=0)
    assert len(rows) == len(frame("iris").drop_duplicates())
    assert trained(workload)["accuracy"] > 0.9


def test_two_classes_are_a_binary_task(tmp_path: Path) -> None:
    scores = trained(
        table(tmp_path, "breast_cancer", task="binary", metric="auc", minimize=False, hidden=[8])
    )
    assert scores["auc"] > 0.97 and scores["accuracy"] > 0.9


def test_numbers_are_a_regression(tmp_path: Path) -> None:
    scores = trained(table(tmp_path, "diabetes", task="regression", metric="r2", minimize=False), 600, lr=2.0)
    assert 0.3 < scores["r2"] < 0.8


@pytest.mark.parametrize("metric", ["f1", "auc", "balanced_accuracy"])
def test_a_metric_of_classes_is_scikit_learns(tmp_path: Path, metric: str) -> None:
    workload = table(tmp_path, "wine", task="multiclass", metric=metric, minimize=False)
    task, evaluate = workload.build(1, CPU)
    rows = workload._loaded().validation
    logits = task.model(rows.x).detach().double()
    wanted = {
        "f1": lambda y, z: metrics.f1_score(y, z.argmax(1), average="macro"),
        "balanced_accuracy": lambda y, z: metrics.balanced_accuracy_score(y, z.argmax(1)),
        "auc": lambda y, z: metrics.roc_auc_score(y, z.softmax(1), multi_class="ovr"),
    }[metric](rows.y.numpy(), logits)
    assert evaluate(task.model, "validation")[metric] == pytest.approx(wanted)


@pytest.mark.parametrize(("metric", "function"), [("mae", "mean_absolute_error"), ("r2", "r2_score")])
def test_a_metric_of_numbers_is_scikit_learns(tmp_path: Path, metric: str, function: str) -> None:
    workload = table(tmp_path, "diabetes", task="regression", metric=metric, minimize=metric == "mae")
    task, evaluate = workload.build(1, CPU)
    rows = workload._loaded().validation
    wanted = getattr(metrics, function)(rows.y.numpy(), task.model(rows.x).detach().numpy())
    assert evaluate(task.model, "validation")[metric] == pytest.approx(wanted, rel=1e-5)


def test_columns_have_roles(tmp_path: Path) -> None:
    rows = frame("iris").assign(garden=["north", "south", "north"] * 50, name="a", wet=[True, False] * 75)
    write(rows, tmp_path / "t.csv")
    workload = made(
        "Table", tmp_path, file="t.csv", target_column="target", task="multiclass", categorical=["garden"],
        drop=["name"], standardise=False,
    )  # fmt: skip
    x = workload._loaded().train.x
    assert x.shape[1] == 4 + 2 + 1 and set(x[:, 4:].unique().tolist()) == {0.0, 1.0}
    assert bool((x[:, 4] + x[:, 5] == 1).all())


def test_a_test_file_is_the_test_split(tmp_path: Path) -> None:
    rows = frame("wine")
    write(rows[::2], tmp_path / "a.csv")
    write(rows[1::2].iloc[:, ::-1], tmp_path / "b.csv")  # columns in another order
    options = {"target_column": "target", "task": "multiclass", "standardise": False}
    workload = made("Table", tmp_path, file="a.csv", test_file="b.csv", **options)
    found = workload._loaded().test.x
    np.testing.assert_allclose(found.numpy(), rows[1::2].drop(columns="target").to_numpy(np.float32))
    write(rows[1::2].assign(target="other"), tmp_path / "c.csv")
    with pytest.raises(UserError, match="test row 1: other is no class of the training rows"):
        made("Table", tmp_path, file="a.csv", test_file="c.csv", **options)


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (lambda t: t.assign(ash=t.ash.where(t.index != 6)), {}, r"row 7 .*'ash': no value.* 1 of 178"),
        (lambda t: t.assign(target=t.target.where(t.index > 1)), {}, r"row 1 .*'target': no value.* 2 of"),
        (lambda t: t.assign(ash=np.where(t.index == 3, np.inf, t.ash)), {}, r"row 4 .*column 'ash': inf"),
        (lambda t: t.assign(kind="red"), {}, r"'kind' holds no numbers \(red\): name it under .*categorical"),
        (lambda t: t, {"target_column": "class"}, "has no column 'class'; it has alcohol"),
        (lambda t: t, {"drop": ["x"]}, "has no column 'x'"),
        (lambda t: t, {"task": "binary"}, "has 3 classes in training, and workload.task=binary"),
        (lambda t: t, {"task": "regression"}, "class_0 is no number|class_. is no number"),
        (lambda t: t[::30], {}, "too few|classes in 6 rows"),
        (lambda t: t.assign(target=t.index), {}, "178 classes in 178 rows: workload.task=regression"),
        (lambda t: t.rename(columns={"ash": ""}), {}, r"without a name.* workload.drop=\['Unnamed: 2'\]"),
        (lambda t: t, {"file": "absent.csv"}, "no .*absent.csv: workload.file must be"),
        (lambda t: t, {"task": "lm"}, "task must be one of"),
        (lambda t: t, {"test": 1.0}, "must be shares"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, change: Any, options: dict, words: str) -> None:
    write(change(frame("wine")), tmp_path / "wine.csv")
    given = {"file": "wine.csv", "target_column": "target", "task": "multiclass", **options}
    with pytest.raises(UserError, match=words) as said:
        made("Table", tmp_path, **given)
    assert "\n" not in str(said.value)


# -- arrays and data sets --------------------------------------------------------------------------


def digits() -> tuple[np.ndarray, np.ndarray]:
    bunch: Any = datasets.load_digits()
    return (bunch.images * 15).astype(np.uint8)[:, None], bunch.target


CONVOLUTIONS = {
    "_target_": "torch.nn.Sequential",
    "_args_": [
        {"_target_": "torch.nn.Conv2d", "in_channels": 1, "out_channels": 8, "kernel_size": 3},
        {"_target_": "torch.nn.ReLU"},
        {"_target_": "torch.nn.Flatten"},
        {"_target_": "torch.nn.Linear", "in_features": 288, "out_features": 10},
    ],
}


def test_arrays_with_and_without_splits(tmp_path: Path) -> None:
    x, y = digits()
    np.savez(tmp_path / "one.npz", x=x, y=y)
    workload = made("Arrays", tmp_path, file="one.npz", task="multiclass", model=CONVOLUTIONS)
    assert workload._loaded().train.x.dtype == torch.uint8
    assert trained(workload, lr=0.01)["accuracy"] > 0.8
    np.savez(tmp_path / "two.npz", x_train=x[:900], y_train=y[:900, None], x_test=x[900:], y_test=y[900:])
    data = made("Arrays", tmp_path, file="two.npz", task="multiclass")._loaded()
    assert len(data.train) == 720 and torch.equal(data.test.x, torch.from_numpy(x[900:]))
    with pytest.raises(UserError, match=r"rows \(1, 8, 8\) torch.uint8 need a model"):
        made("Arrays", tmp_path, file="one.npz", task="multiclass").build(1, CPU)


def test_arrays_that_do_not_fit(tmp_path: Path) -> None:
    x = np.ones((20, 3))
    x[4, 1] = np.nan
    np.savez(tmp_path / "nan.npz", x=x, y=np.arange(20) % 2)
    np.savez(tmp_path / "short.npz", x=x, y=np.arange(19))
    np.savez(tmp_path / "none.npz", z=x)
    for file, words in {
        "nan": "x, row 5",
        "short": "one target for each of 20",
        "none": "it has z",
        "no": "no .npz",
    }.items():
        with pytest.raises(UserError, match=words):
            made("Arrays", tmp_path, file=f"{file}.npz", task="binary")


def pairs() -> Dataset[tuple[Tensor, ...]]:
    """As torch has it."""
    x, y = digits()
    return TensorDataset(torch.from_numpy(x), torch.from_numpy(y))


class Images:
    """As torchvision has it: pictures, and labels as numbers."""

    def __init__(self) -> None:
        self.x, self.y = digits()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        from PIL import Image

        return Image.fromarray(self.x[i, 0]), int(self.y[i])


class Mappings(Images):
    """As Hugging Face has it."""

    def __getitem__(self, i: int) -> Any:
        picture, label = super().__getitem__(i)
        return {"image": picture, "digit": label if i != 40 else self.fortieth}

    fortieth: int | None = 0


class Holed(Mappings):
    """A label is missing."""

    fortieth = None


def splits() -> dict[str, Any]:
    """Of several splits."""
    return {"train": Mappings(), "test": Mappings()}


@pytest.mark.parametrize(
    ("name", "options", "rows"),
    [
        ("pairs", {}, (1079, 359)),
        ("Images", {"test_dataset": {"_target_": f"{HERE}.Images"}}, (1438, 1797)),
        ("splits", {"label": "digit"}, (1438, 1797)),
    ],
)  # fmt: skip
def test_any_data_set_with_rows_by_number(tmp_path: Path, name: str, options: dict, rows: tuple) -> None:
    given = {
        "dataset": {"_target_": f"{HERE}.{name}"},
        "task": "multiclass",
        "model": CONVOLUTIONS,
        **options,
    }
    workload = made("FromDataset", tmp_path, **given)
    data = workload._loaded()
    assert (len(data.train), len(data.test)) == rows and data.train.x.shape[1:] == (1, 8, 8)
    assert data.train.x.dtype == torch.uint8 and trained(workload, lr=0.01)["accuracy"] > 0.8


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("Mappings", {}, "train row 1 is no pair .*image and label .*no 'label'"),
        ("Holed", {"label": "digit"}, "train row 41 .*a value is missing"),
        ("digits", {}, "has no split|no map-style|train row"),
        ("absent", {}, "absent"),
    ],
)
def test_data_sets_that_do_not_fit(tmp_path: Path, name: str, options: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        made("FromDataset", tmp_path, dataset={"_target_": f"{HERE}.{name}"}, task="multiclass", **options)


def test_a_set_of_hugging_faces_on_disk(tmp_path: Path) -> None:
    hub: Any = pytest.importorskip("datasets")
    x, y = digits()
    columns = pa.table({"pixels": x.reshape(len(x), -1).tolist(), "label": y.tolist()})
    hub.Dataset(hub.table.InMemoryTable(columns), fingerprint="digits").save_to_disk(tmp_path / "d")
    load = {"_target_": "datasets.load_from_disk", "dataset_path": str(tmp_path / "d")}
    workload = made("FromDataset", tmp_path, dataset=load, input="pixels", task="multiclass")
    assert trained(workload)["accuracy"] > 0.8

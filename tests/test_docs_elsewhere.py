"""docs/from_elsewhere.md: every YAML and every recipe on the page is read from there, and trains."""

from __future__ import annotations

import bz2
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.datasets import dump_svmlight_file as write_libsvm
from sklearn.datasets import load_breast_cancer, load_digits, load_wine

from runner import run
from runner.contract.targets import locate
from tests.conftest import ROOT
from tests.libraries import needs

PAGE = (ROOT / "docs/from_elsewhere.md").read_text()
PARTS = {"Optimizers": "optimizer", "Schedules": "schedule", "A loss": "loss", "An average": "average"}
FEW = ["algorithm=adamw", "log=none", "warmup_steps=1", "workload.target=null", "workload.budget_samples=320",
       "workload.eval_every=160"]  # fmt: skip
FEWER = ["workload.batch_size=8", "workload.budget_samples=32", "workload.eval_every=16"]
HEAVY = ("timm", "transformers", "datasets")  # seconds to import
MINE = """
from torch import Tensor, nn
from torch.utils.data import Dataset
from sklearn.datasets import load_digits


class Net(nn.Sequential):
    def __init__(self, width: int) -> None:
        super().__init__(nn.LazyLinear(width), nn.ReLU(), nn.Linear(width, 1))


class Images(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.LazyLinear(10))


class Birds(Dataset):
    def __init__(self) -> None:
        self.x, self.y = load_digits(return_X_y=True)

    def __len__(self) -> int:
        return 200

    def __getitem__(self, i: int):
        return self.x[i], self.y[i]
"""


def section(title: str) -> str:
    return re.split(r"^## ", PAGE.partition(f"\n## {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def blocks(title: str) -> list[str]:
    return re.findall(r"^```yaml\n(.*?)^```", section(title), re.DOTALL | re.MULTILINE)


def heavy(text: str) -> list[Any]:
    return [pytest.mark.slow] if any(f"{name}." in text for name in HEAVY) else []


def trained(tmp_path: Path, *overrides: str) -> dict[str, Any]:
    """The row of a small cell, with parts and workloads of the folder ``conf``."""
    row = run(
        [f"results_dir={tmp_path}", f"data_dir={tmp_path}", *FEW, *overrides],
        [tmp_path / "conf"],
        inline=True,
    )
    assert row["status"] == "done", row["error"]
    return row


def write(tmp_path: Path, kind: str, text: str) -> None:
    path = tmp_path / f"conf/{kind}/of_the_page.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of the user's own, where PYTHONPATH leads."""
    for name in ("my_models", "my_data"):
        (tmp_path / f"{name}.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)


# -- parts -----------------------------------------------------------------------------------------


def of_parts() -> Iterator[Any]:
    for title, kind in PARTS.items():
        for place, text in enumerate(blocks(title)):
            yield pytest.param(kind, text, id=f"{kind}{place}", marks=heavy(text))


@pytest.mark.parametrize(("kind", "text"), list(of_parts()))
def test_a_part_of_the_page_trains(tmp_path: Path, kind: str, text: str) -> None:
    needs(yaml.safe_load(text)["_target_"].partition(".")[0])
    write(tmp_path, f"algorithm/{kind}", text)
    trained(tmp_path, f"algorithm/{kind}=of_the_page", "workload=digits")


def test_every_name_on_the_page_can_be_imported() -> None:
    """Those of the packages that are quick to import; the slow tests take the others."""
    packages = "torch|torchvision|runner|workloads|algorithms|pytorch_optimizer"
    names = set(re.findall(rf"`(?:_target_: )?((?:{packages})\.[\w.]+)`", PAGE))
    assert len(names) > 30
    for name in names:
        locate(name)


# -- models ----------------------------------------------------------------------------------------


def of_models() -> Iterator[Any]:
    for package, text, workload in re.findall(
        r"^\| (.+?) \| `(\{.*?\})` on `(\w+)`", section("A model"), re.MULTILINE
    ):
        yield pytest.param(text, workload, id=package, marks=heavy(f"{package}."))


@pytest.mark.parametrize(("text", "workload"), list(of_models()))
def test_a_model_of_the_page_trains(tmp_path: Path, mine: None, text: str, workload: str) -> None:
    needs(yaml.safe_load(text)["_target_"].partition(".")[0])
    trained(tmp_path, f"workload={workload}", f"workload.model={text}")


@pytest.mark.slow
def test_a_model_in_a_workloads_yaml(tmp_path: Path) -> None:
    needs("transformers")
    (text,) = blocks("A model")
    write(tmp_path, "workload", text)
    trained(tmp_path, "workload=of_the_page")


# -- data ------------------------------------------------------------------------------------------


def of_data() -> Iterator[Any]:
    for source, said in re.findall(
        r"^\| (.+?) \| (`(?:_target_|workload=).*?) \|$", section("Data"), re.MULTILINE
    ):
        yield pytest.param(re.findall(r"`(.*?)`", said), id=source, marks=heavy(said))


def files(folder: Path) -> None:
    """What the recipes read, of the sets that scikit-learn ships."""
    load_wine(as_frame=True).frame.to_csv(folder / "wine.csv", index=False)
    write_libsvm(*load_breast_cancer(return_X_y=True), str(folder / "mine.libsvm"))
    (folder / "mine.txt").write_text((ROOT / "README.md").read_text()[:6000])
    x, y = load_digits(return_X_y=True)
    np.savez(folder / "mine.npz", x=x, y=y)
    images = x.reshape(-1, 8, 8).astype(np.uint8)
    np.savez(
        folder / "images.npz",
        x_train=images[:200],
        y_train=y[:200],
        x_test=images[200:300],
        y_test=y[200:300],
    )
    for name in ("usps.bz2", "usps.t.bz2"):
        (folder / name).write_bytes(bz2.compress("\n".join(usps(images[:300], y)).encode()))


def usps(images: np.ndarray, y: np.ndarray) -> Iterator[str]:
    """Lines of such a file: the class from 1, and 16 by 16 numbers from -1 to 1."""
    for image, k in zip(images, y, strict=False):
        numbers = np.kron(image, np.ones((2, 2))).reshape(-1) / 8 - 1
        yield f"{k + 1} " + " ".join(f"{place}:{number}" for place, number in enumerate(numbers, 1))


def on_disk(folder: Path) -> None:
    import datasets
    from PIL import Image

    x, y = load_digits(return_X_y=True)
    pictures = [Image.fromarray(row.reshape(8, 8).astype(np.uint8)) for row in x[:400]]
    datasets.Dataset.from_dict({"image": pictures, "label": y[:400]}).save_to_disk(folder)


def test_the_yaml_of_a_table_trains(tmp_path: Path) -> None:
    files(tmp_path)
    (text,) = blocks("Data")
    write(tmp_path, "workload", text)
    plain = ["algorithm=adamw", "algorithm.optimizer.lr=0.01", "workload=of_the_page", "log=none"]
    plain += [f"results_dir={tmp_path}", f"data_dir={tmp_path}"]
    row = run(plain, [tmp_path / "conf"], inline=True)
    assert row["status"] == "done" and row["hit"] and row["metric"] == "f1"
    frame = pd.read_csv(tmp_path / "wine.csv")
    frame.to_parquet(tmp_path / "wine.parquet")
    trained(tmp_path, "workload=of_the_page", "workload.file=wine.parquet")


@pytest.mark.parametrize("said", list(of_data()))
def test_data_of_the_page_train(tmp_path: Path, mine: None, said: list[str]) -> None:
    files(tmp_path)
    if said[0].startswith("workload="):
        trained(tmp_path, *said[0].split(" "), *FEWER)
        return
    spec = {**yaml.safe_load(blocks("Data")[0]), "metric": "accuracy", "batch_size": 16, "hidden": []}
    for key in ("file", "target_column", "categorical", "drop"):
        del spec[key]
    if "/data/birds" in str(said):
        needs("datasets")
        on_disk(tmp_path / "birds")
    for text in said:
        given = yaml.safe_load(text.replace("/data/birds", str(tmp_path / "birds")))
        spec |= given if isinstance(given, dict) else {}
    write(tmp_path, "workload", yaml.safe_dump(spec))
    trained(tmp_path, "workload=of_the_page")

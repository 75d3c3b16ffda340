"""Images that a user brings: read as they are, and never a traceback for what is wrong with them."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from runner.base.errors import UserError
from runner.compose.config import compose
from runner.contract.instantiate import build_part
from workloads.npz import NpzImages

Arrays = dict[str, np.ndarray]
FACTS = {"name": "mine", "batch_size": 8, "budget_samples": 80, "eval_every": 8}


def arrays(shape: tuple[int, ...] = (9, 10, 3), train: int = 60, test: int = 12, classes: int = 3) -> Arrays:
    rng = np.random.default_rng(0)
    x = {f"x_{part}": rng.integers(256, size=(n, *shape), dtype=np.uint8)
         for part, n in (("train", train), ("test", test))}  # fmt: skip
    return {**x, "y_train": np.arange(train) % classes, "y_test": np.arange(test) % classes}


def prepared(root: Path, **changes: Any) -> NpzImages:
    workload = NpzImages(**(FACTS | {"file": "mine.npz"} | changes))
    workload.prepare(root)
    return workload


def saved(root: Path, **changes: Any) -> Path:
    np.savez(root / "mine.npz", **(arrays() | changes))
    return root / "mine.npz"


def test_images_become_channels_first_and_keep_their_labels(tmp_path: Path) -> None:
    stored = arrays()
    saved(tmp_path)
    data = prepared(tmp_path)._data
    assert data is not None and data.train.x.dtype == torch.uint8 and data.train.y.dtype == torch.int64
    assert data.test.x.shape == (12, 3, 9, 10) and data.test.y.tolist() == [0, 1, 2] * 4
    for i in range(12):
        for c in range(3):
            assert np.array_equal(data.test.x[i, c].numpy(), stored["x_test"][i, :, :, c])
    row_of = {image.tobytes(): i for i, image in enumerate(stored["x_train"])}
    rows = []
    for split in (data.train, data.validation):
        found = [row_of[image.permute(1, 2, 0).contiguous().numpy().tobytes()] for image in split.x]
        assert split.y.tolist() == [i % 3 for i in found]
        rows += found
    assert sorted(rows) == list(range(60)) and len(data.validation) == 6
    assert torch.bincount(data.validation.y).tolist() == [2, 2, 2]


@pytest.mark.parametrize("model", ["resnet20", "resnet18"])
def test_grey_images_and_a_column_of_labels_train_end_to_end(tmp_path: Path, model: str) -> None:
    labels = (np.arange(60) % 5).astype(np.int16).reshape(-1, 1)
    saved(tmp_path, **(arrays((8, 9)) | {"y_train": labels}))
    torch.manual_seed(0)
    task, evaluate = prepared(tmp_path, model=model).build(0, torch.device("cpu"))
    assert task.info.num_classes == 5 and task.info.input_shape == (1, 8, 9) and task.info.has_batchnorm
    assert task.backward(task.data.next()).isfinite()
    task.model.eval()
    assert evaluate(task.model, "validation")["loss"] > 0
    assert task.outputs(task.data.next(2)).shape == (2, 5)


def not_zip(root: Path) -> None:
    (root / "mine.npz").write_bytes(b"x_train" * 100)


def empty_file(root: Path) -> None:
    (root / "mine.npz").touch()


def one_array(root: Path) -> None:
    with (root / "mine.npz").open("wb") as file:
        np.save(file, np.zeros((2, 2)))


def cut_off(root: Path) -> None:
    path = saved(root)
    path.write_bytes(path.read_bytes()[:-500])


def flipped_bit(root: Path) -> None:
    path = saved(root)
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)


def empty_zip(root: Path) -> None:
    zipfile.ZipFile(root / "mine.npz", "w").close()


def lacking(root: Path) -> None:
    np.savez(root / "mine.npz", **{k: v for k, v in arrays().items() if k != "y_test"})


def folder(root: Path) -> None:
    (root / "mine.npz").mkdir()


def changed(**changes: Any) -> Callable[[Path], Any]:
    return lambda root: saved(root, **changes)


BROKEN = [
    (lambda root: None, "is missing: workload.file must name an .npz in data_dir .*cifar10_synthetic"),
    (folder, "is a folder: workload.file must name"),
    (not_zip, "is not an .npz that can be read"),
    (empty_file, "is not an .npz that can be read"),
    (one_array, "is not an .npz that can be read"),
    (cut_off, "is not an .npz that can be read"),
    (flipped_bit, "is not an .npz that can be read"),
    (empty_zip, "has no x_train: .* found: nothing"),
    (lacking, "has no y_test: .* found: x_train, x_test, y_train"),
    (changed(x_train=np.array([{}, {}], dtype=object)), "is not an .npz that can be read"),
    (changed(x_train=np.zeros((60, 9, 10, 3))), "x_train must be uint8 .*, got float64"),
    (changed(x_test=np.zeros((12, 270), np.uint8)), r"x_test must be \(n, height, .*, got \(12, 270\)"),
    (changed(x_train=np.zeros((0, 9, 10, 3), np.uint8), y_train=np.zeros(0, int)), "x_train is empty"),
    (changed(x_train=np.zeros((60, 7, 10, 3), np.uint8)), "7×10, too small for a ResNet: at least 8×8"),
    (changed(x_train=np.zeros((60, 3, 9, 10), np.uint8)), r"\(n, height, width, channels\), got \(60, 3, 9"),
    (changed(x_test=np.zeros((12, 9, 10), np.uint8)), "one shape, got 3×9×10 and 1×9×10"),
    (changed(y_train=np.arange(60) / 3), "y_train must be integers, got float64"),
    (changed(y_train=np.arange(60) > 3), "y_train must be integers, got bool"),
    (changed(y_train=np.arange(59) % 3), r"one label for each of 60 images, \(60,\), got \(59,\)"),
    (changed(y_test=np.eye(12, dtype=int)), r"one label for each of 12 images, \(12,\), got \(12, 12\)"),
    (changed(y_train=np.arange(60) % 3 - 1), "y_train must not be negative: .* got -1"),
    (changed(y_test=np.arange(12) % 4), r"y_test has the label 3, but y_train only 0 … 2"),
    (changed(y_train=np.arange(60) % 3 + 1), "labels up to 3 and none with 0"),
    (changed(y_train=np.arange(60) % 3 * 10**9), "labels up to 2000000000 and none with 1"),
    (changed(y_train=np.zeros(60, int)), "labels up to 0 and none with 1"),
    (changed(**arrays(train=9)), "x_train has 9 images; at least 10"),
]


@pytest.mark.parametrize(("spoil", "message"), BROKEN)
def test_what_is_wrong_is_one_clear_line(tmp_path: Path, spoil: Callable[[Path], Any], message: str) -> None:
    spoil(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        prepared(tmp_path)
    line = str(caught.value)
    assert line.startswith(str(tmp_path / "mine.npz")) and "\n" not in line
    assert len(line) - len(str(tmp_path)) < 280  # the summary of a cell keeps all of it


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("exploded"),)


def test_nothing_pickled_is_ever_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path, x_train=np.array([Bomb()], dtype=object))
    with pytest.raises(UserError, match="can be read"):
        prepared(tmp_path)
    (tmp_path / "mine.npz").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match="can be read"):
        prepared(tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_a_given_checksum_is_checked(tmp_path: Path) -> None:
    sha256 = hashlib.sha256(saved(tmp_path).read_bytes()).hexdigest()
    prepared(tmp_path, sha256=sha256)
    with pytest.raises(UserError, match=r"mine\.npz is damaged, or another file"):
        prepared(tmp_path, sha256="0" * 64)


@pytest.mark.parametrize("file", [None, "", 3])
def test_a_file_option_that_names_nothing_is_refused(file: object) -> None:
    config = {"_target_": "workloads.npz.NpzImages", **FACTS, "file": file}
    with pytest.raises(UserError, match="file must name an"):
        build_part("workload", config, prefix="")


@pytest.mark.data
def test_the_jpeg_copy_of_cifar10_is_split_as_the_original(data_dir: Path) -> None:
    config = compose(["workload=cifar10_npz"])["workload"]
    if not (data_dir / config["file"]).exists():
        pytest.skip(f"no {config['file']} in {data_dir}: set BENCH_DATA to the folder that holds it")
    workload = build_part("workload", config, prefix="")
    workload.prepare(data_dir)
    sizes = {"train": 4500, "validation": 500, "test": 1000}
    for name, each in sizes.items():
        split = getattr(workload._data, name)
        assert split.x.shape == (10 * each, 3, 32, 32) and torch.bincount(split.y).tolist() == [each] * 10
    mean, std = workload._channel_statistics()  # of the original: 0.4914 0.4822 0.4465, 0.2470 0.2435 0.2616
    assert mean.flatten().tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=1e-3)
    assert std.flatten().tolist() == pytest.approx([0.2470, 0.2435, 0.2616], abs=3e-3)

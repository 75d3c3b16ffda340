"""CIFAR-10: files fetched once, checked before they are unpickled, and split for validation."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from runner.base.errors import UserError, one_line
from runner.compose.config import compose
from runner.contract.instantiate import build_part
from runner.contract.torchvision_compat import import_torchvision
from workloads.augment import crop_flip
from workloads.cifar import Cifar10, channel_statistics
from workloads.resnet import BasicBlock, ResNet

ROWS = 20  # of a file
FOLDER = "cifar-10-batches-py"


def tiny_files() -> dict[str, bytes]:
    """Six batch files in the manner of CIFAR-10, a few kilobytes each, and the list of names."""
    rng, files = np.random.default_rng(0), {}
    for name in (*Cifar10.train_files, *Cifar10.test_files):
        pixels = rng.integers(256, size=(ROWS, 3072), dtype=np.uint8)
        files[name] = pickle.dumps({"data": pixels, "labels": [i % 10 for i in range(ROWS)]}, protocol=2)
    return files | {"batches.meta": pickle.dumps({"label_names": list("abcdefghij")}, protocol=2)}


FILES = tiny_files()


def md5s(names: Any) -> dict[str, str]:
    return {name: hashlib.md5(FILES[name]).hexdigest() for name in names}


class Tiny(Cifar10):
    train_files = md5s(Cifar10.train_files)
    test_files = md5s(Cifar10.test_files)


def tiny(**changes: Any) -> Tiny:
    facts = {"name": "tiny", "batch_size": 8, "budget_samples": 80, "eval_every": 8, "download": False}
    return Tiny(**(facts | changes))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data folder with the files in it."""
    folder = tmp_path / "data" / FOLDER
    folder.mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return tmp_path / "data"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An archive of the files on a local server, where torchvision's class looks for it."""
    archive, packed = tmp_path / "mirror" / "cifar-10-python.tar.gz", io.BytesIO()
    archive.parent.mkdir()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in FILES.items():
            member = tarfile.TarInfo(f"{FOLDER}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    archive.write_bytes(packed.getvalue())
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(archive.parent)))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    cls, meta = import_torchvision().datasets.CIFAR10, md5s(["batches.meta"])["batches.meta"]
    facts = {
        "url": f"http://127.0.0.1:{server.server_port}/{archive.name}",
        "tgz_md5": hashlib.md5(packed.getvalue()).hexdigest(),
        "train_list": list(map(list, Tiny.train_files.items())),
        "test_list": list(map(list, Tiny.test_files.items())), "meta": {**cls.meta, "md5": meta},
    }  # fmt: skip
    for key, value in facts.items():
        monkeypatch.setattr(cls, key, value)
    yield archive
    server.shutdown()
    server.server_close()


def listing(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


# -- reading ---------------------------------------------------------------------------------------


def test_images_keep_their_labels_and_a_tenth_is_for_validation(root: Path) -> None:
    workload = tiny()
    workload.prepare(root)
    data = workload._data
    assert data is not None and data.train.x.dtype == torch.uint8 and data.train.x.shape == (90, 3, 32, 32)
    label = {}
    for name in Cifar10.train_files:
        batch = pickle.loads(FILES[name])
        label |= {row.tobytes(): y for row, y in zip(batch["data"], batch["labels"], strict=True)}
    for split in (data.train, data.validation):
        assert [label.pop(row.numpy().tobytes()) for row in split.x] == split.y.tolist()
    assert not label and torch.bincount(data.validation.y).tolist() == [1] * 10
    test = pickle.loads(FILES["test_batch"])
    assert np.array_equal(data.test.x.flatten(1).numpy(), test["data"])
    assert data.test.y.tolist() == test["labels"]


def test_the_known_checksums_are_torchvisions() -> None:
    cls = import_torchvision().datasets.CIFAR10
    assert dict(map(tuple, cls.train_list)) == Cifar10.train_files
    assert dict(map(tuple, cls.test_list)) == Cifar10.test_files


def test_the_model_normalises_by_the_training_pixels_alone(root: Path) -> None:
    workload = tiny()
    workload.prepare(root)
    assert workload._data is not None
    pixels = workload._data.train.x.double() / 255
    model = workload.model()
    assert isinstance(model, ResNet)
    out = model.normalise(pixels.float()).double()
    assert out.mean((0, 2, 3)).tolist() == pytest.approx([0] * 3, abs=1e-6)
    assert out.std((0, 2, 3), unbiased=False).tolist() == pytest.approx([1] * 3, abs=1e-6)
    mean, std = channel_statistics(workload._data.train.x)
    assert torch.allclose(mean.flatten().double(), pixels.mean((0, 2, 3)), rtol=1e-7)
    assert torch.allclose(std.flatten().double(), pixels.std((0, 2, 3), unbiased=False), rtol=1e-7)


def test_options_of_the_yaml_choose_the_model_and_the_augmentation(root: Path) -> None:
    blocks = {"resnet20": 9, "resnet18": 8}
    for name, count in blocks.items():
        workload = tiny(model=name)
        workload.prepare(root)
        model = workload.model()
        assert isinstance(model, ResNet)
        assert sum(isinstance(module, BasicBlock) for module in model.modules()) == count
    assert tiny().augment() is crop_flip and tiny(augment="none").augment() is None
    config = compose(["workload=cifar10", "workload.model=resnet18"])["workload"]
    assert build_part("workload", config, prefix="").architecture == "resnet18"


@pytest.mark.parametrize(("key", "message"), [
    ("model", "model must be one of resnet20, resnet18, .* got vgg"),
    ("augment", "augment must be one of crop_flip, crop, none, got vgg"),
])  # fmt: skip
def test_another_option_is_refused_in_one_line(key: str, message: str) -> None:
    config = compose(["workload=cifar10", f"workload.{key}=vgg"])["workload"]
    with pytest.raises(UserError, match=message):
        build_part("workload", config, prefix="")


def test_augmented_rows_come_from_the_stream_and_plain_ones_when_asked(root: Path) -> None:
    workload, plain = tiny(), tiny(augment="none")
    for one in (workload, plain):
        one.prepare(root)
    batches = [one.build(3, torch.device("cpu"))[0].data.next() for one in (workload, plain)]
    assert torch.equal(batches[0].index, batches[1].index)  # pyright: ignore[reportArgumentType]
    assert not torch.equal(batches[0].x, batches[1].x)
    task, _ = plain.build(3, torch.device("cpu"))
    assert torch.equal(batches[1].x, task.data.x[batches[1].index].float() / 255)


# -- files that are missing or damaged -------------------------------------------------------------


@pytest.mark.parametrize("why", ["not allowed", "not found", "broken off"])
def test_a_missing_file_is_named_with_what_to_do(root: Path, mirror: Path, why: str) -> None:
    if why == "not found":
        mirror.unlink()
    elif why == "broken off":
        mirror.write_bytes(mirror.read_bytes()[:5000])
    (root / FOLDER / "data_batch_3").unlink()
    before = listing(root)
    with pytest.raises(UserError) as caught:
        tiny(download=why != "not allowed").prepare(root)
    line = str(caught.value)
    assert line.startswith(f"no data_batch_3 in {root / FOLDER}: unpack cifar-10-python.tar.gz")
    assert "data_dir=" in line and "workload=cifar10_synthetic" in one_line(line)
    assert ("download=false" if why == "not allowed" else "The download failed: ") in line
    assert listing(root) == before


def test_an_empty_folder_counts_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^no data_batch_1 \(and 5 more\) in "):
        tiny().prepare(tmp_path)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("exploded"),)


def test_a_file_that_is_not_the_known_one_is_named_and_never_unpickled(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (root / FOLDER / "data_batch_2").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match="data_batch_2 is damaged, or another file of that name"):
        tiny().prepare(root)
    assert not (tmp_path / "exploded").exists()


# -- downloads -------------------------------------------------------------------------------------


def test_missing_files_are_downloaded_once(tmp_path: Path, mirror: Path) -> None:
    root = tmp_path / "new" / "data"
    first = tiny(download=True)
    first.prepare(root)
    assert listing(root) == {FOLDER, *(f"{FOLDER}/{name}" for name in FILES if name != "batches.meta")}
    mirror.unlink()
    again = tiny(download=True)
    again.prepare(root)
    assert again.checksums() == first.checksums()


def test_a_file_that_is_there_is_never_replaced(root: Path, mirror: Path) -> None:
    (root / FOLDER / "data_batch_1").write_bytes(b"my own")
    (root / FOLDER / "test_batch").unlink()
    with pytest.raises(UserError, match="data_batch_1 is damaged"):
        tiny(download=True).prepare(root)
    assert (root / FOLDER / "data_batch_1").read_bytes() == b"my own"
    assert (root / FOLDER / "test_batch").read_bytes() == FILES["test_batch"]

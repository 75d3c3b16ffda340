"""Data that comes as files: fetched once, checked, and never a traceback for what a user can mend."""

from __future__ import annotations

import gzip
import hashlib
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from runner.base.errors import UserError
from runner.contract.records import one_line
from runner.contract.torchvision_compat import import_torchvision
from workloads.vision import IdxImages

REPO = Path(__file__).parents[2]
SIZES = {"train": 60, "t10k": 20}


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def tiny_files() -> dict[str, bytes]:
    """Four idx files in the manner of MNIST, a few kilobytes in all."""
    rng, files = np.random.default_rng(0), {}
    for split, n in SIZES.items():
        files[f"{split}-images-idx3-ubyte"] = idx_bytes(rng.integers(256, size=(n, 28, 28), dtype=np.uint8))
        files[f"{split}-labels-idx1-ubyte"] = idx_bytes(np.arange(n, dtype=np.uint8) % 10)
    return files


FILES = tiny_files()


class Tiny(IdxImages):
    dataset = "MNIST"
    files = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}  # noqa: RUF012
    num_validation = 20


def tiny(**changes) -> Tiny:
    facts = {"name": "tiny", "batch_size": 8, "budget_samples": 80, "eval_every": 8, "download": False}
    return Tiny(**(facts | changes))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data folder with the four files in it."""
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, content in FILES.items():
        (raw / name).write_bytes(content)
    return tmp_path / "data"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list]]:
    """A local server of the packed files, as attributes of torchvision's data set class."""
    folder, resources = tmp_path / "mirror", []
    folder.mkdir()
    for name, content in FILES.items():
        packed = gzip.compress(content)
        (folder / f"{name}.gz").write_bytes(packed)
        resources.append((f"{name}.gz", hashlib.md5(packed).hexdigest()))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield {"mirrors": [f"http://127.0.0.1:{server.server_port}/"], "resources": resources}
    server.shutdown()
    server.server_close()


def serve(monkeypatch: pytest.MonkeyPatch, mirror: dict[str, list]) -> None:
    for key, value in mirror.items():
        monkeypatch.setattr(import_torchvision().datasets.MNIST, key, value)


def listing(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


# -- reading ---------------------------------------------------------------------------------------


def test_images_stay_bytes_and_keep_their_labels(root: Path):
    workload = tiny()
    workload.prepare(root)
    data = workload._data
    assert data is not None and data.train.x.dtype == torch.uint8 and data.train.x.shape == (40, 1, 28, 28)
    test = np.frombuffer(FILES["t10k-images-idx3-ubyte"], np.uint8, offset=16).reshape(20, 28, 28)
    assert np.array_equal(data.test.x[:, 0].numpy(), test)
    train = np.frombuffer(FILES["train-images-idx3-ubyte"], np.uint8, offset=16).reshape(60, 28, 28)
    label = {image.tobytes(): i % 10 for i, image in enumerate(train)}
    assert [label[row.numpy().tobytes()] for row in data.train.x] == data.train.y.tolist()
    assert torch.bincount(data.validation.y).tolist() == [2] * 10


def test_unchecked_copies_in_the_legacy_folder_are_not_read(root: Path):
    legacy = root / "MNIST" / "processed"
    legacy.mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save((torch.zeros(7, 28, 28, dtype=torch.uint8), torch.zeros(7)), legacy / name)
    workload = tiny()
    workload.prepare(root)
    assert workload._data is not None and len(workload._data.test) == 20


# -- files that are missing or damaged -------------------------------------------------------------


@pytest.mark.parametrize("why", ["not allowed", "not found", "no network", "broken off"])
def test_a_missing_file_is_named_with_what_to_do(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirror: dict[str, list], why: str
):
    wanted = "t10k-labels-idx1-ubyte"
    if why == "not found":
        (tmp_path / "mirror" / f"{wanted}.gz").unlink()
    elif why == "no network":
        mirror["mirrors"] = ["http://127.0.0.1:1/"]
    elif why == "broken off":
        (tmp_path / "mirror" / f"{wanted}.gz").write_bytes(b"half a fi")
    serve(monkeypatch, mirror)
    (root / "MNIST" / "raw" / wanted).unlink()
    before = listing(root)
    with pytest.raises(UserError) as caught:
        tiny(download=why != "not allowed").prepare(root)
    message = str(caught.value)
    for part in (wanted, str(root), "data_dir=", "BENCH_DATA=", "workload=digits"):
        assert part in message
    assert "train-images" not in message.partition(":")[0]  # that one is there
    assert ("download=false" if why == "not allowed" else "The download failed: ") in message
    assert listing(root) == before


def test_the_remedy_survives_the_summary_of_a_cell(tmp_path: Path):
    with pytest.raises(UserError) as caught:
        tiny().prepare(tmp_path)
    line = one_line(str(caught.value))
    assert line.startswith("no train-images-idx3-ubyte (and 3 more) in ") and "workload=digits" in line


def test_a_failed_download_leaves_an_empty_data_folder_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    serve(monkeypatch, {"mirrors": ["http://127.0.0.1:1/"]})
    with pytest.raises(UserError, match="The download failed"):
        tiny(download=True).prepare(tmp_path / "data")
    assert listing(tmp_path / "data") == set()


def test_a_data_folder_that_cannot_be_made_is_the_users_error(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="The download failed"):
        tiny(download=True).prepare(tmp_path / "file")


@pytest.mark.parametrize("damage", ["a byte", "the end"])
def test_a_damaged_file_is_named(root: Path, damage: str):
    path = root / "MNIST" / "raw" / "train-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    if damage == "a byte":
        content[1000] ^= 1
    else:
        del content[-1]
    path.write_bytes(content)
    with pytest.raises(UserError, match="train-images-idx3-ubyte is damaged"):
        tiny().prepare(root)
    path.write_bytes(FILES[path.name])
    tiny().prepare(root)


# -- downloads -------------------------------------------------------------------------------------


def test_missing_files_are_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirror: dict):
    serve(monkeypatch, mirror)
    root = tmp_path / "new" / "data"
    tiny(download=True).prepare(root)
    raw = root / "MNIST" / "raw"
    assert {name: (raw / name).read_bytes() for name in FILES} == FILES
    assert not list(root.glob(".download-*"))
    serve(monkeypatch, {"mirrors": ["http://127.0.0.1:1/"]})
    tiny(download=True).prepare(root)


def test_a_file_that_is_there_is_never_replaced(root: Path, monkeypatch: pytest.MonkeyPatch, mirror: dict):
    serve(monkeypatch, mirror)
    raw = root / "MNIST" / "raw"
    (raw / "t10k-labels-idx1-ubyte").unlink()
    (raw / "train-labels-idx1-ubyte").write_bytes(b"my own")
    with pytest.raises(UserError, match="train-labels-idx1-ubyte is damaged"):
        tiny(download=True).prepare(root)
    assert (raw / "train-labels-idx1-ubyte").read_bytes() == b"my own"


def test_two_processes_may_prepare_at_once(tmp_path: Path, mirror: dict):
    root = tmp_path / "data"
    code = (
        f"import os, sys; sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(REPO)!r}]\n"
        "from pathlib import Path\n"
        "from test_idx_images import import_torchvision, tiny\n"
        f"for key, value in {mirror!r}.items(): setattr(import_torchvision().datasets.MNIST, key, value)\n"
        "other = os.fork()\n"  # with everything imported, both start together
        f"workload = tiny(download=True); workload.prepare(Path({str(root)!r}))\n"
        "os.write(1, (workload.checksums()['train'] + '\\n').encode())\n"
        "os._exit(0 if not other else os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.split()
    assert first == second
    assert {name: (root / "MNIST" / "raw" / name).read_bytes() for name in FILES} == FILES
    assert not list(root.glob(".download-*"))

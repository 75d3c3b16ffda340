"""Which rows land in which split, and that they are the rows of the source."""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from workloads.base import stratified_split
from workloads.embedded import packaged

SIZES = {
    "digits": (899, 449, 449),
    "breast_cancer": (191, 189, 189),
    "mnist": (55_000, 5_000, 10_000),
    "fashion_mnist": (55_000, 5_000, 10_000),
}
EMBEDDED = ["digits", "breast_cancer"]
REAL = [pytest.param(name, marks=pytest.mark.data) for name in ("mnist", "fashion_mnist")]
SPLITS = ("train", "validation", "test")


def fingerprints(x: Tensor, y: Tensor) -> Counter[bytes]:
    """Every row with its target, counted."""
    return Counter(row.tobytes() + bytes([int(t)]) for row, t in zip(x.numpy(), y.numpy(), strict=True))


def idx(path: Path) -> np.ndarray:
    """An idx file of bytes, read by the book: magic, sizes, content."""
    content = path.read_bytes()
    dims = content[3]
    shape = struct.unpack(f">{dims}I", content[4 : 4 + 4 * dims])
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dims).reshape(shape)


@pytest.mark.parametrize("name", [*EMBEDDED, *REAL])
def test_sizes(make, name: str):
    data = make(name)._data
    assert tuple(len(getattr(data, split)) for split in SPLITS) == SIZES[name]


@pytest.mark.parametrize("name", [*EMBEDDED, *REAL])
def test_classes_have_equal_shares(make, name: str):
    data = make(name)._data
    drawn = SPLITS if name in EMBEDDED else SPLITS[:2]  # the official test split is as it is
    counts = torch.stack([torch.bincount(getattr(data, split).y.long()) for split in drawn]).double()
    expected = counts.sum(1, keepdim=True) * counts.sum(0) / counts.sum()
    assert (counts - expected).abs().max() <= 1.5


def test_digits_are_the_source_rows_once_each(make):
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    data = make("digits")._data
    source = fingerprints(
        torch.tensor(bunch.images, dtype=torch.float32).div(16).unsqueeze(1), torch.tensor(bunch.target)
    )
    parts = [fingerprints(getattr(data, s).x, getattr(data, s).y) for s in SPLITS]
    assert sum(parts, Counter()) == source


def test_breast_cancer_rows_are_the_source_rows_scaled_by_training_rows(make):
    from sklearn.datasets import load_breast_cancer

    bunch: Any = load_breast_cancer()
    data = make("breast_cancer")._data
    assert torch.all(data.train.x.amin(0) == 0) and torch.all(data.train.x.amax(0) == 1)
    source = torch.tensor(bunch.data, dtype=torch.float64)
    x = torch.cat([getattr(data, s).x for s in SPLITS]).double()
    y = torch.cat([getattr(data, s).y for s in SPLITS])
    # An affine map of each feature takes them back: the smallest and largest value of all rows fix it.
    x = (x - x.amin(0)) / (x.amax(0) - x.amin(0))
    source = (source - source.amin(0)) / (source.amax(0) - source.amin(0))
    distance, row = torch.cdist(x, source).min(1)
    assert distance.max() < 1e-4 and sorted(row.tolist()) == list(range(len(source)))
    assert torch.equal(y, torch.tensor(bunch.target, dtype=y.dtype)[row])


@pytest.mark.parametrize(("file", "header"), [("digits.csv.gz", 0), ("breast_cancer.csv", 1)])
def test_packaged_tables_are_what_scikit_learn_loads_to_the_bit(file: str, header: int):
    from sklearn import datasets

    bunch: Any = getattr(datasets, f"load_{file.partition('.')[0]}")()
    table = packaged(file, header)
    assert np.array_equal(table[:, :-1], bunch.data) and np.array_equal(table[:, -1], bunch.target)


@pytest.mark.data
@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_idx_rows_are_the_source_rows_once_each(make, data_dir: Path, name: str, folder: str):
    data = make(name)._data
    raw = data_dir / folder / "raw"
    source = fingerprints(
        torch.tensor(idx(raw / "train-images-idx3-ubyte")), torch.tensor(idx(raw / "train-labels-idx1-ubyte"))
    )
    ours = fingerprints(data.train.x, data.train.y) + fingerprints(data.validation.x, data.validation.y)
    assert ours == source
    assert np.array_equal(data.test.x[:, 0].numpy(), idx(raw / "t10k-images-idx3-ubyte"))
    assert np.array_equal(data.test.y.numpy(), idx(raw / "t10k-labels-idx1-ubyte"))


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=6),
    shares=st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)),
    seed=st.integers(0, 2**31),
)
def test_stratified_split_deals_every_row_once(counts: list[int], shares: tuple[float, float], seed: int):
    y = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    y = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))]
    sizes = tuple(int(share * len(y)) for share in shares)
    parts = stratified_split(y, sizes, seed)
    assert [len(p) for p in parts] == [*sizes, len(y) - sum(sizes)]
    assert torch.cat(parts).sort().values.tolist() == list(range(len(y)))
    assert [p.tolist() for p in stratified_split(y, sizes, seed)] == [p.tolist() for p in parts]
    for part in parts:
        expected = torch.tensor(counts) * (len(part) / len(y))
        assert (torch.bincount(y[part], minlength=len(counts)) - expected).abs().max() <= len(counts)


def test_the_seed_decides_the_split():
    y = torch.arange(200) % 4
    one, other = stratified_split(y, (50,), 1)[0], stratified_split(y, (50,), 2)[0]
    assert one.tolist() != other.tolist()

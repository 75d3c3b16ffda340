"""Logistic regression on LIBSVM files: convex, two classes or more, rows whole or as lists of entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from runner.base.errors import UserError
from workloads.base import Data, Split, TensorWorkload, stratified_split
from workloads.datafiles import obtain
from workloads.libsvm import Rows, first_index, line_of, read_rows, restrict, to_entries
from workloads.models import Normalise

SPLIT_SEED = 20240501  # of the split into training, validation and test; part of the workload
LEAST_ROWS = 10
# Where a step on sparse rows is the faster one (scripts/bench_sparse.py).
SPARSE_FEATURES = 2048  # features, at least
SPARSE_RATIO = 24  # features for each entry of the longest row, at least
SCALES = ("standard", "max_abs", "none")
SITE = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/binary"


class LogReg(TensorWorkload):
    """Logistic regression from zero on a LIBSVM file; a9a (32,561 + 16,281 rows, 123 features) by default.

    Two labels make a binary task, the smaller one class 0; more make a multinomial one, in ascending order.
    With a test file, a tenth of the file is the validation split and the rest for training; without one a
    tenth each is for validation and for test. Classes have equal shares in each split, which are the same in
    every cell. Repeated rows are kept, wherever they fall.

    Features count from 0 where the file has an index 0, else from 1, up to its largest index; what a test
    file has beyond them is dropped, as no weight could be learnt for it. A test file that counts from the
    other index is an error, as is a label that the file does not have. Scaling is by training rows, in the
    model's first module: ``standard`` subtracts the mean and divides by the standard deviation (1 where a
    feature is constant), ``max_abs`` divides by the largest magnitude, which keeps zeros.

    Args:
        file: the file, relative to the data folder or absolute; .gz, .bz2 and .xz are unpacked.
        test_file: the test split's; None where there is none.
        sparse: rows as (K, 2) lists of feature ids and values, padded with zeros to the longest row, or whole
            as (d,); None: whichever makes the faster step (``scripts/bench_sparse.py``).
        scale: ``standard`` (whole rows only), ``max_abs`` or ``none``; None: ``standard`` for whole rows,
            ``max_abs`` for sparse ones.
        download: fetch a9a and a9a.t where they are missing.

    The other arguments are those of :class:`TensorWorkload`.

    Raises:
        ValueError: for an option that is none of these.
    """

    model_kind = "linear"
    # File -> where it can be had, and its SHA-256.
    known: ClassVar[Mapping[str, tuple[str, str]]] = {
        "libsvm/a9a": (f"{SITE}/a9a", "f5d5ffd8d865ff41328e7ee043e4b020816914ff6843ff15b98905ddbedce906"),
        "libsvm/a9a.t": (f"{SITE}/a9a.t", "1f448a153f0320399a7e40836eb207655b0bde0f21fc941cc472193daa9f5de9"),
    }

    def __init__(
        self,
        *args: Any,
        file: str,
        test_file: str | None = None,
        sparse: bool | str | None = None,
        scale: str | None = None,
        download: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if sparse not in (True, False, None, "auto"):
            raise ValueError(f"sparse must be true, false or null, got {sparse!r}")
        if scale not in (*SCALES, None):
            raise ValueError(f"scale must be {', '.join(SCALES)} or null, got {scale!r}")
        if sparse is True and scale == "standard":
            raise ValueError("scale=standard moves zeros, so rows cannot be sparse: scale=max_abs keeps them")
        self.file, self.test_file, self.download = file, test_file, download
        self.sparse, self.scale = sparse, scale
        self._lists = False  # whether rows are sparse
        self._shift: Tensor | None = None
        self._spread: Tensor | None = None
        self._features = 0

    def load(self, root: Path) -> Data:
        """See :meth:`TensorWorkload.load`."""
        self._check_test_file(root)
        path, rows = self._read(root, self.file)
        classes = _classes(path, rows.y)
        y = _codes(path, rows.y, classes)
        held_out = (len(y) // 10,) * (1 if self.test_file else 2)
        *rest, train = stratified_split(y, held_out, SPLIT_SEED)
        parts = [(rows.x[ids.numpy()], y[ids]) for ids in (train, *rest)]
        if self.test_file:
            other, test = self._read(root, self.test_file)
            parts.append((test.x, _codes(other, test.y, classes)))
            _check_same_start(path, rows.x, other, test.x)
        first = first_index(rows.x)
        return self._splits([(restrict(x, first, rows.x.shape[1]), y) for x, y in parts], len(classes))

    def model(self) -> nn.Module:
        """A linear map from zero: one logit for two classes, else one for each."""
        outputs = 1 if self.task == "binary" else self.num_classes
        if self._lists:
            return SparseLinear(Entries(self._spread), self._features, outputs)
        return DenseLinear(self._normalise(), self._features, outputs)

    def param_kinds(self, model: nn.Module) -> Mapping[str, str]:
        """The weights are the head, whichever form they have."""
        return {name: "bias" if name.endswith("bias") else "head" for name, _ in model.named_parameters()}

    def _normalise(self) -> nn.Module:
        if self._shift is None or self._spread is None:
            return nn.Identity()
        return Normalise(self._shift, self._spread)

    def _check_test_file(self, root: Path) -> None:
        """A file of one's own seldom comes with another beside it, in which the test split is looked for."""
        test, file = self.test_file, root / self.file
        if test and test not in self.known and file.exists() and not (root / test).exists():
            raise UserError(
                f"no file {root / test} for the test split: workload.test_file=null takes a tenth of "
                f"{file.name} for it, workload.test_file=… names another"
            )

    def _read(self, root: Path, file: str) -> tuple[Path, Rows]:
        path = root / file
        if file in self.known:
            url, sha256 = self.known[file]
            advice = f"save {url} under that name, or say where it is with data_dir=… or BENCH_DATA=…; "
            advice += "workload=breast_cancer needs no files"
            obtain(path, url if self.download else None, sha256, advice)
        return path, read_rows(path)

    def _splits(self, parts: Sequence[tuple[Any, Tensor]], num_classes: int) -> Data:
        x, binary = parts[0][0], num_classes == 2
        self._features, self._lists = x.shape[1], self._is_sparse(x)
        form = to_entries if self._lists else _whole
        splits = [Split(form(x), y.float() if binary else y) for x, y in parts]
        self._note_facts(splits[0].x, num_classes)
        scale = self.scale or ("max_abs" if self._lists else "standard")
        self._shift, self._spread = _scaling(splits[0].x, scale, self._features)
        return Data(*splits)

    def _is_sparse(self, x: Any) -> bool:
        if isinstance(self.sparse, bool):
            return self.sparse
        return self.scale != "standard" and sparse_pays(x.shape[1], int(np.diff(x.indptr).max()))

    def _note_facts(self, x: Tensor, num_classes: int) -> None:
        """What other workloads know of their data before they have read it."""
        low_high = None if self._lists else (x.min().item(), x.max().item())
        task = "binary" if num_classes == 2 else "multiclass"
        self.task, self.num_classes, self.input_range = task, num_classes, low_high


def sparse_pays(features: int, entries: int) -> bool:
    """Whether rows of ``features``, the longest with ``entries`` of them, train faster as lists."""
    return features >= SPARSE_FEATURES and features >= SPARSE_RATIO * entries


class DenseLinear(nn.Module):
    """``outputs`` logits a row, (B, outputs), or (B,) for one; weights and bias start at zero.

    Args:
        normalise: from stored rows to the ones that are weighed, (B, features) both.
        features: d.
        outputs: logits a row.
    """

    def __init__(self, normalise: nn.Module, features: int, outputs: int) -> None:
        super().__init__()
        self.normalise, self.outputs = normalise, outputs
        self.linear = nn.Linear(features, outputs)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of rows (B, d)."""
        logits = self.linear(self.normalise(x))
        return logits.squeeze(1) if self.outputs == 1 else logits


class SparseLinear(nn.Module):
    """:class:`DenseLinear` on rows that are lists of entries, (B, K, 2); its weight is (d, outputs)."""

    def __init__(self, entries: Entries, features: int, outputs: int) -> None:
        super().__init__()
        self.entries, self.outputs = entries, outputs
        self.weight = nn.Parameter(torch.zeros(features, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of rows (B, K, 2)."""
        ids, values = self.entries(x)
        # On the CPU the backward pass of index_select takes half the time of an embedding's.
        weights = self.weight.index_select(0, ids.flatten()).view(*ids.shape, self.outputs)
        logits = torch.bmm(values.unsqueeze(1), weights).squeeze(1) + self.bias
        return logits.squeeze(1) if self.outputs == 1 else logits


class Entries(nn.Module):
    """From rows (B, K, 2) to feature ids (B, K), int64, and values (B, K) over each feature's ``spread``."""

    spread: Tensor | None

    def __init__(self, spread: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("spread", spread)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Ids and scaled values."""
        ids, values = x[..., 0].long(), x[..., 1]
        if self.spread is not None:
            values = values / self.spread.index_select(0, ids.flatten()).view(ids.shape)
        return ids, values


def _classes(path: Path, labels: np.ndarray) -> np.ndarray:
    classes = np.unique(labels)
    if len(classes) == 1:
        raise UserError(f"{path} has one class alone, label {classes[0]:g}: a classifier needs two")
    if len(labels) < LEAST_ROWS:
        raise UserError(f"{path} has {len(labels)} rows: too few to split, {LEAST_ROWS} are needed")
    if 2 * len(classes) > len(labels):
        raise UserError(
            f"{path} has {len(classes)} labels in {len(labels)} rows: numbers to predict rather than classes?"
        )
    return classes


def _codes(path: Path, labels: np.ndarray, classes: np.ndarray) -> Tensor:
    unknown = ~np.isin(labels, classes)
    if unknown.any():
        row = int(unknown.argmax())
        known = ", ".join(f"{label:g}" for label in classes[:6]) + (", …" if len(classes) > 6 else "")
        raise UserError(
            f"{path}:{line_of(path, row)}: label {labels[row]:g} is not one of the training file's: {known}"
        )
    return torch.from_numpy(np.searchsorted(classes, labels))


def _check_same_start(path: Path, x: Any, other: Path, test: Any) -> None:
    """Refuse a test file whose columns are one off: one file counts them from 0, the other from 1.

    A file that counts from 0 may have no entry in that column; one that has none, and a column more than the
    other, counts from 1.
    """
    starts = first_index(x), first_index(test)
    if starts == (1, 0) or (starts == (0, 1) and test.shape[1] == x.shape[1] + 1):
        raise UserError(
            f"{path} counts its features from {starts[0]} and {other} from {starts[1]}, so that their "
            f"columns would not be the same: write both from {starts[0]}"
        )


def _whole(x: Any) -> Tensor:
    return torch.from_numpy(x.astype(np.float32).toarray())


def _scaling(x: Tensor, scale: str, features: int) -> tuple[Tensor | None, Tensor | None]:
    """What to subtract from and to divide by, (d,) each; None for nothing."""
    if scale == "none":
        return None, None
    if x.dim() == 3:
        largest = torch.zeros(features).scatter_reduce_(
            0, x[..., 0].long().flatten(), x[..., 1].abs().flatten(), "amax"
        )
        return None, torch.where(largest > 0, largest, 1.0)
    if scale == "max_abs":
        return torch.zeros(features), x.abs().amax(0)
    # In double precision, a few columns at a time: all of them would take twice the data's memory.
    moments = [torch.var_mean(columns.double(), 0, correction=0) for columns in x.split(256, dim=1)]
    var, mean = (torch.cat(tensors) for tensors in zip(*moments, strict=True))
    return mean.float(), var.sqrt().float()  # exactly zero for a constant, which then counts as one

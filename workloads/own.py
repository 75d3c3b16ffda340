"""Data that people bring, by YAML alone: tables, arrays, and any map-style data set."""

from __future__ import annotations

import itertools
import zipfile
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from runner.base.errors import UserError, one_line
from runner.base.unpack import check_table, check_zip, packing, unpacked
from runner.contract.instantiate import build_part
from workloads.base import Data, Split, TensorWorkload, stratified_split

SPLIT_SEED = 20240501  # of the split into training, validation and test; part of the workload
TASKS = ("binary", "multiclass", "regression")
FEWEST = 2  # rows of a split
NAMELESS = "Unnamed: "  # what pandas calls a column without a name
PARTS = ("train", "validation", "test")

Rows = tuple[Tensor, np.ndarray]  # inputs (n, ...) and targets (n,) as they were found


class OwnData(TensorWorkload):
    """Inputs and targets from somewhere: dealt into splits, labels counted off, features standardised.

    Splits that the source has are used as they are; others are taken from its training rows, classes in
    equal shares, the same in every cell. Classes are the labels of the training rows in ascending order; a
    binary task has two. Rows of floats, (n, d), are standardised by training rows; a constant feature
    becomes 0. The model is linear, or a network of ``hidden`` layers; other inputs need ``model`` in the
    config.

    Args:
        task: ``binary``, ``multiclass`` or ``regression``.
        validation: share of the training rows for the validation split, where the source has none.
        test: share of them for the test split, where it has none.
        hidden: widths of hidden layers, with ReLU between them.
        standardise: whether features are.

    The other arguments are those of :class:`TensorWorkload`.

    Raises:
        ValueError: for another task, or shares that leave no training rows.
    """

    def __init__(
        self,
        *args: Any,
        task: str,
        validation: float = 0.2,
        test: float = 0.2,
        hidden: Sequence[int] = (),
        standardise: bool = True,
        **kwargs: Any,
    ) -> None:
        if task not in TASKS:
            raise ValueError(f"task must be one of {', '.join(TASKS)}, got {task}")
        if not (validation > 0 and test > 0 and validation + test < 1):
            raise ValueError(
                f"validation and test must be shares, less than 1 together, got {validation}, {test}"
            )
        self.task, self.model_kind = task, "mlp" if hidden else "linear"
        super().__init__(*args, **kwargs)
        self.shares, self.hidden, self.standardise = (validation, test), tuple(hidden), standardise

    @abstractmethod
    def read(self, root: Path) -> Mapping[str, Rows]:
        """Rows by split: ``train``, and ``validation`` and ``test`` where the source has them.

        Raises:
            UserError: where there are none, or they are incomplete: which file and row.
        """

    def load(self, root: Path) -> Data:
        """See :meth:`TensorWorkload.load`."""
        found = self.read(root)
        classes = np.unique(found["train"][1])
        parts = {name: Split(x, self._targets(name, y, classes)) for name, (x, y) in found.items()}
        self.num_classes = 0 if self.task == "regression" else len(classes)
        data = self._dealt(parts)
        return _standardised(data) if self.standardise and _is_table(data.train.x) else data

    def model(self) -> nn.Module:
        """A linear map, or a network; one output a row unless there are more than two classes.

        Raises:
            UserError: for inputs that are no rows of features.
        """
        x = self._loaded().train.x
        if not _is_table(x):
            shape = tuple(x.shape[1:])
            raise UserError(
                f"workload {self.name}: rows {shape} {x.dtype} need a model: workload.model={{_target_: …}}"
            )
        outputs = self.num_classes if self.task == "multiclass" else 1
        widths = [x.shape[1], *self.hidden]
        layers = [m for sizes in itertools.pairwise(widths) for m in (nn.Linear(*sizes), nn.ReLU())]
        return nn.Sequential(
            *layers, nn.Linear(widths[-1], outputs), *([nn.Flatten(0)] if outputs == 1 else [])
        )

    def _targets(self, part: str, y: np.ndarray, classes: np.ndarray) -> Tensor:
        """Numbers, or positions among the classes."""
        if y.dtype.kind == "f" and not np.isfinite(y).all():
            row = int((~np.isfinite(y)).argmax())
            raise UserError(f"{self.source}: {part} row {row + 1}: the target is {y[row]}")
        if self.task == "regression":
            return self._numbers(part, y)
        if (self.task == "binary") != (len(classes) == 2):
            raise UserError(
                f"{self.source}: has {len(classes)} classes in training, and workload.task={self.task}"
            )
        if part == "train" and 2 * len(classes) > len(y):
            raise UserError(
                f"{self.source}: {len(classes)} classes in {len(y)} rows: workload.task=regression?"
            )
        unknown = ~np.isin(y, classes)
        if unknown.any():
            row = int(unknown.argmax())
            raise UserError(
                f"{self.source}: {part} row {row + 1}: {y[row]!s} is no class of the training rows"
            )
        ids = torch.from_numpy(np.searchsorted(classes, y))
        return ids.float() if self.task == "binary" else ids

    def _numbers(self, part: str, y: np.ndarray) -> Tensor:
        if y.dtype.kind not in "buif":
            raise UserError(
                f"{self.source}: {part} row 1: {y[0]!s} is no number, and workload.task=regression"
            )
        return torch.from_numpy(y.astype(np.float32))

    def _dealt(self, parts: Mapping[str, Split]) -> Data:
        train = parts["train"]
        missing = {
            name: share for name, share in zip(PARTS[1:], self.shares, strict=True) if name not in parts
        }
        strata = torch.zeros(len(train)) if self.task == "regression" else train.y
        sizes = tuple(round(share * len(train)) for share in missing.values())
        *taken, rest = stratified_split(strata, sizes, SPLIT_SEED)
        dealt = {name: Split(train.x[ids], train.y[ids]) for name, ids in zip(missing, taken, strict=True)}
        splits = {**parts, **dealt, "train": Split(train.x[rest], train.y[rest])}
        few = next((name for name in PARTS if len(splits[name]) < FEWEST), None)
        if few is not None:
            raise UserError(f"{self.source}: {len(splits[few])} rows for {few}, of {len(train)}: too few")
        return Data(*(splits[name] for name in PARTS))

    @property
    def source(self) -> str:
        """Where the rows come from, for messages."""
        return f"workload {self.name}"


def _is_table(x: Tensor) -> bool:
    return x.dim() == 2 and x.is_floating_point()


def _standardised(data: Data) -> Data:
    x = data.train.x.double()
    mean, std = x.mean(0), x.std(0, correction=0)
    std = torch.where(std > 0, std, 1.0)
    return Data(*(Split(((s.x - mean) / std).float(), s.y) for s in (data.train, data.validation, data.test)))


# -- tables ----------------------------------------------------------------------------------------


class Table(OwnData):
    """Rows of a CSV, TSV or Parquet file, by pandas.

    Every column is a feature but for the target and those dropped. Columns of numbers and of truth values are
    taken as they are; a categorical one becomes as many as it has values in training rows, 0 or 1 each.

    Args:
        file: the file, relative to the data folder or absolute.
        target_column: what is to be predicted.
        test_file: the test split's, with the same columns; None: a share of the file.
        categorical: columns of categories.
        drop: columns that are no features: names, dates, identifiers.

    The other arguments are those of :class:`OwnData`.
    """

    def __init__(
        self,
        *args: Any,
        file: str,
        target_column: str,
        test_file: str | None = None,
        categorical: Sequence[str] = (),
        drop: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.file, self.test_file, self.target_column = file, test_file, target_column
        self.categorical, self.drop = list(categorical), list(drop)

    def read(self, root: Path) -> Mapping[str, Rows]:
        """See :meth:`OwnData.read`."""
        files = {"train": self.file, **({"test": self.test_file} if self.test_file else {})}
        frames = {part: self._complete(root / file, read_frame(root / file)) for part, file in files.items()}
        train = frames["train"]
        features = [c for c in train.columns if c != self.target_column and c not in self.drop]
        values = {c: np.unique(train[c].astype(str)) for c in features if c in self.categorical}
        return {
            part: (
                self._features(root / files[part], frame, features, values),
                frame[self.target_column].to_numpy(),
            )
            for part, frame in frames.items()
        }

    @property
    def source(self) -> str:
        """The file."""
        return f"workload.file={self.file}"

    def _complete(self, path: Path, frame: Any) -> Any:
        """The columns that are used, if they are there and every row has a value in each."""
        named = [self.target_column, *self.categorical, *self.drop]
        unknown = [column for column in named if column not in frame.columns]
        if unknown:
            raise UserError(
                f"{path}: has no column {unknown[0]!r}; it has {one_line(', '.join(frame.columns), 120)}"
            )
        frame = frame.drop(columns=self.drop)
        nameless = [column for column in frame.columns if column.startswith(NAMELESS)]
        if nameless:
            raise UserError(
                f"{path}: a column without a name, as an index of rows has: leave it out by "
                f"workload.drop=['{nameless[0]}'], or name it"
            )
        empty = frame.isna().to_numpy()
        if empty.any():
            row, column = (int(at[0]) for at in empty.nonzero())
            raise UserError(
                f"{path}: row {row + 1} (below the header), column {frame.columns[column]!r}: no value, "
                f"as in {int(empty.any(1).sum())} of {len(frame)} rows: fill them in, or leave them out"
            )
        return frame

    def _features(
        self, path: Path, frame: Any, features: Sequence[str], values: Mapping[str, np.ndarray]
    ) -> Tensor:
        absent = [column for column in features if column not in frame.columns]
        if absent:
            raise UserError(f"{path}: has no column {absent[0]!r}, which {self.file} has")
        columns = [
            _categories(path, frame[c], values[c]) if c in values else _numbers(path, frame[c])
            for c in features
        ]
        if not columns:
            raise UserError(f"{path}: has no features beside {self.target_column!r}")
        return torch.from_numpy(np.concatenate(columns, axis=1))


def read_frame(path: Path) -> Any:
    """The table in a file.

    Raises:
        UserError: where there is no such file, or pandas cannot read it.
    """
    import pandas as pd

    if not path.is_file():
        raise UserError(
            f"no {path}: workload.file must be a CSV, TSV or Parquet file, in data_dir or by full path"
        )
    try:
        if path.suffix in (".parquet", ".pq"):
            check_table(path)
            frame = pd.read_parquet(path)
        else:
            check_zip(path)
            opener = packing(path)
            given: Any = path if opener is None else unpacked(path, opener)
            frame = pd.read_csv(given, sep="\t" if ".tsv" in path.suffixes else ",")
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} cannot be read: {one_line(str(error), 160)}") from error
    return frame.set_axis([str(column) for column in frame.columns], axis=1)


def _numbers(path: Path, column: Any) -> np.ndarray:
    if column.dtype.kind not in "buif":
        raise UserError(
            f"{path}: column {column.name!r} holds no numbers ({column.iloc[0]!s}): name it under "
            "workload.categorical or under workload.drop"
        )
    values = column.to_numpy(np.float32)
    if not np.isfinite(values).all():
        row = int((~np.isfinite(values)).argmax())
        raise UserError(
            f"{path}: row {row + 1} (below the header), column {column.name!r}: {column.iloc[row]}"
        )
    return values[:, None]


def _categories(path: Path, column: Any, known: np.ndarray) -> np.ndarray:
    values = column.astype(str).to_numpy()
    unknown = ~np.isin(values, known)
    if unknown.any():
        row = int(unknown.argmax())
        raise UserError(
            f"{path}: row {row + 1} (below the header), column {column.name!r}: {values[row]} is not among "
            "the training rows' values"
        )
    return (values[:, None] == known[None]).astype(np.float32)


# -- arrays ----------------------------------------------------------------------------------------


class Arrays(OwnData):
    """Arrays of an .npz file: ``x`` and ``y``, or ``x_train`` and ``y_train``.

    ``x_validation``, ``y_validation``, ``x_test`` and ``y_test``, where they are there, are those splits.
    Inputs keep their shape; uint8 stays what it is, and other numbers become single precision.

    Args:
        file: the .npz, relative to the data folder or absolute.

    The other arguments are those of :class:`OwnData`.
    """

    def __init__(self, *args: Any, file: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.file = file

    def read(self, root: Path) -> Mapping[str, Rows]:
        """See :meth:`OwnData.read`. Nothing that is pickled is read."""
        path = root / self.file
        try:
            check_zip(path)
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: np.asarray(archive[name]) for name in archive}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is no .npz that can be read: {one_line(str(error), 120)}") from error
        plain = {"train": ("x", "y")} if "x" in arrays else {}
        names = {**{part: (f"x_{part}", f"y_{part}") for part in PARTS}, **plain}
        found = {part: pair for part, pair in names.items() if all(name in arrays for name in pair)}
        if "train" not in found:
            raise UserError(
                f"{path}: expected x and y, or x_train and y_train; it has {', '.join(arrays) or 'nothing'}"
            )
        return {part: _rows(path, arrays[x], arrays[y], (x, y)) for part, (x, y) in found.items()}

    @property
    def source(self) -> str:
        """The file."""
        return f"workload.file={self.file}"


def _rows(path: Path, x: np.ndarray, y: np.ndarray, names: tuple[str, str]) -> Rows:
    y = y.reshape(-1) if y.ndim == 2 and y.shape[1] == 1 else y
    if y.shape != x.shape[:1]:
        raise UserError(f"{path}: {names[1]} must have one target for each of {len(x)} rows, got {y.shape}")
    inputs = _inputs(x)
    if not bool(inputs.float().isfinite().all()):
        row = int((~inputs.float().flatten(1).isfinite().all(1)).nonzero()[0])
        raise UserError(f"{path}: {names[0]}, row {row + 1}: a value that is not finite")
    return inputs, y


def _inputs(x: Any) -> Tensor:
    """Inputs as they are kept: uint8, or single precision."""
    tensor = torch.as_tensor(np.ascontiguousarray(x))
    return tensor if tensor.dtype == torch.uint8 else tensor.float()


# -- data sets -------------------------------------------------------------------------------------


class FromDataset(OwnData):
    """Any map-style data set: torch's, torchvision's, one of Hugging Face's ``datasets``, one's own.

    Rows are pairs of an input and a target, or mappings that have them under ``input`` and ``label``.
    Inputs are tensors or arrays as a model takes them, lists of numbers, or images, which become (C, H, W)
    of uint8. A mapping of splits (``train``, ``validation``, ``test``), as ``load_from_disk`` gives for
    several, is taken as that.

    Args:
        dataset: config of the data set of the training rows, or of the mapping.
        test_dataset: config of that of the test rows; None: a share of the training rows.
        input: name of the input in a row that is a mapping.
        label: name of the target in it.

    The other arguments are those of :class:`OwnData`.
    """

    def __init__(
        self,
        *args: Any,
        dataset: Mapping[str, Any],
        test_dataset: Mapping[str, Any] | None = None,
        input: str = "image",
        label: str = "label",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.dataset, self.test_dataset, self.keys = dataset, test_dataset, (input, label)

    def read(self, root: Path) -> Mapping[str, Rows]:
        """See :meth:`OwnData.read`; data sets find their files themselves."""
        found = _opened("dataset", self.dataset)
        splits = dict(found) if isinstance(found, Mapping) else {"train": found}
        if self.test_dataset is not None:
            splits["test"] = _opened("test_dataset", self.test_dataset)
        if "train" not in splits:
            raise UserError(f"{self.source}: has no split train; it has {', '.join(map(str, splits))}")
        return {part: self._stacked(part, splits[part]) for part in PARTS if part in splits}

    def _stacked(self, part: str, dataset: Any) -> Rows:
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise UserError(
                f"{self.source}: {type(dataset).__name__} is no map-style data set, "
                "which has a length and rows by number"
            )
        rows = [self._row(part, i, dataset[i]) for i in range(len(dataset))]
        shapes = {tuple(x.shape) for x, _ in rows}
        if len(shapes) > 1:
            raise UserError(
                f"{self.source}: {part} rows of several shapes, {' and '.join(map(str, sorted(shapes)[:2]))}"
            )
        if not rows:
            raise UserError(f"{self.source}: {part} has no rows")
        return torch.stack([x for x, _ in rows]), np.asarray([y for _, y in rows])

    def _row(self, part: str, i: int, row: Any) -> tuple[Tensor, Any]:
        try:
            x, y = (row[key] for key in self.keys) if isinstance(row, Mapping) else row
            if x is None or y is None:
                raise ValueError("a value is missing")
            return _input(x), np.asarray(y).item()
        except Exception as error:
            said = f"no {error}" if isinstance(error, KeyError) else one_line(str(error), 120)
            raise UserError(
                f"{self.source}: {part} row {i + 1} is no pair of input and target, or mapping with "
                f"{' and '.join(self.keys)} (workload.input, workload.label): {said}"
            ) from error


def _opened(where: str, spec: Mapping[str, Any]) -> Any:
    try:
        return build_part(where, spec, prefix="workload.")
    except OSError as error:
        raise UserError(f"workload.{where} ({spec['_target_']}): {one_line(str(error), 160)}") from error


def _input(x: Any) -> Tensor:
    if isinstance(x, Tensor):
        return x if x.dtype == torch.uint8 else x.float()
    if hasattr(x, "getbands"):  # an image
        pixels = np.array(x)
        return _inputs(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))
    return _inputs(x)

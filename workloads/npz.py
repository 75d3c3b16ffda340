"""Images that a user brings as one .npz file, trained like CIFAR-10."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from runner.base.errors import UserError, one_line
from runner.base.unpack import check_zip
from workloads.cifar import SmallImages, split_off_validation
from workloads.datafiles import check_file
from workloads.resnet import SMALLEST
from workloads.splits import Data, Split

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
FEWEST = 10  # training images; a tenth of them is the validation split


class NpzImages(SmallImages):
    """Images and labels from an .npz file with the arrays ``x_train, y_train, x_test, y_test``.

    Images are uint8, (n, H, W, C) or (n, H, W) for grey ones; labels are integers 0 … K − 1, (n,) or
    (n, 1), and every class has training images. A tenth of the training images is the validation split,
    the test arrays are the test split.

    Args:
        file: the .npz, relative to ``data_dir``.
        sha256: its checksum; None: not checked.

    The other arguments are those of :class:`SmallImages`.
    """

    def __init__(self, *args: Any, file: str, sha256: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not isinstance(file, str) or not file:
            raise ValueError(f"file must name an .npz in data_dir, got {file!r}")
        self.file, self.sha256 = file, sha256

    def load(self, root: Path) -> Data:
        """See :meth:`TensorWorkload.load`."""
        path = root / self.file
        arrays = read_arrays(path, self.sha256)
        train, test = (_split(path, part, arrays) for part in ("train", "test"))
        _check_together(path, train, test)
        vars(self).update(num_classes=int(train.y.max()) + 1)
        return split_off_validation(train, test)


def read_arrays(path: Path, sha256: str | None = None) -> dict[str, np.ndarray]:
    """The four arrays of the file. Nothing that is pickled is read.

    Raises:
        UserError: when the file or an array is missing, or the file is not such an archive.
    """
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "is missing"
        raise UserError(
            f"{path} {found}: workload.file must name an .npz in data_dir (or BENCH_DATA) with the arrays "
            f"{', '.join(ARRAYS)}; workload=cifar10_synthetic needs no files"
        )
    if sha256 is not None:
        check_file(path, sha256)
    try:
        check_zip(path)
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in ARRAYS if name not in archive]
            if not missing:
                return {name: np.asarray(archive[name]) for name in ARRAYS}
            found = ", ".join(archive) or "nothing"
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is not an .npz that can be read: {one_line(str(error), 120)}") from error
    raise UserError(
        f"{path} has no {missing[0]}: wanted are {', '.join(ARRAYS)}; found: {one_line(found, 120)}"
    )


def _split(path: Path, part: str, arrays: dict[str, np.ndarray]) -> Split:
    x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
    _check_images(f"{path}: x_{part}", x)
    _check_labels(f"{path}: y_{part}", y, len(x))
    x = x[..., None] if x.ndim == 3 else x
    images = torch.from_numpy(np.ascontiguousarray(x)).permute(0, 3, 1, 2).contiguous()
    return Split(images, torch.from_numpy(y.reshape(-1).astype(np.int64)))


def _check_images(where: str, x: np.ndarray) -> None:
    if x.dtype != np.uint8:
        raise UserError(f"{where} must be uint8 (0 … 255), got {x.dtype}")
    if x.ndim not in (3, 4):
        raise UserError(f"{where} must be (n, height, width, channels) or (n, height, width), got {x.shape}")
    if x.size == 0:
        raise UserError(f"{where} is empty: {x.shape}")
    if min(x.shape[1:3]) < SMALLEST:
        raise UserError(
            f"{where} has images of {x.shape[1]}×{x.shape[2]}, too small for a ResNet: at least "
            f"{SMALLEST}×{SMALLEST}; arrays are (n, height, width, channels), got {x.shape}"
        )


def _check_labels(where: str, y: np.ndarray, rows: int) -> None:
    if not np.issubdtype(y.dtype, np.integer):
        raise UserError(f"{where} must be integers, got {y.dtype}")
    if y.shape not in ((rows,), (rows, 1)):
        raise UserError(f"{where} must have one label for each of {rows} images, ({rows},), got {y.shape}")
    if y.min() < 0:
        raise UserError(f"{where} must not be negative: classes are 0, 1, …; got {y.min()}")


def _check_together(path: Path, train: Split, test: Split) -> None:
    if train.x.shape[1:] != test.x.shape[1:]:
        shapes = " and ".join("×".join(map(str, split.x.shape[1:])) for split in (train, test))
        raise UserError(f"{path}: x_train and x_test must have images of one shape, got {shapes} (C×H×W)")
    if len(train) < FEWEST:
        raise UserError(f"{path}: x_train has {len(train)} images; at least {FEWEST} are needed")
    classes = torch.unique(train.y)
    if len(classes) < 2 or int(classes[-1]) != len(classes) - 1:
        absent = next((k for k, label in enumerate(classes.tolist()) if k != label), len(classes))
        raise UserError(
            f"{path}: y_train must hold every class 0, 1, … K − 1 and at least two, got labels up to "
            f"{int(classes[-1])} and none with {absent}"
        )
    if int(test.y.max()) >= len(classes):
        raise UserError(
            f"{path}: y_test has the label {int(test.y.max())}, but y_train only 0 … {len(classes) - 1}"
        )

"""Small colour images for residual networks, and CIFAR-10: files that torchvision downloads."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from runner.base.errors import UserError
from runner.contract.stream import Augment
from runner.contract.torchvision_compat import import_torchvision
from workloads.augment import crop_flip
from workloads.base import Data, Split, TensorWorkload, stratified_split
from workloads.datafiles import obtain_dataset
from workloads.foreign import Spec
from workloads.models import Normalise
from workloads.resnet import MODELS

SPLIT_SEED = 20240501  # of the split into training and validation; part of the workload
AUGMENTATIONS: dict[str, Augment | None] = {
    "crop_flip": crop_flip,
    "crop": partial(crop_flip, flip=False),
    "none": None,
}


class SmallImages(TensorWorkload):
    """Images kept as uint8, (n, C, H, W), and a ResNet that normalises them by the training pixels.

    A tenth of the training images, the same in every cell and in equal shares of each class, are the
    validation split.

    Args:
        model: ``resnet20`` (CIFAR's, the default) or ``resnet18`` (ImageNet's widths, 3×3 stem), or the
            config of another, which gets images in [0, 1].
        augment: ``crop_flip`` (4 pixels of zero padding, random crop, horizontal flip), ``crop`` or ``none``.

    The other arguments are those of :class:`TensorWorkload`.

    Raises:
        ValueError: for another model or augmentation.
    """

    def __init__(
        self,
        *args: Any,
        model: str | Spec = "resnet20",
        augment: str = "crop_flip",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, model=model if isinstance(model, Mapping) else None, **kwargs)
        named = [] if isinstance(model, Mapping) else [("model", model, MODELS)]
        for key, value, known in (*named, ("augment", augment, AUGMENTATIONS)):
            if value not in known:
                raise ValueError(f"{key} must be one of {', '.join(known)}, got {value}")
        self.architecture, self.augmentation = model, augment
        self._statistics: tuple[Tensor, Tensor] | None = None

    def prepare(self, root: Path) -> None:
        """Load the data and take its statistics, once; later calls are free."""
        super().prepare(root)
        self._channel_statistics()

    def model(self) -> nn.Module:
        """The ResNet of the ``model`` option."""
        channels = self._loaded().train.x.shape[1]
        assert isinstance(self.architecture, str)
        return MODELS[self.architecture](Normalise(*self._channel_statistics()), channels, self.num_classes)

    def augment(self) -> Augment | None:
        """The augmentation of the ``augment`` option."""
        return AUGMENTATIONS[self.augmentation]

    def _channel_statistics(self) -> tuple[Tensor, Tensor]:
        if self._statistics is None:
            self._statistics = channel_statistics(self._loaded().train.x)
        return self._statistics


def split_off_validation(train: Split, test: Split) -> Data:
    """A tenth of the training rows, in equal shares of each class, become the validation split."""
    validation, rest = stratified_split(train.y, (len(train) // 10,), SPLIT_SEED)
    return Data(*(Split(train.x[rows], train.y[rows]) for rows in (rest, validation)), test=test)


def channel_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over all pixels, scaled to [0, 1]; (C, 1, 1) each.

    Summed in integers, so that they do not hang on threads or instruction sets.

    Args:
        x: images, (n, C, H, W) uint8.
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    moments = []
    for channel in x.unbind(1):
        share = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()
        mean = (share * levels).sum()
        moments.append(torch.stack((mean, (share * (levels - mean) ** 2).sum().sqrt())))
    mean, std = torch.stack(moments).float().unbind(1)
    return mean.view(-1, 1, 1), std.view(-1, 1, 1)


class Cifar10(SmallImages):
    """CIFAR-10: 60,000 colour images of 32×32 in ten classes (Krizhevsky 2009).

    45,000 of the 50,000 training images are for training, 5,000 for validation, and the 10,000 test images
    are the test split: as in He et al. 2016 (arXiv 1512.03385, section 4.2), whose ResNet-20, batch size
    and number of steps these are.

    Args:
        download: fetch missing files from where torchvision knows them.

    The other arguments are those of :class:`SmallImages`.
    """

    folder: ClassVar[str] = "cifar-10-batches-py"
    train_files: ClassVar[Mapping[str, str]] = {  # file -> MD5, as in torchvision.datasets.CIFAR10
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    }
    test_files: ClassVar[Mapping[str, str]] = {"test_batch": "40351d587109b95175f43aff81a1287e"}

    def __init__(self, *args: Any, download: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.download = download

    def load(self, root: Path) -> Data:
        """See :meth:`TensorWorkload.load`."""
        advice = (
            "unpack cifar-10-python.tar.gz in data_dir, or say where it is with data_dir=… or BENCH_DATA=…; "
            "workload=cifar10_synthetic needs no files"
        )
        files = (*self.train_files, *self.test_files)
        obtain_dataset(root, root / self.folder, files, _download if self.download else None, advice)
        train, test = (self._read(root / self.folder, part) for part in (self.train_files, self.test_files))
        return split_off_validation(train, test)

    def _read(self, folder: Path, files: Mapping[str, str]) -> Split:
        batches = [_unpickle(folder / name, md5) for name, md5 in files.items()]
        x = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
        return Split(torch.from_numpy(x), torch.tensor([y for batch in batches for y in batch["labels"]]))


def _download(folder: str) -> None:
    import_torchvision().datasets.CIFAR10(folder, download=True)


def _unpickle(path: Path, md5: str) -> dict[str, Any]:
    """A batch file of CIFAR-10; nothing of it is executed before its checksum was found right."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise UserError(
            f"{path} is damaged, or another file of that name: MD5 {found}, expected {md5}; "
            "delete it and get it anew"
        )
    return pickle.loads(content, encoding="latin1")

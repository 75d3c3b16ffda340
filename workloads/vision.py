"""MNIST and its drop-in replacements: idx files that torchvision downloads and reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from runner.contract.torchvision_compat import import_torchvision
from workloads.base import Data, Split, TensorWorkload, stratified_split
from workloads.cnn_svm import CnnSvm
from workloads.datafiles import check_file, obtain_dataset

SPLIT_SEED = 20240501  # of the split into training and validation; part of the workload


class IdxImages(TensorWorkload):
    """60,000 + 10,000 grey images of 28×28 in ten classes, kept as uint8; the CNN of CNN-SVM, cross-entropy.

    5,000 of the training images, the same in every cell and in equal shares of each class, are the
    validation split; 55,000 are for training; the official test images are the test split. Pixels are
    scaled to [0, 1] and not normalised, as in the paper (Agarap 2017, arXiv 1712.03541).

    Args:
        download: fetch missing files from where torchvision knows them.

    The other arguments are those of :class:`TensorWorkload`.
    """

    init_loss_note: ClassVar[str | None] = "CNN-SVM's weights, N(0, 0.1²), give logits of the order of ten"
    dataset: ClassVar[str]  # the class in torchvision.datasets; files lie in <root>/<dataset>/raw
    files: ClassVar[Mapping[str, str]]  # file -> SHA-256
    num_validation: ClassVar[int] = 5000

    def __init__(self, *args: Any, download: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.download = download

    def load(self, root: Path) -> Data:
        """See :meth:`TensorWorkload.load`."""
        folder = root / self.dataset / "raw"
        advice = (
            f"put the unpacked {self.dataset} files there, or say where {self.dataset}/raw is with "
            "data_dir=… or BENCH_DATA=…; workload=digits needs no files"
        )
        obtain_dataset(root, folder, self.files, self._download if self.download else None, advice)
        for name, sha256 in self.files.items():
            check_file(folder / name, sha256)
        images, labels = self._read(folder, "train")
        validation, train = stratified_split(labels, (self.num_validation,), SPLIT_SEED)
        splits = [Split(images[rows], labels[rows]) for rows in (train, validation)]
        return Data(*splits, test=Split(*self._read(folder, "t10k")))

    def model(self) -> nn.Module:
        """The network of :class:`CnnSvm`."""
        return CnnSvm()

    def _read(self, folder: Path, part: str) -> tuple[Tensor, Tensor]:
        # The files that were checked, rather than the data set object: it prefers processed/*.pt to them.
        reader = import_torchvision().datasets.mnist
        images = reader.read_image_file(str(folder / f"{part}-images-idx3-ubyte")).unsqueeze(1)
        return images, reader.read_label_file(str(folder / f"{part}-labels-idx1-ubyte"))

    def _download(self, folder: str) -> None:
        getattr(import_torchvision().datasets, self.dataset)(folder, download=True)


class Mnist(IdxImages):
    """MNIST: handwritten digits (LeCun, Cortes & Burges)."""

    dataset: ClassVar[str] = "MNIST"
    files: ClassVar[Mapping[str, str]] = {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    }


class FashionMnist(IdxImages):
    """Fashion-MNIST: articles of clothing (Xiao, Rasul & Vollgraf 2017, arXiv 1708.07747)."""

    dataset: ClassVar[str] = "FashionMNIST"
    files: ClassVar[Mapping[str, str]] = {
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    }

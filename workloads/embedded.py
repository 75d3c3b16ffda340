"""Workloads whose data ships with scikit-learn: always there, no network, seconds to run."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from runner.contract.stream import Augment
from workloads.augment import shift
from workloads.base import Data, Split, TensorWorkload, stratified_split
from workloads.models import LinearBinary, Normalise, SmallCNN

SPLIT_SEED = 20240501  # of the split into training, validation and test; part of the workload


class Digits(TensorWorkload):
    """1,797 images of handwritten digits, 8×8, ten classes (UCI optical digits, test part); a small CNN.

    Half of the rows are for training, a quarter each for validation and test. Training images are
    shifted by up to one pixel, without which 900 images are fitted within seconds and nothing is left
    to learn.
    """

    input_range = (0.0, 1.0)

    def load(self, root: Path) -> Data:
        """See :meth:`TensorWorkload.load`; 899 training, 449 validation and 449 test rows."""
        table = torch.from_numpy(packaged("digits.csv.gz"))
        x = table[:, :-1].float().reshape(-1, 1, 8, 8) / 16
        return _dealt(x, table[:, -1].long(), share=4)

    def model(self) -> nn.Module:
        """A CNN of two convolutions."""
        return SmallCNN(Normalise(torch.tensor(0.3053), torch.tensor(0.3760)))

    def augment(self) -> Augment:
        """Shifts by up to one pixel in each direction."""
        return shift


class BreastCancer(TensorWorkload):
    """569 rows of 30 features, malignant or benign (UCI WDBC); logistic regression.

    A third of the rows each for training, validation and test: on fewer validation rows the smallest loss
    along a run is a matter of luck. Features are scaled to [0, 1] by training rows and normalised one by one
    in the first module. Many are nearly the same measurement: the problem is convex and ill-conditioned.
    """

    task = "binary"
    model_kind = "linear"
    num_classes = 2
    input_range = (0.0, 1.0)

    def load(self, root: Path) -> Data:
        """See :meth:`TensorWorkload.load`; 191 training, 189 validation and 189 test rows."""
        table = torch.from_numpy(packaged("breast_cancer.csv", header=1)).float()
        data = _dealt(table[:, :-1].contiguous(), table[:, -1].contiguous(), share=3)
        low, high = data.train.x.min(0).values, data.train.x.max(0).values
        splits = (data.train, data.validation, data.test)
        return Data(*(Split((s.x - low) / (high - low), s.y) for s in splits))

    def model(self) -> nn.Module:
        """Logistic regression from zero."""
        train = self._loaded().train.x
        return LinearBinary(Normalise(train.mean(0), train.std(0)), train.shape[1])


def packaged(name: str, header: int = 0) -> np.ndarray:
    """A table that scikit-learn ships, float64, the target last.

    Its loaders read the same file. Importing them takes 2 s of CPU time, more than most cells train for.
    """
    package = importlib.util.find_spec("sklearn")
    assert package is not None and package.origin is not None, "scikit-learn is one of our dependencies"
    path = Path(package.origin).parent / "datasets" / "data" / name
    return np.loadtxt(path, delimiter=",", skiprows=header)


def _dealt(x: Tensor, y: Tensor, share: int) -> Data:
    """One row in ``share`` for validation, as many for test, the rest for training."""
    size = len(y) // share
    test, validation, train = stratified_split(y, (size, size), SPLIT_SEED)
    return Data(*(Split(x[rows], y[rows]) for rows in (train, validation, test)))

"""Workloads whose data ships with scikit-learn: always there, no network, seconds to run."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from workloads.base import Data, Split, TensorWorkload, stratified_split
from workloads.models import LinearBinary, Normalise, SmallCNN

SPLIT_SEED = 20240501  # of the split into training, validation and test; part of the workload


class Digits(TensorWorkload):
    """1,797 images of handwritten digits, 8×8, ten classes (UCI optical digits, test part); a small CNN."""

    def load(self, root: Path) -> Data:
        """See :meth:`TensorWorkload.load`; 1,077 training, 360 validation and 360 test rows."""
        from sklearn.datasets import load_digits

        bunch = load_digits()
        x = torch.tensor(bunch.images, dtype=torch.float32).unsqueeze(1) / 16
        y = torch.tensor(bunch.target, dtype=torch.int64)
        test, validation, train = stratified_split(y, (360, 360), SPLIT_SEED)
        return Data(*(Split(x[rows], y[rows]) for rows in (train, validation, test)))

    def model(self) -> nn.Module:
        """A CNN of two convolutions."""
        return SmallCNN(Normalise(torch.tensor(0.3053), torch.tensor(0.3760)))


class BreastCancer(TensorWorkload):
    """569 rows of 30 features, malignant or benign (UCI WDBC); logistic regression."""

    task: ClassVar[str] = "binary"
    model_kind: ClassVar[str] = "linear"
    num_classes: ClassVar[int] = 2

    def load(self, root: Path) -> Data:
        """See :meth:`TensorWorkload.load`; 341 training, 114 validation and 114 test rows."""
        from sklearn.datasets import load_breast_cancer

        bunch = load_breast_cancer()
        x = torch.tensor(bunch.data, dtype=torch.float32)
        y = torch.tensor(bunch.target, dtype=torch.float32)
        test, validation, train = stratified_split(y, (114, 114), SPLIT_SEED)
        low, high = x[train].min(0).values, x[train].max(0).values
        x = (x - low) / (high - low)
        return Data(*(Split(x[rows], y[rows]) for rows in (train, validation, test)))

    def model(self) -> nn.Module:
        """Logistic regression on features standardised by training statistics."""
        train = self._loaded().train.x
        return LinearBinary(Normalise(train.mean(0), train.std(0)), train.shape[1])

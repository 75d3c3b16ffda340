"""Workloads with a row, or a split, that is no good."""

from __future__ import annotations

import math
from pathlib import Path

from tests.doubles.workloads import Blobs
from workloads.splits import Data, Split


class NanInTest(Blobs):
    """A test row without a number."""

    def load(self, root: Path) -> Data:
        data = super().load(root)
        data.test.x[3, 0] = math.nan
        return data


class InfiniteTest(Blobs):
    """A test row without an end."""

    def load(self, root: Path) -> Data:
        data = super().load(root)
        data.test.x[3] = math.inf
        return data


class NoTest(Blobs):
    """An empty test split."""

    def load(self, root: Path) -> Data:
        data = super().load(root)
        return Data(data.train, data.validation, Split(data.test.x[:0], data.test.y[:0]))


class NanInValidation(Blobs):
    """A validation row without a number."""

    def load(self, root: Path) -> Data:
        data = super().load(root)
        data.validation.x[3, 0] = math.nan
        return data

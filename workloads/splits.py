"""Rows of a workload's splits, and how a file is dealt into them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Split:
    """Rows of one split: inputs (n, ...) and targets (n, ...)."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return self.x.shape[0]

    def to(self, device: torch.device) -> Split:
        """The same rows on ``device``."""
        return Split(self.x.to(device), self.y.to(device))


@dataclass(frozen=True)
class Data:
    """The three splits. Only ``train`` ever reaches an algorithm."""

    train: Split
    validation: Split
    test: Split


@dataclass(frozen=True)
class Loaded:
    """Rows on one device: for training, for auxiliary streams, and the scored splits."""

    train: Split
    aux: Mapping[str, Split]
    scored: Mapping[str, Split]


def stratified_split(y: Tensor, sizes: tuple[int, ...], seed: int) -> list[Tensor]:
    """Disjoint sets of row ids, one of each size, with the classes of ``y`` in equal shares.

    The rows left over come last. The split is a function of ``seed`` alone, the same in every cell.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(y), generator=generator)
    # Deal the rows of every class out evenly: sorting by (rank within class / class size) interleaves them.
    rank = torch.empty(len(y))
    for label in y.unique():
        rows = shuffled[y[shuffled] == label]
        rank[rows] = (torch.arange(len(rows)) + 0.5) / len(rows)
    order = torch.argsort(rank, stable=True)
    parts, start = [], 0
    for size in sizes:
        parts.append(order[start : start + size].sort().values)
        start += size
    return [*parts, order[start:].sort().values]

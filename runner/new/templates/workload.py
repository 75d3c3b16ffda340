"""SUMMARY."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from workloads.base import Data, Split, TensorWorkload, stratified_split

SEED = 1  # of the data and of its splits; part of the workload, the same in every cell


class MyWorkload(TensorWorkload):
    """Four overlapping clouds of points in the unit square; a small network.

    Say what the rows are, where they come from, who made them, and how they are split.
    """

    task = "multiclass"
    model_kind = "mlp"
    num_classes = 4
    input_range = (0.0, 1.0)  # None where there is none: standardised features, tokens

    def load(self, root: Path) -> Data:
        """See :meth:`TensorWorkload.load`; 1,000 training, 300 validation and 300 test rows."""
        generator = torch.Generator().manual_seed(SEED)
        y = torch.arange(1600) % 4
        centres = torch.tensor([[0.3, 0.3], [0.3, 0.7], [0.7, 0.3], [0.7, 0.7]])
        x = (centres[y] + 0.15 * torch.randn(len(y), 2, generator=generator)).clamp(0, 1)
        validation, test, train = stratified_split(y, (300, 300), SEED)
        return Data(*(Split(x[rows], y[rows]) for rows in (train, validation, test)))

    def model(self) -> nn.Module:
        """Logits, (B, 4), of points (B, 2)."""
        return nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 4))

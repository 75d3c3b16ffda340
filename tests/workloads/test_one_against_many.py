"""The rows of the worst case, and that the claim about them holds through the command's own path."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from workloads.one_against_many import OneAgainstMany


def test_spec_one_row_against_all_others():
    data = OneAgainstMany("w", 5, 50, 5, rows=5).load(Path())
    assert data.train.x.tolist() == [[0.5, -1.0]] + [[-0.5, -1.0]] * 4
    assert data.train.y.tolist() == [1.0, 0, 0, 0, 0]
    for split, share in ((data.validation, 0.5), (data.test, 0.25)):
        assert torch.equal(split.x, share * torch.tensor([[0.5, -1.0], [-0.5, -1.0]]))
        assert split.y.tolist() == [1.0, 0.0]


def test_too_few_rows():
    with pytest.raises(ValueError, match="rows must be at least 2, got 1"):
        OneAgainstMany("w", 5, 50, 5, rows=1)

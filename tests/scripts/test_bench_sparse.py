"""The benchmark of sparse rows: both sides do the same work. How long it takes is not tested."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scripts.bench_sparse import Shape, Side, main


def test_both_sides_train_the_same_model(tmp_path: Path) -> None:
    shape = Shape(features=50, entries=4, classes=2, batch_size=8)
    shape.write(tmp_path / "random", rows=40)
    sides = [Side.of(tmp_path / "random", 8, form, "cpu") for form in (False, True)]
    assert [side.task.data.x.shape for side in sides] == [(32, 50), (32, 4, 2)]
    for side in sides:
        side.steps(100)
    dense, sparse = (side.task.params[0].flatten() for side in sides)
    assert dense.abs().max() > 1e-3 and torch.allclose(dense, sparse, atol=1e-4)


def test_the_command_prints_a_table_with_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--features", "30,60", "--entries", "4,40", "--classes", "3", "--rows", "40"]
    assert main([*sizes, "--rounds", "1", "--steps", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 3 and len({line.count("|") for line in table}) == 1  # 40 entries of 30: none
    assert table[2].startswith("| 30 | 4 | 8 | 3 | 64 | ")
    assert "2 segments of 2 steps" in lines[-1] and "rows 40" in lines[-1] and "torch" in lines[-1]

"""The data benchmark: both pipelines do the same to an image. How long it takes is not tested."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from scripts.bench_data import Transformed, images, main, resident_stream, table, take_turns

TINY = ["--cores", "1", "--rounds", "1", "--images", "128", "--batches", "1", "--steps", "1"]


def views(image: Tensor) -> set[bytes]:
    """All windows of a zero-padded image, and their mirror images."""
    padded, out = F.pad(image, (4, 4, 4, 4)), set()
    for i in range(9):
        for j in range(9):
            window = padded[:, i : i + 32, j : j + 32]
            out |= {view.contiguous().numpy().tobytes() for view in (window, window.flip(2))}
    return out


def test_both_sides_hand_out_windows_of_the_padded_image_as_floats() -> None:
    x, y = images(130)
    theirs, batch = Transformed(x, y), resident_stream(x, y).next()
    assert batch.index is not None and batch.x.dtype == torch.float32 and batch.x.shape == (128, 3, 32, 32)
    for row in range(10):
        i = int(batch.index[row])
        other, label = theirs[i]
        assert other.dtype == torch.float32 and label == int(batch.y[row]) == int(y[i])
        for image in (batch.x[row], other):
            assert (image * 255).round().to(torch.uint8).numpy().tobytes() in views(x[i])


def test_sides_take_turns_and_the_first_round_does_not_count() -> None:
    calls: list[str] = []

    def side(name: str):
        return lambda: (calls.append(name), float(len(calls)))[1]

    seconds = take_turns({"a": side("a"), "b": side("b")}, rounds=2)
    assert calls == ["a", "b"] * 3 and seconds == {"a": [3.0, 5.0], "b": [4.0, 6.0]}


def test_the_table_has_medians_and_ratios() -> None:
    seconds = {"resident": [1e-3, 2e-3, 9e-3], "DataLoader, 0 workers": [0.1, 0.04, 0.02],
               "augmentation": [1e-3, 2e-3, 3e-3], "step": [0.1, 0.2, 0.1]}  # fmt: skip
    lines = table(seconds).splitlines()
    assert lines[2] == "| resident | 3 | 500 (111 to 1,000) | 1.0 |"
    assert lines[3] == "| DataLoader, 0 workers | 3 | 25 (10 to 50) | 20.0 |"
    assert lines[-1] == "| 3 | 2.00 | 100.00 | 2.00% |"


def test_the_command_prints_both_tables_and_the_conditions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(TINY) == 0
    out = capsys.readouterr().out
    rows = [line for line in out.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in rows] == [
        "| pipeline", "| resident", "| DataLoader, 0 workers", "| DataLoader, 1 workers", "| n", "| 1"
    ]  # fmt: skip
    assert "A round: 1 batches, an epoch of 128 images" in out and "threads 1" in out and "torch" in out


@pytest.mark.parametrize("wrong", ["--cores=0", "--rounds=0", "--images=100", "--steps=0"])
def test_sizes_that_measure_nothing_are_refused(wrong: str) -> None:
    with pytest.raises(SystemExit):
        main([*TINY, wrong])

"""The benchmark of steps: which sides there are, and what is printed. How long they take is not tested."""

from __future__ import annotations

import csv
import io

import pytest
import torch

from scripts import bench_step
from scripts.bench_step import main
from scripts.step_sides import Side, fresh, library, methods, observe, specs_of

TINY = ["--side", "8", "--warmup", "1", "--windows", "2", "--steps", "2"]


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library, whose import takes seconds."""
    monkeypatch.setattr(bench_step, "library", lambda method, specs: None)


@pytest.mark.usefixtures("alone")
def test_prints_a_table_of_80_columns_for_each_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, "--lists", "matrices,lm", "--methods", "dog,mechanic"]) == 0
    *lines, _, settings = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    heads = [line.split() for line in lines if "goal" in line]
    assert heads == [["µs", "/foreach", "/fused", "/library", "goal", "tensors"]] * 2
    rows = [line.split() for line in lines if line.startswith(("dog", "mechanic"))]
    assert [row[0] for row in rows] == ["dog", "mechanic"] * 2
    assert all(row[4] == "–" for row in rows) and [row[5] for row in rows] == ["0.86", "2.29"] * 2
    assert "matrices: 8 tensors, 512 numbers" in lines
    assert "2 windows of 2 steps a side after 1 to warm up" in settings and "torch" in settings


@pytest.mark.usefixtures("alone")
def test_csv_has_all_columns_and_markdown_a_row_a_method(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = [*TINY, "--lists", "matrices", "--methods", "lion"]
    assert main([*sizes, "--csv"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row["method"], row["parameters"], row["arrays"]) == ("lion", "matrices", "8")
    assert float(row["us"]) > 0 and float(row["to_foreach"]) > 0 and float(row["to_fused"]) > 0
    assert (row["goal"], row["tensors"], row["library_us"], row["to_library"]) == ("1.3", "5.0", "", "")
    assert main([*sizes, "--markdown"]) == 0
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(table) == 3 and len({line.count("|") for line in table}) == 1
    assert table[2].startswith("| matrices | lion | ")


def test_names_every_part_and_refuses_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert {"adamw", "lion", "muon"} < set(methods()) and methods()[-2:] == ["mechanic", "wgsef"]
    assert main([*TINY, "--methods", "lino"]) == 2
    assert "did you mean lion" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "states", "tensors", "goal"),
    [
        ("adamw", 2, 7, 1.3),
        ("lion", 1, 5, 1.3),
        ("diffgrad", 3, 9, 9 / 7),
        ("lamb", 2, 9, 9 / 7),  # two norms
        ("dog", 1, 6, 6 / 7),  # x₀ does not change
        ("muon", 1, 5.1, None),
        ("mechanic", 4, 16, 16 / 7),
    ],
)
def test_traits_are_seen(method: str, states: int, tensors: float, goal: float | None) -> None:
    traits = observe(specs_of(method))
    assert (traits.states, traits.goal) == (states, goal)
    assert traits.tensors == pytest.approx(tensors, abs=1)


@pytest.mark.parametrize("method", ["prodigy", "schedule_free_adamw", "wgsef"])
def test_a_side_takes_whole_steps(method: str) -> None:
    side = Side(fresh("matrices", 16, "cpu"), specs_of(method))
    before = side.params[-1].detach().clone()
    side.window(2, lambda: 0.0, lambda: None)
    assert not torch.equal(side.params[-1], before) and side.params[-1].isfinite().all()
    state = side.states()
    assert len(state) == 8 and all(v.shape == (16, 16) for of in state for v in of.values())


def test_the_library_gets_our_hyperparameters() -> None:
    pytest.importorskip("pytorch_optimizer")
    specs = library("lars", specs_of("lars"))
    assert specs is not None
    assert specs["optimizer"] == {
        "_target_": "pytorch_optimizer.optimizer.lars.LARS",
        "lr": 0.1,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "trust_coefficient": 0.05,
    }
    assert library("adam", specs_of("adam")) is None and library("mechanic", specs_of("mechanic")) is None
    assert bench_step.difference(specs_of("lion"), library("lion", specs_of("lion")) or {}) < bench_step.SAME

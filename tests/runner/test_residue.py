"""What a cell leaves in its process changes no later cell: it is put back, or the process is replaced."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from runner.cells.cell import Cell
from runner.machine.switches import read
from runner.train.session import run_cell
from tests.conftest import ROOT
from tests.doubles.leavers import LEFT, SETTLED
from tests.doubles.undone import FUNCTIONS
from tests.runner.test_cells import faulty, result, train


@pytest.fixture(autouse=True)
def undone() -> Iterator[None]:
    yield
    while FUNCTIONS:
        FUNCTIONS.pop()()


def leaver(tmp_path: Path, what: str, **algorithm: Any) -> Cell:
    optimizer = {"_target_": "tests.doubles.leavers.Leaver", "lr": 0.1, "what": what, **algorithm}
    config = faulty(tmp_path, "Plain").config
    config = {**config, "algorithm": {**config["algorithm"], "optimizer": optimizer}, "label": what}
    return Cell.from_config({key: value for key, value in config.items() if key != "id"})


def submitted(cell: Cell) -> Cell:
    assert cell.submit()
    return cell


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What a cell gives in a process in which nothing was left."""
    cell = submitted(faulty(tmp_path_factory.mktemp("fresh"), "Plain"))
    run_cell(cell.folder.path)
    return result(cell)


def trained_behind(tmp_path: Path, *whats: str) -> list[tuple[Cell, Cell]]:
    """Of each of these a cell, and one of plain SGD behind it; in one warm worker, as long as it lasts."""
    pairs = [
        (leaver(tmp_path, what), faulty(tmp_path, "Plain", f"name=behind_{place}"))
        for place, what in enumerate(whats)
    ]
    train(*(cell for pair in pairs for cell in pair))
    assert {second.state() for _, second in pairs} == {"done"}
    return pairs


def in_one_process(first: Cell, second: Cell) -> bool:
    return first.folder.status()["pid"] == second.folder.status()["pid"]


def test_the_next_cell_of_a_worker_is_none_the_worse(
    tmp_path: Path, fresh: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, replaced = ["dtype", "mkldnn", "hook"], ["autocast", "function"]
    for what, (first, second) in zip(
        [*kept, *replaced], trained_behind(tmp_path, *kept, *replaced), strict=True
    ):
        assert result(second) == fresh
        assert in_one_process(first, second) == (what in kept)
        log = first.folder.log_file.read_text()
        assert f"restored after the cell: {SETTLED[what][1]}" in log if what in kept else LEFT[what][1] in log
        assert not second.folder.log_file.read_text()
    lines = [line for line in capsys.readouterr().err.splitlines() if "the next cell gets" in line]
    assert (
        len(lines) == 2 and "did not restore torch.autocast" in lines[0] and "torch._foreach_add_" in lines[1]
    )


@pytest.mark.slow
@pytest.mark.parametrize("what", [*SETTLED, *LEFT])
def test_no_cell_is_the_worse_for_any_of_them(tmp_path: Path, fresh: Any, what: str) -> None:
    ((_, second),) = trained_behind(tmp_path, what)
    assert result(second) == fresh


@pytest.mark.parametrize("what", SETTLED)
def test_switches_are_put_back(tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = read()
    status = run_cell(submitted(leaver(tmp_path, what)).folder.path)
    assert status["status"] == "done", status
    assert "left" not in status
    assert f"restored after the cell: {SETTLED[what][1]}" in capsys.readouterr().err
    assert read() == before


@pytest.mark.parametrize("what", LEFT)
def test_what_cannot_be_put_back_is_named(tmp_path: Path, what: str) -> None:
    status = run_cell(submitted(leaver(tmp_path, what)).folder.path)
    assert status["left"].startswith(LEFT[what][1])


def test_what_importing_a_method_sets_is_named(tmp_path: Path) -> None:
    sys.modules.pop("tests.doubles.sets_at_import", None)
    cell = leaver(tmp_path, "", _target_="tests.doubles.sets_at_import.Sets")
    status = run_cell(submitted(cell).folder.path)
    assert status["left"].startswith("torch.get_float32_matmul_precision() (when it was imported)")
    assert torch.get_float32_matmul_precision() == "highest"
    assert "left" not in run_cell(submitted(leaver(tmp_path, "matmul")).folder.path)


@pytest.mark.parametrize("broken", [False, True])
def test_a_gpu_that_does_not_answer_any_more_is_left_behind_with_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    # After an assertion on the device every call of the process fails, and so would each later cell.
    initialised = iter([False, False])  # it comes up within the cell

    def synchronize(_device: Any = None) -> None:
        if broken:
            raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: next(initialised, True))
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=0))
    status = run_cell(submitted(faulty(tmp_path, "Plain")).folder.path)
    assert ("left" in status) == broken
    assert not broken or status["left"].startswith("the current CUDA device and stream")


COMPILED = """
import functools, sys, torch
torch.compile = functools.partial(torch.compile, backend="eager")
from runner.cells.cell import Cell
from runner.train.session import run_cell
cell = Cell.from_overrides(sys.argv[1:])
cell.submit()
status = run_cell(cell.folder.path)
print(status["status"], status.get("left"))
"""


@pytest.mark.slow
def test_a_compiled_cell_leaves_its_worker_to_the_next_one(tmp_path: Path) -> None:
    """What torch's compiler wraps, when it is first used, does what it did."""
    small = ["workload=digits", "workload.budget_samples=320", "log=none", f"results_dir={tmp_path}"]
    line = [sys.executable, "-c", COMPILED, *small, "algorithm=adamw", "workload.compile=true"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["done", "None"], done.stdout + done.stderr


PRESETS = sorted(path.stem for path in (ROOT / "conf" / "algorithm").glob("*.yaml"))


@pytest.mark.parametrize("presets", [PRESETS[::6], pytest.param(PRESETS, marks=pytest.mark.slow)])
def test_an_ordinary_grid_replaces_no_worker(tmp_path: Path, presets: list[str]) -> None:
    small = [f"results_dir={tmp_path}", "log=none", "workload=breast_cancer", "workload.budget_samples=320"]
    cells = [Cell.from_overrides([*small, f"algorithm={name}"]) for name in presets]
    assert train(*cells).summary() == 0
    assert len({cell.folder.status()["pid"] for cell in cells}) == 1
    assert not any(cell.folder.log_file.read_text() for cell in cells)

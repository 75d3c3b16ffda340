"""A method that lies outside the project: edited in a notebook, out of reach in another shell, broken."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner import UserError, run
from runner.cells.cell import Cell, folder_state
from runner.cells.survey import survey
from runner.contract.records import CellFolder
from runner.launch.local import Inline
from runner.launch.start import run_grid
from runner.provenance import source
from runner.retry import main as retry
from runner.status import main as status
from tests.experiments import call

METHOD = """
import torch


class Mine(torch.optim.SGD):
    def step(self, closure=None):
        print("the {word} code")
        return super().step(closure)
"""
YAML = "# Mine: plain SGD\n_target_: outside_mine.Mine\nlr: 0.05\n"
TINY = ("workload.budget_samples=640", "stop_at_target=false", "workload.target=0.97")


class Outside:
    """The method's folder, its config directory, and the experiments that train it."""

    def __init__(self, root: Path) -> None:
        self.root, self.conf, self.code = root, root / "conf", root / "code"
        (self.conf / "algorithm/optimizer").mkdir(parents=True)
        (self.conf / "algorithm/optimizer/mine.yaml").write_text(YAML)
        self.code.mkdir()
        self.write("first")

    def write(self, word: str, text: str = METHOD) -> None:
        file = self.code / "outside_mine.py"
        before = file.stat().st_mtime_ns if file.exists() else 0
        file.write_text(text.replace("{word}", word))
        os.utime(file, ns=(before + 10**9, before + 10**9))

    def overrides(self, *more: str) -> list[str]:
        return [f"results_dir={self.root / 'results'}", "name=exp", "algorithm=mine", *TINY, *more]

    def run(self, *more: str, inline: bool = False) -> CellFolder:
        row = run(self.overrides(*more), [self.conf], inline=inline)
        return CellFolder(self.root / "results/exp/cells" / row["folder"])

    @property
    def states(self) -> list[str]:
        return [cell.state for cell in survey(self.root / "results/exp")]


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outside]:
    made = Outside(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(made.code)])
    yield made
    forget()


def forget() -> None:
    """As in a process that has never seen the method."""
    sys.modules.pop("outside_mine", None)
    source._loaded.pop("outside_mine", None)


def elsewhere(outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in another shell, where the folder that held the method has another name, too."""
    outside.code.rename(outside.root / "moved")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(outside.code)])
    forget()


def test_an_edit_between_two_calls_is_trained(outside: Outside) -> None:
    """By a worker that stays warm otherwise, and that finds what this process's path alone leads to."""
    first = outside.run()
    assert "the first code" in first.log_file.read_text()
    outside.run("study=1")
    outside.write("second")
    assert outside.states == ["stale", "stale"]
    again, new = outside.run(), outside.run("study=2")
    for folder in (again, new):
        said = folder.log_file.read_text()
        assert "the second code" in said and "the first code" not in said
        assert folder_state(folder) == "done"
    assert outside.states == ["done", "stale", "done"]


def test_a_module_that_is_written_later_counts(outside: Outside) -> None:
    outside.write("", "from outside_helper import Mine\n")
    with_helper = outside.code / "outside_helper.py"
    before = Cell.from_overrides(outside.overrides(), [outside.conf]).sources
    with_helper.write_text(METHOD)
    found = Cell.from_overrides(outside.overrides(), [outside.conf]).sources
    assert "outside_helper" not in before and "outside_helper" in found
    with_helper.unlink()
    assert "outside_helper" not in Cell.from_overrides(outside.overrides(), [outside.conf]).sources


def test_this_process_does_not_train_old_code_either(outside: Outside) -> None:
    outside.run(inline=True)
    outside.write("second")
    with pytest.raises(UserError, match="outside_mine was edited after"):
        outside.run(inline=True)
    assert outside.states == ["stale"]


def test_where_a_method_lies_is_remembered(outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new shell without PYTHONPATH: nothing is stale, and what is to be trained again can be."""
    folder = outside.run(inline=True)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(outside.code)])
    forget()
    assert outside.states == ["done"]
    assert Cell.from_overrides(outside.overrides(), [outside.conf]).state() == "done"
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(outside.code)])
    folder.fail("once", "its traceback")
    assert retry([str(outside.root / "results/exp"), "--launcher", "inline"]) == 0
    assert outside.states == ["done"]


def test_what_cannot_be_imported_here_is_no_stale_result(
    outside: Outside, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = outside.run(inline=True)
    elsewhere(outside, monkeypatch)
    experiment = outside.root / "results/exp"
    before = {path: path.stat().st_mtime_ns for path in experiment.rglob("*")}
    assert folder_state(folder) == "unavailable" and outside.states == ["unavailable"]
    said = call(status, capsys, experiment)
    assert "1 unavailable" in said.out and "outside_mine cannot be imported here: set PYTHONPATH" in said.out
    assert "runner.retry" not in said.out
    assert "nothing to retry: 1 unavailable" in call(retry, capsys, experiment).out
    with pytest.raises(UserError, match="outside_mine cannot be imported here: set PYTHONPATH"):
        outside.run()
    assert run_grid([outside.overrides()], Inline(), [outside.conf]) == 1
    assert "set PYTHONPATH" in capsys.readouterr().err
    assert run_grid([outside.overrides()], Inline(), [outside.conf], dry_run=True) == 0
    assert "1 unavailable" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in experiment.rglob("*")} == before
    sys.path.append(str(outside.root / "moved"))
    assert outside.states == ["done"]


@pytest.mark.parametrize(
    "broken",
    [
        "import no_such_thing\n",
        "class Mine(:\n",
        METHOD.replace("def step", "def __init__(self): 1/0\n    def step"),
    ],
)
def test_a_result_is_not_lost_to_code_that_cannot_start(
    outside: Outside, broken: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = outside.run(inline=True)
    before = folder.status()
    outside.write("second", broken)
    forget()
    experiment = outside.root / "results/exp"
    assert outside.states == ["stale"]
    assert retry([str(experiment), "--launcher", "inline"]) in (1, 2)
    assert "the result from before the change is kept" in capsys.readouterr().err
    assert folder.status() == before and outside.states == ["stale"]
    assert "outside_mine" in folder.error_file.read_text()
    outside.write("third")
    shutil.rmtree(outside.code / "__pycache__", ignore_errors=True)
    forget()
    assert retry([str(experiment), "--launcher", "inline"]) == 0
    assert outside.states == ["done"] and not folder.error_file.exists()

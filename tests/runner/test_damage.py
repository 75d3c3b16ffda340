"""What happens to a finished cell's files behind its back: seen by whoever reads them, mended by retry."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from runner.base.files import write_json
from runner.boards.gaps import gaps
from runner.cells.cell import Cell, folder_state
from runner.cells.launches import Launch
from runner.cells.survey import look
from runner.cells.tables import load
from runner.contract.records import CellFolder
from runner.retry import main as retry
from runner.score import main as score
from runner.status import main as status
from runner.train.session import run_cell
from runner.verify import main as verify
from tests.experiments import call

ARGS = ("name=exp", "log=none", "workload.budget_samples=1280", "workload.eval_every=320",
        "workload.target=0.2", "stop_at_target=false")  # fmt: skip


def lines(change: Callable[[list[str]], list[str]]) -> Callable[[Path], object]:
    return lambda file: file.write_text("".join(change(file.read_text().splitlines(keepends=True))))


def a_digit(file: Path) -> None:
    """One digit of the metric of one row: the size stays, and so does the number of rows."""
    rows = file.read_text().splitlines()
    value = f'"validation/accuracy": {json.loads(rows[1])["validation/accuracy"]}'
    other = value[:-1] + ("8" if value[-1] != "8" else "7")
    file.write_text("\n".join([rows[0], rows[1].replace(value, other), *rows[2:]]) + "\n")


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "emptied": lambda file: file.write_text(""),
    "without its last row": lines(lambda rows: rows[:-1]),
    "torn": lambda file: file.write_bytes(file.read_bytes()[:-10]),
    "doubled": lines(lambda rows: rows * 2),
    "with a row twice": lines(lambda rows: [*rows, rows[-1]]),
    "with two rows swapped": lines(lambda rows: [rows[1], rows[0], *rows[2:]]),
    "with another digit": a_digit,
    "no text": lambda file: file.write_bytes(b"\xff\x00" * 500),
    "a folder": a_folder,
}
SAME_SIZE = ("with two rows swapped", "with another digit")
SAME_COUNT = SAME_SIZE


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment of one finished cell."""
    torch.set_num_threads(1)
    results = tmp_path_factory.mktemp("results")
    cell = Cell.from_overrides([f"results_dir={results}", *ARGS])
    assert cell.submit() and run_cell(cell.folder.path)["status"] == "done"
    return results / "exp"


@pytest.fixture
def experiment(tmp_path: Path, trained: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "exp"))


def only(experiment: Path) -> CellFolder:
    (path,) = (experiment / "cells").iterdir()
    return CellFolder(path)


def of_before(folder: CellFolder) -> None:
    """As cells were written before their status had a digest."""
    kept = {key: value for key, value in folder.status().items() if not key.startswith("evals_")}
    write_json(folder.status_file, kept)


def test_undamaged_cells_are_done(experiment: Path) -> None:
    for _ in range(2):
        assert folder_state(only(experiment)) == "done" and only(experiment).damage() is None
        assert look(experiment).counts == look(experiment, check=True).counts == {"done": 1}
        of_before(only(experiment))


@pytest.mark.parametrize("old", [False, True], ids=["", "of before"])
@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_evaluations_are_seen_by_whoever_reads_them(experiment: Path, what: str, old: bool) -> None:
    folder = only(experiment)
    if old:
        of_before(folder)
    DAMAGE[what](folder.evals_file)
    if old and what in SAME_COUNT:  # nothing tells
        assert folder_state(folder) == "done"
        return
    assert folder_state(folder) == "damaged" and "evals.jsonl" in (folder.damage() or "")
    assert look(experiment, check=True).counts == {"damaged": 1}
    at_a_glance = what not in SAME_SIZE if not old else what == "deleted"
    assert look(experiment).counts == {"damaged" if at_a_glance else "done": 1}
    cells, evals = load(experiment)
    row = cells.iloc[0]
    assert row["status"] == "damaged" and "evals.jsonl" in row["error"]
    assert math.isnan(row["best_metric"]) and not len(evals)


def test_a_finished_status_without_a_summary_is_damage(experiment: Path) -> None:
    folder = only(experiment)
    write_json(folder.status_file, {"status": "done"})
    assert folder_state(folder) == "damaged" and load(experiment)[0].iloc[0]["status"] == "damaged"


def test_retry_runs_damaged_cells_again_and_keeps_what_was_there(experiment: Path) -> None:
    before, evals = load(experiment)
    a_digit(only(experiment).evals_file)
    assert retry([str(experiment), "--launcher", "inline", "--states", "damaged"]) == 0
    (kept,) = (experiment / "superseded").iterdir()
    assert CellFolder(kept).damage() is not None
    after, again = load(experiment)
    assert list(after["status"]) == ["done"] and look(experiment, check=True).counts == {"done": 1}
    assert after["samples_to_target"].equals(before["samples_to_target"])
    assert again["validation/accuracy"].equals(evals["validation/accuracy"])


def test_damage_is_said(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = only(experiment)
    a_digit(folder.evals_file)
    assert "1 done" in call(status, capsys, experiment, "--once").out
    said = call(status, capsys, experiment, "--once", "--check").out
    assert "1 damaged" in said and "evals.jsonl is not what the cell wrote" in said
    assert "need to be run again: 1 damaged" in said and f"python -m runner.retry {experiment}" in said
    assert "no finished cell to score: 1 damaged" in call(score, capsys, experiment).err
    (line,) = gaps(experiment, load(experiment)[0]).lines
    assert line.startswith("1 damaged") and line.endswith("--states damaged")
    dry = call(retry, capsys, experiment, "--dry-run")
    assert "1 damaged" in dry.out and "to run: 1 cell" in dry.out


def test_damaged_checkpoints_are_said(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = only(experiment).checkpoint_file
    torch.save({"id": "x", "weights": torch.ones(1000)}, file)
    assert "checkpoint.pt" not in call(status, capsys, experiment, "--once", "--check").out
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert "checkpoint.pt is damaged" in call(status, capsys, experiment, "--once", "--check").out


def test_the_same_command_trains_a_damaged_cell_again(experiment: Path) -> None:
    cell = Cell.from_overrides([f"results_dir={experiment.parent}", *ARGS])
    only(experiment).evals_file.unlink()
    assert cell.state() == "damaged" and cell.submit() and cell.state() == "pending"


FILES = ("evals.jsonl", "status.json", "config.yaml", "manifest.json", "cell.json", "checkpoint.pt",
         "log.txt", "error.txt", "lock.1")  # fmt: skip


@pytest.mark.parametrize("name", [*FILES, "job.json", "cells.txt"])
def test_a_folder_where_a_file_should_be_is_no_dead_end(experiment: Path, name: str) -> None:
    launch = Launch.create(experiment, "local", {})
    launch.add([only(experiment).path.name])
    file = (only(experiment).path if name in FILES else launch.path) / name
    file.unlink(missing_ok=True)
    file.mkdir()
    commands = [(status, "--once"), (status, "--once", "--check"), (score,), (retry, "--dry-run"),
                (verify, "--dry-run")]  # fmt: skip
    for command, *options in commands:
        assert command([str(experiment), *options]) in (0, 1, 2)

"""``dry_run=true``: what a grid would do."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.cells.cell import Cell
from runner.cells.lock import Lock
from runner.cells.survey import duration
from runner.launch.local import Inline, Local
from runner.launch.slurm.backend import Slurm
from runner.launch.start import run_grid
from runner.machine.slots import Slots
from runner.train.session import run_cell

Command = Callable[..., "subprocess.CompletedProcess[str]"]
TINY = ("log=none", "workload.budget_samples=640", "stop_at_target=false", "workload.target=0.97")


def jobs(results: Path, count: int = 7) -> list[list[str]]:
    return [[f"results_dir={results}", *TINY, f"study={study}"] for study in range(count)]


def row(text: str) -> list[str]:
    """The last row of the table."""
    return [line for line in text.splitlines() if "digits" in line][-1].replace("|", " ").split()[2:]


def test_nothing_at_all_is_written(command: Command, tmp_path: Path) -> None:
    done = command("dry_run=true", *TINY, f"results_dir={tmp_path / 'none'}")
    assert done.returncode == 0, done.stderr
    assert row(done.stdout) == ["1"] and "missing" in done.stdout and "to run: 1 cell, about" in done.stdout
    assert not list(tmp_path.iterdir())


def test_bad_input_is_one_line(command: Command, tmp_path: Path) -> None:
    done = command("-m", "dry_run=true", "algorithm=adamw,adamv")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "did you mean" in done.stderr


def test_how_the_cells_stand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = jobs(tmp_path)
    cells = [Cell.from_overrides(overrides) for overrides in grid]
    for cell in cells[:-1]:
        cell.submit()
    done, failed, stopped, working, stale = cells[:5]
    for cell in (done, stale):
        run_cell(cell.folder.path)
    stale.folder.update_manifest({"source": "before"})
    failed.folder.fail("ValueError: x", "its traceback")
    stopped.folder.set_status("preempted")
    stopped.folder.checkpoint_file.write_bytes(b"")
    with Lock.acquire(working.folder.path) or pytest.fail():
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        assert run_grid(grid, Inline(), dry_run=True) == 0
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    text = capsys.readouterr().out
    columns = next(line for line in text.splitlines() if "missing" in line).replace("to resume", "resume")
    assert columns.replace("|", " ").split()[2:] == [
        "done",
        "missing",
        "resume",
        "failed",
        "stale",
        "elsewhere",
    ]
    assert row(text) == ["1", "2", "1", "1", "1", "1"]
    assert "7 cells: 1 done, 2 missing, 1 to resume, 1 failed, 1 stale, 1 elsewhere" in text
    assert "to run: 5 cells" in text and "one at a time" in text
    took = [cell.folder.status()["summary"]["wall_seconds"] for cell in (done, stale)]
    assert f"about {duration(5 * sum(took) / 2)}," in text


def test_all_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (overrides,) = jobs(tmp_path, 1)
    cell = Cell.from_overrides(overrides)
    cell.submit()
    run_cell(cell.folder.path)
    assert run_grid([overrides], Inline(), dry_run=True) == 0
    assert "nothing to run" in capsys.readouterr().out


def test_the_time_that_it_takes_on_the_workers_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Slots, "here", lambda workers, per_gpu: Slots(range(6), (), per_gpu, workers))
    grid = [[*overrides, "workload.resources.minutes=6000", "threads=2"] for overrides in jobs(tmp_path, 6)]
    minutes = Cell.from_overrides(grid[0]).config["resources"]["minutes"]
    assert run_grid(grid, Local(), dry_run=True) == 0
    assert "on 3 workers" in (told := capsys.readouterr().out)
    assert f"about {duration(2 * minutes * 60)} on" in told
    assert run_grid(grid, Local(workers=1), dry_run=True) == 0
    assert "on 1 worker (" in capsys.readouterr().out


def test_tasks_and_arrays_of_a_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The plan needs no cluster."""
    assert run_grid(jobs(tmp_path, 6), Slurm(cells_per_task=2), dry_run=True) == 0
    assert "in 3 tasks of 1 array (time limit:" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())

"""How cells stand, by their folders, their locks and a queue."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner.base.errors import UserError
from runner.cells.cell import folder_state
from runner.cells.launches import Launch
from runner.cells.lock import Lock
from runner.cells.survey import duration, experiments, look, pick, place, survey, title_of
from runner.contract.records import STATUSES, CellFolder
from runner.provenance.source import source_hashes
from tests.experiments import write_cell

Fake = Callable[[str, str], None]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """A command of SLURM's that runs a line of shell instead."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")

    def make(name: str, script: str) -> None:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IEXEC)

    return make


@pytest.fixture
def experiment(tmp_path: Path) -> Iterator[Path]:
    """A cell of every kind: all statuses, one that is worked on, a stale one."""
    folder = tmp_path / "results" / "mixed"
    for trial, status in enumerate(STATUSES):
        write_cell(folder, trial=trial, status=status)
    changed = write_cell(folder, label="lion")
    hashes = source_hashes({"algorithm": {}, "workload": {}})
    changed.update_manifest({"source": "old", "sources": {**hashes, "runner.train.loop": "before"}})
    same = write_cell(folder, label="sgd")
    same.update_manifest({"source": "new", "sources": hashes})
    with Lock.acquire(write_cell(folder, label="muon", status="running").path) or pytest.fail():
        yield folder


def states(experiment: Path) -> dict[str, str]:
    """By label and trial: ``adamw3``."""
    return {f"{cell.id[:-8]}{cell.id[-7]}": cell.state for cell in survey(experiment)}


def test_states_are_those_that_a_cells_own_folder_tells(experiment: Path) -> None:
    seen = survey(experiment)
    assert {cell.name: cell.state for cell in seen} == {
        cell.name: folder_state(CellFolder(cell.path)) for cell in seen
    }
    assert states(experiment) == {
        **{f"adamw{trial}": status for trial, status in enumerate(STATUSES)},
        "adamw1": "killed", "lion0": "stale", "sgd0": "done", "muon0": "running",
    }  # fmt: skip
    assert {cell.name for cell in survey(experiment, stale=False) if cell.state == "stale"} == set()


def test_a_damaged_or_empty_folder_is_a_notice(experiment: Path) -> None:
    cells = experiment / "cells"
    (cells / "empty.cell.s0.t0.0123456789").mkdir()
    (cells / "note.txt").write_text("a file is no cell")
    damaged = write_cell(experiment, label="torn")
    damaged.status_file.write_text(damaged.status_file.read_text()[:30])
    not_ours = write_cell(experiment, label="odd")
    not_ours.status_file.write_text('{"status": "sleeping"}')
    damaged.manifest_file.write_text("{")
    view = look(experiment)
    assert [notice.split(":")[0].split(".")[1] for notice in view.notices[:2]] == ["odd", "torn"]
    assert view.counts["pending"] == 3 and sum(view.counts.values()) == len(STATUSES) + 5
    (cut,) = view.notices[2:]  # made, and its launch was killed before it wrote the config
    assert cut.startswith("1 folder without config.yaml: ") and "launch the same grid again" in cut


def test_a_finished_cell_whose_record_is_cut_short_is_damaged(experiment: Path) -> None:
    cell = write_cell(experiment, label="torn")
    cell.status_file.write_text(cell.status_file.read_text().rstrip()[:-2])
    assert states(experiment)["torn0"] == "pending" and folder_state(cell) == "pending"


def test_cells_in_slurms_queue_are_queued_and_come(experiment: Path, fake: Fake) -> None:
    launch = Launch.create(experiment, "slurm", {})
    held = [cell.name for cell in survey(experiment) if cell.state in ("pending", "killed", "failed", "done")]
    launch.update(arrays=[{"id": "7", "tasks": {"0": held, "1": ["gone.s0.t0.1"]}}])
    fake("squeue", f"echo '7_0|PENDING|/x/jobs/{launch.path.name}/slurm/submission.sh'")
    view = look(experiment)
    coming = {cell.name for cell in view.cells if cell.coming}
    assert coming == {cell.name for cell in view.cells if cell.state in ("queued", "running")}
    assert view.counts["queued"] == 2  # what failed in this launch stays failed
    assert view.state_of(launch) == "1 pending" and view.silent is None
    fake("squeue", "echo '7_0|PENDING|/x/jobs/of-another-cluster/slurm/submission.sh'")
    assert "queued" not in look(experiment).counts and look(experiment).state_of(launch) == "ended"
    fake("squeue", "echo slurm_load_jobs error: Unable to contact >&2; exit 1")
    view = look(experiment)
    assert "SLURM does not answer" in view.notices[0] and view.state_of(launch) == "cannot be seen"


def test_a_live_launcher_comes_for_what_was_written_since_it_began(experiment: Path) -> None:
    assert {cell.state for cell in survey(experiment) if cell.left_behind} == {
        "pending",
        "killed",
        "preempted",
    }
    launch = Launch.create(experiment, "local", {})
    assert not any(cell.left_behind for cell in survey(experiment))
    launch.update(submitted=time.time() + 3600)  # it has not come to them yet
    assert any(cell.left_behind for cell in survey(experiment))
    launch.update(submitted=time.time() - 3600, ended=time.time())
    assert look(experiment).state_of(launch) == "ended"
    assert any(cell.left_behind for cell in survey(experiment))


def test_a_launch_elsewhere_runs_as_long_as_its_cells_do(experiment: Path) -> None:
    launch = Launch.create(experiment, "local", {})
    here = launch.record["host"]
    launch.update(host="far", boot="other")
    assert look(experiment).state_of(launch) == "cannot be seen"
    launch.update(host=here)
    assert look(experiment).state_of(launch) == "running"  # a cell there is worked on
    launch.update(boot=Launch.create(experiment, "local", {}).record["boot"], born="long ago")
    assert look(experiment).state_of(launch) == "gone"


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("digits.lion.s0.t3.ab12", "digits · lion · study 0 · trial 3"),
        ("digits_lr=0.5.adamw_lr=0.003.s10.t0.ab12", "digits_lr=0.5 · adamw_lr=0.003 · study 10 · trial 0"),
        ("anything else", "anything else"),
    ],
)
def test_a_folders_name_gives_a_title(name: str, title: str) -> None:
    assert title_of(name) == title


def test_a_cells_card_gives_its_title(tmp_path: Path) -> None:
    write_cell(tmp_path, label="adamw[lr=0.1]")
    assert survey(tmp_path)[0].title == "digits · adamw[lr=0.1] · study 0 · trial 0"


def test_people_name_experiments_and_cells(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = survey(experiment)[0].name
    assert place(experiment) == (experiment, None)
    found, only = place(experiment / "cells" / name)
    assert found.resolve() == experiment.resolve() and only == name
    monkeypatch.chdir(experiment)
    assert place(Path())[0].name == "mixed"
    for wrong in (experiment.parent / "mixt", experiment.parent):
        with pytest.raises(UserError, match="mixed"):
            place(wrong)
    assert experiments(experiment.parent) == [experiment]


def test_patterns_pick_cells(experiment: Path) -> None:
    cells = survey(experiment)
    some = next(cell for cell in cells if ".lion." in cell.name)
    for pattern in (some.id, some.name, "*.lion.*", f"results/mixed/cells/{some.name}/"):
        assert pick(cells, [pattern]) == [some]
    assert len(pick(cells, ["*.adamw.*", some.id])) == len(STATUSES) + 1
    with pytest.raises(UserError, match=r"--cells nothing: no such cell; known: adamw00digits"):
        pick(cells, ["nothing"])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (7200, "2 h"), (7800, "2 h 10 min"), (270000, "3 d 3 h")],
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert duration(seconds) == text

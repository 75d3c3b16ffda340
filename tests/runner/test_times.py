"""What is ordered by time is ordered by the time that was recorded, whatever names and time zones say."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from runner.cells import launches as module
from runner.cells import slurm_queue
from runner.cells.launches import Launch, launches
from runner.cells.lock import Lock, runs_here, this_process
from runner.cells.superseded import supersede
from runner.cells.survey import look
from runner.retry import how
from runner.status import main as status
from tests.experiments import write_cell

# Berlin's clocks show the hour from two to three twice.
BEFORE, AFTER = datetime(2026, 10, 25, 0, 45, tzinfo=UTC), datetime(2026, 10, 25, 1, 15, tzinfo=UTC)


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Moves this process to a time zone."""

    def move(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield move
    monkeypatch.undo()
    time.tzset()


def launched(experiment: Path, at: datetime, launcher: str) -> Launch:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.time, "time", at.timestamp)
        return Launch.create(experiment, launcher, {})


def named_as_before(launch: Launch) -> Launch:
    """With the name that launches had: of local time."""
    local = time.strftime("%Y%m%dT%H%M%S", time.localtime(launch.submitted))
    return Launch(launch.path.rename(launch.path.with_name(f"{local}-000000")), launch.record)


def test_launches_of_the_hour_that_comes_twice_are_in_order(
    tmp_path: Path, zone: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    write_cell(tmp_path, label="sgd")
    zone("Europe/Berlin")
    first, second = (
        named_as_before(launched(tmp_path, *each)) for each in ((BEFORE, "slurm"), (AFTER, "inline"))
    )
    assert first.path.name > second.path.name, "nothing is tested"
    assert [launch.path for launch in launches(tmp_path)] == [first.path, second.path]
    assert how(look(tmp_path), None, {})[0] == "inline"
    assert status([str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["launches"]
    assert [launch["launcher"] for launch in told] == ["slurm", "inline"]


def test_launches_from_several_time_zones_are_in_order(tmp_path: Path, zone: Callable[[str], None]) -> None:
    for place, at, launcher in (("Asia/Tokyo", BEFORE, "local"), ("America/New_York", AFTER, "inline")):
        zone(place)
        named_as_before(launched(tmp_path, at, launcher))
    assert [launch.record["launcher"] for launch in launches(tmp_path)] == ["local", "inline"]


def test_the_last_words_are_those_of_the_latest_job(tmp_path: Path, zone: Callable[[str], None]) -> None:
    zone("Europe/Berlin")
    for number, at in enumerate((BEFORE, AFTER), 1):
        launch = named_as_before(launched(tmp_path, at, "slurm"))
        launch.update(arrays=[{"id": number, "tasks": {"0": ["cell"]}}])
        (launch.path / "slurm").mkdir()
        (launch.path / "slurm" / f"{number}_0_0_log.out").write_text(f"job {number}\n")
    assert slurm_queue.last_words(launches(tmp_path), "cell") == "“job 2”"


def test_new_names_are_in_order_wherever_they_were_given(tmp_path: Path, zone: Callable[[str], None]) -> None:
    names = []
    for place, at in (("Asia/Tokyo", BEFORE), ("Europe/Berlin", BEFORE), ("America/New_York", AFTER)):
        zone(place)
        names.append(launched(tmp_path, at, "local").path.name.partition("-")[0])
    assert names == ["20261025T004500Z", "20261025T004500Z", "20261025T011500Z"]


def test_superseded_results_are_dated_in_utc(tmp_path: Path, zone: Callable[[str], None]) -> None:
    zone("Pacific/Kiritimati")  # 14 hours ahead
    before = time.strftime("%Y%m%dT%H", time.gmtime())
    kept = supersede(write_cell(tmp_path).path)
    assert kept.name.rpartition(".")[2].startswith((before, time.strftime("%Y%m%dT%H", time.gmtime())))


@pytest.mark.parametrize("submitted", [None, "yesterday", [3]])
def test_a_launch_that_does_not_say_when_comes_first(
    tmp_path: Path, submitted: object, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cell(tmp_path)
    launched(tmp_path, AFTER, "local").update(submitted=submitted)
    launched(tmp_path, BEFORE, "inline")
    assert [launch.record["launcher"] for launch in launches(tmp_path)] == ["local", "inline"]
    assert status([str(tmp_path), "--once"]) == 0


# -- records that a launcher was killed in writing ---------------------------------------------------


def half_written(launch: Launch, name: str, text: str = "", age: float = 0.0) -> Path:
    path = launch.path / f".{name}.{age:.0f}.tmp"
    path.write_text(text)
    os.utime(path, (time.time() - age,) * 2)
    return path


def gone() -> dict[str, object]:
    """A process that no longer runs here."""
    record = {**this_process(), "born": "1"}
    assert runs_here(record) is False
    return record


def test_what_killed_launchers_left_half_written_is_swept_up(tmp_path: Path) -> None:
    dead, alive, far = (Launch.create(tmp_path, "local", {}) for _ in range(3))
    dead.update(**gone())
    far.update(host="elsewhere")
    assert alive.record["host"] == socket.gethostname()
    swept = [half_written(dead, "job.json", "{"), half_written(far, "job.json", "{", age=3600)]
    kept = [half_written(far, "job.json"), half_written(alive, "job.json", age=3600)]
    kept += [half_written(dead, "requeues.1_0.json")]  # of its task, which may run
    Launch.create(tmp_path, "local", {})
    assert not any(path.exists() for path in swept)
    assert all(path.exists() for path in kept)
    assert len(launches(tmp_path)) == 4


def test_a_launcher_that_was_killed_before_its_first_record_leaves_nothing(tmp_path: Path) -> None:
    for text in (json.dumps(gone()), ""):
        folder = tmp_path / "jobs" / f"20261025T004500Z-{len(text)}"
        folder.mkdir(parents=True)
        half_written(Launch(folder, {}), "job.json", text, age=0 if text else 3600)
    Launch.create(tmp_path, "local", {})
    assert len(list((tmp_path / "jobs").iterdir())) == 1


# -- locks from the future -----------------------------------------------------------------------------


@pytest.mark.parametrize("where", [{"boot": "of before"}, {"host": "elsewhere"}, {"born": "1"}])
def test_a_cell_whose_lock_is_from_the_future_was_killed(
    tmp_path: Path, where: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The clock was set back since: the next command does not wait for it to catch up, and status says so."""
    cell = write_cell(tmp_path, status="running")
    lock = cell.path / "lock.1"
    lock.write_text(json.dumps({**this_process(), "every": 10, **where}))
    os.utime(lock, (time.time() + 7200,) * 2)
    assert status([str(tmp_path), "--once"]) == 0
    assert "1 cell: 1 killed" in capsys.readouterr().out
    with Lock.acquire(cell.path) or pytest.fail() as mine:
        assert mine.path.name == "lock.2"

"""Cells on workers: side by side, warm, killed, stopped, taken over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from runner.cells.cell import Cell
from runner.cells.lock import Lock
from runner.launch import scheduler as scheduler_module
from runner.launch.display import Display
from runner.launch.grid import job_of
from runner.launch.local import run_here
from runner.launch.pool import record_death
from runner.launch.scheduler import Job, Scheduler, Silent
from runner.machine import slots as slots_module
from runner.machine.gpus import Gpu
from runner.machine.slots import Slots
from runner.train.session import run_cell
from tests.runner.test_cells import faulty, result, wait_for


@pytest.fixture
def own_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots_module.tempfile, "gettempdir", lambda: str(tmp_path))


class Watcher(Silent):
    """Keeps what was told, and calls back."""

    def __init__(self, on_event: Callable[[Job, dict[str, Any]], None] = lambda _job, _event: None) -> None:
        super().__init__()
        self.started_: list[str] = []
        self.again_: list[str] = []
        self.waited = 0
        self.on_event = on_event

    def started(self, job: Job) -> None:
        self.started_.append(job.title)

    def event(self, job: Job, event: dict[str, Any]) -> None:
        self.on_event(job, event)

    def again(self, job: Job, reason: str) -> None:
        self.again_.append(reason)

    def waiting(self, jobs: Sequence[Job]) -> None:
        self.waited += 1


def small(tmp_path: Path, *overrides: str) -> Cell:
    short = ["workload.target=null", "workload.budget_samples=1600", "workload.eval_every=400", "log=none"]
    return Cell.from_overrides([f"results_dir={tmp_path}", *short, *overrides])


def submitted(*cells: Cell) -> list[Job]:
    for c in cells:
        c.submit()
    return [job_of(c) for c in cells]


def told(cell: Cell) -> dict[str, Any]:
    return json.loads(cell.folder.log_file.read_text().splitlines()[-1])


MIXED = [
    ["workload=digits", "algorithm=lion", "workload.precision=bf16"],
    ["workload=breast_cancer", "algorithm=ema", "algorithm/estimator=sam"],
    ["workload=digits", "algorithm/loss=label_smoothing", "workload.deterministic=true", "threads=2"],
    ["workload=digits", "algorithm=lion", "study=1"],
]


@pytest.mark.slow
def test_one_warm_worker_gives_the_table_that_a_process_per_cell_gives(tmp_path: Path) -> None:
    tables, pids = [], []
    for warm in (True, False):
        cells = [small(tmp_path, f"name=warm_{warm}", *overrides) for overrides in MIXED]
        with Scheduler(Slots.here(workers=1), watcher := Watcher(), warm) as scheduler:
            assert scheduler.run(submitted(*cells))
        assert {status["status"] for status in watcher.statuses.values()} == {"done"}
        tables.append([result(c) for c in cells])
        pids.append([c.folder.status()["pid"] for c in cells])
    assert tables[0] == tables[1]
    assert len(set(pids[0])) == 1 and len(set(pids[1])) == len(MIXED)


@pytest.mark.usefixtures("own_claims")
def test_cells_side_by_side_keep_to_cores_of_their_own(tmp_path: Path) -> None:
    cells = [faulty(tmp_path, "Tells", f"study={s}") for s in range(4)]
    with Scheduler(Slots.here(workers=2), Watcher()) as scheduler:
        assert scheduler.run(submitted(*cells))
    answers = [told(c) for c in cells]
    assert all(len(answer["cores"]) == 1 for answer in answers)
    assert len({answer["cores"][0] for answer in answers}) == min(2, len(os.sched_getaffinity(0)))
    assert not any(c.folder.manifest()["hardware"]["cores"] != 1 for c in cells)


@pytest.mark.slow
def test_a_worker_sees_its_gpu_alone_and_a_shared_one_counts_as_contended(tmp_path: Path) -> None:
    cells = [faulty(tmp_path, "Tells", f"study={s}") for s in range(2)]
    jobs = [Job(job.path, "cuda", 1) for job in submitted(*cells)]
    with Scheduler(Slots(cores=[], given=[Gpu("5"), Gpu("7")]), Watcher()) as scheduler:
        assert scheduler.run(jobs)
    assert sorted(told(c)["gpu"] for c in cells) == ["5", "7"]
    shared = faulty(tmp_path, "Tells", "study=3")
    with Scheduler(Slots(cores=[], given=[Gpu("5")], per_gpu=2), Watcher()) as scheduler:
        assert scheduler.run([Job(submitted(shared)[0].path, "cuda", 1)])
    assert told(shared)["gpu"] == "5" and shared.folder.status()["summary"]["contended"] is True


@pytest.mark.slow
def test_a_killed_workers_cell_goes_on_from_its_checkpoint_in_another(tmp_path: Path) -> None:
    args = ["checkpoint_every=0.2", "workload.budget_samples=16000"]
    cells = [small(tmp_path, *args, f"study={s}") for s in range(2)]

    def kill_once(job: Job, event: dict[str, Any]) -> None:
        checkpoint = job.path / "checkpoint.pt"
        if job.path == cells[1].folder.path and not watcher.again_ and checkpoint.exists():
            (worker,) = scheduler._busy
            worker.kill()

    watcher = Watcher(kill_once)
    with Scheduler(Slots.here(workers=1), watcher) as scheduler:
        assert scheduler.run(submitted(*cells))
    assert watcher.again_ == ["its worker ended with exit code -9"]
    assert cells[1].folder.manifest()["resumes"] == 1
    undisturbed = [small(tmp_path, *args, f"study={s}", "name=undisturbed") for s in range(2)]
    for c in undisturbed:
        c.submit()
        run_cell(c.folder.path)
    assert [result(c) for c in cells] == [result(c) for c in undisturbed]


@pytest.mark.slow
def test_a_cell_that_kills_its_worker_twice_has_failed_and_the_rest_goes_on(tmp_path: Path) -> None:
    bad, good = faulty(tmp_path, "Killed"), small(tmp_path)
    with Scheduler(Slots.here(workers=1), watcher := Watcher()) as scheduler:
        assert scheduler.run(submitted(bad, good))
    assert len(watcher.again_) == 1
    assert bad.state() == "failed" and good.state() == "done"
    assert "killed by SIGKILL" in bad.folder.status()["error"]
    assert not list(bad.folder.path.glob("lock.*"))


def test_a_cell_that_kills_its_worker_once_is_none_the_worse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KILLED_ONCE", str(tmp_path / "mark"))
    c = faulty(tmp_path, "KilledOnce")
    with Scheduler(Slots.here(workers=1), watcher := Watcher()) as scheduler:
        assert scheduler.run(submitted(c))
    assert c.state() == "done" and len(watcher.again_) == 1


@pytest.mark.slow
def test_a_process_in_which_a_cell_failed_trains_no_other(tmp_path: Path) -> None:
    bad, good, pids = faulty(tmp_path, "Raises"), small(tmp_path), []
    watcher = Watcher(lambda _job, _event: pids.append(next(iter(scheduler._busy)).pid))
    with Scheduler(Slots.here(workers=1), watcher) as scheduler:
        assert scheduler.run(submitted(bad, good))
    assert bad.state() == "failed" and good.state() == "done"
    assert pids[0] != pids[-1] == good.folder.status()["pid"]


@pytest.mark.slow
def test_an_idle_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    first, second = small(tmp_path), small(tmp_path, "study=1")
    with Scheduler(Slots.here(workers=1), watcher := Watcher()) as scheduler:
        assert scheduler.run(submitted(first))
        scheduler._idle[0].kill()
        wait_for(lambda: not scheduler._idle[0].alive())
        assert scheduler.run(submitted(second))
    assert first.state() == second.state() == "done" and watcher.again_ == []


def test_the_first_cell_starts_before_the_second_is_composed(tmp_path: Path) -> None:
    cells = [small(tmp_path), small(tmp_path, "study=1")]
    watcher, order = Watcher(), []

    def drawn() -> Any:
        for job in submitted(*cells):
            order.append(list(watcher.started_))
            yield job

    with Scheduler(Slots.here(workers=2), watcher) as scheduler:
        assert scheduler.run(drawn())
    assert len(order[0]) == 0 and len(order[1]) == 1


def test_a_signal_saves_checkpoints_and_the_next_run_goes_on(tmp_path: Path) -> None:
    args = ["workload.budget_samples=24000", "workload=digits"]
    cells = [small(tmp_path, *args, f"study={s}") for s in range(3)]

    def interrupt(_job: Job, event: dict[str, Any]) -> None:
        if event["event"] == "row" and event["steps"] and not scheduler.stopped:
            os.kill(os.getpid(), signal.SIGTERM)

    with Scheduler(Slots.here(workers=2), Watcher(interrupt)) as scheduler:
        assert scheduler.run(submitted(*cells)) is False
    assert cells[2].state() == "pending"
    first = [c for c in cells[:2] if c.state() == "preempted" and c.folder.checkpoint_file.exists()]
    assert first
    with Scheduler(Slots.here(workers=2), Watcher()) as scheduler:
        assert scheduler.run([job_of(c) for c in cells])
    assert all(c.state() == "done" for c in cells) and first[0].folder.manifest()["resumes"] == 1
    whole = small(tmp_path, *args, f"study={first[0].config['study']}", "name=whole")
    whole.submit()
    run_cell(whole.folder.path)
    assert result(first[0]) == result(whole)


def test_a_second_signal_kills(tmp_path: Path) -> None:
    c = faulty(tmp_path, "Hangs")
    watcher = Watcher()

    def twice() -> None:
        wait_for(lambda: c.folder.log_file.exists() and "hanging" in c.folder.log_file.read_text())
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=twice)
    thread.start()
    with Scheduler(Slots.here(workers=1), watcher) as scheduler:
        assert scheduler.run(submitted(c)) is False
    thread.join()
    assert c.state() == "killed"


@pytest.mark.parametrize("double", ["HangsLater", "HangsAtSetUp"])
def test_a_cell_that_hangs_is_ended_past_its_time_and_the_next_one_trains(
    tmp_path: Path, double: str
) -> None:
    hung = faulty(tmp_path, double, "max_seconds=2", "checkpoint_every=0.05")
    good = small(tmp_path, "workload.budget_samples=640")
    limits = []

    def time_flies() -> None:
        wait_for(lambda: hung.folder.log_file.exists() and "hanging" in hung.folder.log_file.read_text())
        (worker,) = scheduler._busy
        limits.append(worker.limit)
        worker.silent += 121.9

    with Scheduler(Slots.here(workers=1), watcher := Watcher()) as scheduler:
        (thread := threading.Thread(target=time_flies)).start()
        assert scheduler.run(submitted(hung, good))
    thread.join()
    assert limits == [122] and hung.folder.status()["status"] == "timeout"
    assert "no sign of life for 1" in watcher.statuses[hung.folder.path]["error"]
    assert hung.folder.checkpoint_file.exists() == (double == "HangsLater")
    assert watcher.statuses[good.folder.path]["status"] == "done" and not watcher.again_


def test_a_log_is_cut_whoever_writes_it_and_says_so(tmp_path: Path) -> None:
    c = faulty(tmp_path, "Babbles")
    with Scheduler(Slots.here(workers=1), Watcher()) as scheduler:
        assert scheduler.run(submitted(c))
    log = c.folder.log_file.read_bytes()
    assert len(log) < 19 << 20 and log.count(b"the log is too long") == 1
    assert log.startswith(b"from C\n") and log.endswith(b"a last word\n")


def test_inline_on_a_terminal_takes_every_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    c = small(tmp_path, "workload.budget_samples=640", "max_seconds=60")
    with Display(1) as display:
        assert display.bars is not None
        (job,) = submitted(c)
        assert run_here(job, display, run_cell)
    assert c.state() == "done"


def test_ctrl_c_says_what_it_waits_for(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(5) as display:
        display.stopping([Job(Path(), title=f"digits · lion · study {s} · trial 0") for s in range(4)])
        display.stopping([])
    text = " ".join(capsys.readouterr().err.split())
    assert "waiting for digits · lion · study 0 · trial 0; digits · lion · study 1" in text
    assert "; 1 more to finish the current step, then saving (Ctrl-C again to stop immediately)" in text


def test_a_signal_while_a_worker_still_imports_is_not_lost(tmp_path: Path) -> None:
    c = small(tmp_path, "workload.budget_samples=640000")
    watcher = Watcher()

    def started(job: Job) -> None:
        threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()

    watcher.started = started  # pyright: ignore[reportAttributeAccessIssue]
    with Scheduler(Slots.here(workers=1), watcher) as scheduler:
        assert scheduler.run(submitted(c)) is False
    assert c.state() in ("pending", "preempted") and c.folder.evals() == []


def test_a_mistake_in_a_later_cell_stops_the_running_ones(tmp_path: Path) -> None:
    c = small(tmp_path, "workload.budget_samples=640000")

    def drawn() -> Any:
        yield from submitted(c)
        wait_for(lambda: len(c.folder.evals()) > 0)
        raise ValueError("a typo")

    with Scheduler(Slots.here(workers=1), Watcher()) as scheduler, pytest.raises(ValueError, match="a typo"):
        scheduler.run(drawn())
    assert c.state() == "preempted"


def test_a_cell_that_another_process_trains_is_waited_for(tmp_path: Path) -> None:
    c = small(tmp_path)
    c.submit()
    other = Lock.acquire(c.folder.path)
    assert other is not None
    watcher = Watcher()

    def finish() -> None:
        wait_for(lambda: watcher.waited > 0)
        c.folder.set_status("done", summary={"by": "the other"})
        other.release()

    thread = threading.Thread(target=finish)
    thread.start()
    with Scheduler(Slots.here(workers=1), watcher) as scheduler:
        assert scheduler.run([job_of(c)])
    thread.join()
    assert watcher.statuses[c.folder.path]["summary"] == {"by": "the other"}


@pytest.mark.slow
def test_a_cell_that_another_process_leaves_behind_is_taken_over(tmp_path: Path) -> None:
    c = small(tmp_path, "workload.budget_samples=640000", "checkpoint_every=0.01")
    c.submit()
    other = subprocess.Popen([sys.executable, "-m", "runner.train.session", str(c.folder.path)])
    wait_for(c.folder.checkpoint_file.exists)
    watcher = Watcher(lambda _job, event: scheduler.stop() if not scheduler.stopped else None)

    def kill() -> None:
        wait_for(lambda: watcher.waited > 0)
        other.kill()
        other.wait()

    thread = threading.Thread(target=kill)
    thread.start()
    with Scheduler(Slots.here(workers=1), watcher) as scheduler:
        scheduler.run([job_of(c)])  # until the first sign of life
    thread.join()
    assert c.folder.manifest()["resumes"] == 1 and c.state() == "preempted"


def test_the_same_cells_launched_twice_at_once_run_once_each(tmp_path: Path) -> None:
    cells = [faulty(tmp_path, "Prints", f"study={s}") for s in range(6)]
    jobs, results = submitted(*cells), []

    def launch() -> None:
        watcher = Watcher()
        with Scheduler(Slots.here(workers=2), watcher) as scheduler:
            results.append((scheduler.run(jobs), watcher.statuses))

    threads = [threading.Thread(target=launch) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for complete, statuses in results:
        assert complete and {status["status"] for status in statuses.values()} == {"done"}
        assert len(statuses) == 6
    for c in cells:
        assert c.folder.log_file.read_text() == "a word from the plugin\n"


def test_the_last_word_of_a_cell_stands_when_its_process_dies_behind_it(tmp_path: Path) -> None:
    c = small(tmp_path)
    c.submit()
    done = run_cell(c.folder.path)
    assert record_death(c.folder.path, -9, out_of_memory=False) == done == c.folder.status()


@pytest.mark.slow
def test_workers_that_have_left_leave_nothing_behind(tmp_path: Path) -> None:
    cells = [small(tmp_path, "workload.budget_samples=64", f"study={s}") for s in range(5)]
    with Scheduler(Slots.here(workers=1), Watcher(), warm=False) as scheduler:
        assert scheduler.run(submitted(*cells))
        assert len(scheduler._leaving) <= 2


@pytest.mark.slow
def test_a_worker_that_dies_behind_a_child_of_its_own_is_noticed(tmp_path: Path) -> None:
    c = faulty(tmp_path, "KilledWithAChild")
    began = time.monotonic()
    with Scheduler(Slots.here(workers=1), watcher := Watcher()) as scheduler:
        assert scheduler.run(submitted(c))
    assert c.state() == "failed" and len(watcher.again_) == 1
    assert time.monotonic() - began < 300, "it waited for the children to end"


def test_a_run_after_an_interrupted_one_has_forgotten_its_cells(tmp_path: Path) -> None:
    held, free = submitted(small(tmp_path, "study=1"), small(tmp_path))
    other = Lock.acquire(held.path)
    assert other is not None
    watcher = Watcher()
    watcher.waiting = lambda _jobs: scheduler.stop()  # pyright: ignore[reportAttributeAccessIssue]
    with Scheduler(Slots.here(workers=1), watcher) as scheduler:
        assert scheduler.run([held]) is False
        scheduler.stopped = 0
        assert scheduler.run([free])
    other.release()
    assert list(watcher.statuses) == [free.path]


def test_a_cell_whose_folder_has_gone_is_no_endless_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler_module, "GONE_LOOKS", 2)
    with Scheduler(Slots.here(workers=1), watcher := Watcher()) as scheduler:
        assert scheduler.run([Job(tmp_path / "absent")])
    assert watcher.statuses[tmp_path / "absent"]["status"] == "failed"

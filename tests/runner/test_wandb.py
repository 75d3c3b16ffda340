"""``log=wandb`` without a network: what is recorded, where, and what a resume makes of it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.cells.cell import Cell
from runner.launch.grid import job_of
from runner.launch.scheduler import Job, Scheduler, Silent
from runner.logs.wandb_log import WandbLogger
from runner.machine.slots import Slots
from runner.train.session import run_cell
from tests.doubles import wandb_world
from tests.doubles.wandb_world import Offline, offline_runs

SMALL = ("workload.batch_size=64", "workload.budget_samples=1920", "stop_at_target=false")
TIMES = ("seconds", "clock/", "cpu_", "contended", "wall_seconds", "compile_seconds")


@pytest.fixture(autouse=True)
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    wandb_world.enter(monkeypatch, tmp_path / "home")
    yield
    wandb_world.leave()


def cell(tmp_path: Path, *overrides: str) -> Cell:
    c = Cell.from_overrides([f"results_dir={tmp_path}", "log=wandb", *SMALL, *overrides])
    c.submit()
    return c


def rows_of(run: Offline) -> list[dict[str, Any]]:
    """As they are in ``evals.jsonl``; W&B's step is the number of the evaluation."""
    assert all(row["_step"] == row["eval_index"] for row in run.history)
    return [{k: v for k, v in row.items() if k != "_step"} for row in run.history]


def plain(value: Any) -> Any:
    """As JSON has it."""
    return json.loads(json.dumps(value))


def untimed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.startswith(TIMES)} for row in rows]


def test_an_offline_run_holds_what_the_cells_folder_holds(tmp_path: Path) -> None:
    c = cell(tmp_path, "+algorithm.optimizer.amsgrad=true", "log.tags=[mine,digits]", "log.notes=a note")
    assert run_cell(c.folder.path)["status"] == "done"
    (run,) = offline_runs(tmp_path / "default")
    manifest = run.config.pop("manifest")
    assert run.config == plain(yaml.safe_load(c.folder.config_file.read_text()))
    assert rows_of(run) == c.folder.evals()
    status = c.folder.status()
    assert {"status": "done", **status["summary"]}.items() <= run.summary.items()
    assert run.exit_code == 0
    assert manifest["git"] == c.folder.manifest()["git"] and manifest["source"] == c.source


def test_names_group_studies_and_survive_the_labels_characters(tmp_path: Path) -> None:
    c = cell(tmp_path, "algorithm.optimizer.lr=0.1", "study=3", "name=demo", "log.project=p")
    run_cell(c.folder.path)
    (run,) = offline_runs(tmp_path / "demo")
    label, workload = c.config["label"], c.config["workload_label"]
    assert "[lr=0.1]" in label
    assert run.run.run_id == f"{c.id}-{c.source}" and re.fullmatch(r"[A-Za-z0-9_-]+", run.run.run_id)
    assert run.run.display_name == f"{workload} · {label} · s3 t0"
    assert run.run.run_group == "demo" and run.run.job_type == workload and run.run.project == "p"
    assert list(run.run.tags) == ["digits", "embedded", "fp32", label, "demo"]
    axes = {metric.name or metric.glob_name: metric.step_metric for metric in run.metrics}
    assert axes == {"samples": "", "steps": "", "seconds": "", "*": "samples"}


def test_a_sweep_in_the_environment_changes_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under ``wandb agent``: every cell is its own run, in the project of its config."""
    monkeypatch.setenv("WANDB_SWEEP_ID", "abcd1234")
    monkeypatch.setenv("WANDB_RUN_ID", "theagents")
    cells = [cell(tmp_path, f"study={study}", "name=swept", "log.project=p") for study in (0, 1)]
    for c in cells:
        run_cell(c.folder.path)
    runs = offline_runs(tmp_path / "swept")
    assert sorted(run.run.run_id for run in runs) == sorted(f"{c.id}-{c.source}" for c in cells)
    assert {run.run.project for run in runs} == {"p"} and {run.run.sweep_id for run in runs} == {""}


def test_a_job_type_is_cut_to_what_wandb_takes(tmp_path: Path) -> None:
    c = cell(tmp_path, "name=long")
    config = c.config | {"workload_label": f"digits[{'x' * 100}]"}
    assert len(WandbLogger()._names(config)["job_type"]) == 64


def test_nothing_lands_in_the_working_directory_or_on_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cwd").mkdir()
    c = cell(tmp_path)
    monkeypatch.chdir(tmp_path / "cwd")
    run_cell(c.folder.path)
    assert list((tmp_path / "cwd").iterdir()) == []
    assert {path.name for path in (tmp_path / "default").iterdir()} == {"cells", "wandb"}
    assert capfd.readouterr() == ("", "")


def test_logging_changes_no_number(tmp_path: Path) -> None:
    logged, alone = cell(tmp_path), cell(tmp_path, "log=none", "name=alone")
    run_cell(logged.folder.path)
    run_cell(alone.folder.path)
    assert untimed(logged.folder.evals()) == untimed(alone.folder.evals())
    assert logged.id == alone.id and logged.source == alone.source


def test_a_failed_and_a_diverged_cell_say_so(tmp_path: Path) -> None:
    for double, status, code in (("Raises", "failed", 1), ("Explodes", "diverged", 0)):
        optimizer = {"_target_": f"tests.doubles.faults.{double}", "lr": 0.1}
        algorithm = {"optimizer": optimizer, "_target_": "runner.parts.composed.Composed"}
        config = {**cell(tmp_path, f"name={double}", "workload.eval_every=64").config, "algorithm": algorithm}
        c = Cell.from_config({k: v for k, v in config.items() if k != "id"})
        c.submit()
        assert run_cell(c.folder.path)["status"] == status
        (run,) = offline_runs(tmp_path / double)
        assert run.summary["status"] == status and run.exit_code == code
        assert "error" not in run.summary or run.summary["error"] == c.folder.status()["error"]


def at_row(number: int, what: Callable[[], None]) -> Callable[[dict[str, Any]], None]:
    rows = itertools.count(1)
    return lambda event: what() if event["event"] == "row" and next(rows) == number else None


def test_a_preempted_cell_goes_on_in_one_run_with_every_row_once(tmp_path: Path) -> None:
    c = cell(tmp_path, "workload.budget_samples=9600")
    status = run_cell(c.folder.path, at_row(3, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    assert status["status"] == "preempted"
    (run,) = offline_runs(tmp_path / "default")
    assert run.summary["status"] == "preempted" and run.exit_code == 1 and len(run.history) == 3
    assert run_cell(c.folder.path)["status"] == "done" and c.folder.manifest()["resumes"] == 1
    (run,) = offline_runs(tmp_path / "default")
    assert rows_of(run) == c.folder.evals() and len(run.history) == 11
    assert run.summary["status"] == "done" and run.exit_code == 0


DIES = """
import os, sys
from pathlib import Path
from runner.train.session import run_cell
from tests.runner.test_wandb import at_row
run_cell(Path(sys.argv[1]), at_row(4, lambda: os._exit(9)))
"""


def test_rows_from_behind_the_checkpoint_are_not_there_twice(tmp_path: Path) -> None:
    c = cell(tmp_path, "workload.budget_samples=9600", "checkpoint_every=0.01")
    died = subprocess.run([sys.executable, "-c", DIES, str(c.folder.path)], capture_output=True, text=True)
    assert died.returncode == 9, died.stderr
    assert run_cell(c.folder.path)["status"] == "done" and c.folder.manifest()["resumes"] == 1
    (run,) = offline_runs(tmp_path / "default")
    assert rows_of(run) == c.folder.evals() and len(run.history) == 11


def test_what_was_synced_is_not_logged_again(tmp_path: Path) -> None:
    c = cell(tmp_path, "workload.budget_samples=9600")
    run_cell(c.folder.path, at_row(3, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    (folder,) = (tmp_path / "default" / "wandb").iterdir()
    (folder / f"run-{c.id}-{c.source}.wandb.synced").touch()  # as `wandb sync` marks it
    run_cell(c.folder.path)
    first, second = offline_runs(tmp_path / "default")
    assert rows_of(first) + rows_of(second) == c.folder.evals()


@pytest.mark.slow
def test_a_warm_worker_logs_cell_after_cell_and_takes_the_service_with_it(tmp_path: Path) -> None:
    cells = [
        cell(tmp_path, f"study={s}", "workload.budget_samples=9600", "checkpoint_every=0.01") for s in (0, 1)
    ]
    seen: list[list[int]] = []

    class Observer(Silent):
        kill = False

        def ended(self, job: Job, status: dict[str, Any]) -> None:
            super().ended(job, status)
            seen.append(children(scheduler._idle[0].pid, "wandb-core"))

        def event(self, job: Job, event: dict[str, Any]) -> None:
            if self.kill and event["event"] == "row" and len(cells[1].folder.evals()) > 3:
                (worker,) = scheduler._busy
                self.kill, _ = False, seen.append(children(worker.pid, "wandb-core"))
                worker.kill()

    observer = Observer()
    with Scheduler(Slots.here(workers=1), observer) as scheduler:
        assert scheduler.run([job_of(cells[0])])
        assert len(seen[0]) == 1
        observer.kill = True
        assert scheduler.run([job_of(cells[1])])
        killed, service = seen[1:]
        wait_for(lambda: not alive(killed), "the service outlived a killed worker")
    assert [status["status"] for status in observer.statuses.values()] == ["done", "done"]
    wait_for(lambda: not alive(service), "the service outlived its worker")
    runs = {run.run.run_id: run for run in offline_runs(tmp_path / "default")}
    assert set(runs) == {f"{c.id}-{c.source}" for c in cells}
    for c in cells:
        assert rows_of(runs[f"{c.id}-{c.source}"]) == c.folder.evals()
        assert c.folder.log_file.read_text() == ""


def wait_for(condition: Callable[[], object], otherwise: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.02)


def children(pid: int, name: str) -> list[int]:
    """Child processes of that name (Linux)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            head, _, rest = stat.read_text().rpartition(")")
            if head.endswith(f"({name}") and int(rest.split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def alive(pids: list[int]) -> bool:
    return any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_signal_handlers_are_left_alone(tmp_path: Path) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    run_cell(cell(tmp_path).folder.path)
    assert [signal.getsignal(number) for number in numbers] == before


SWITCHES = """
import os, sys
from pathlib import Path
from runner.train.session import run_cell
off, disabled, missing = map(Path, sys.argv[1:])
assert run_cell(off)["status"] == "done"
os.environ["WANDB_MODE"] = "disabled"
assert run_cell(disabled)["status"] == "done"
assert "wandb" not in sys.modules
del os.environ["WANDB_MODE"]
sys.modules["wandb"] = None  # what `import wandb` meets where there is none
assert run_cell(missing)["status"] == "done"
"""


def test_wandb_is_imported_only_where_it_is_on_and_may_be_missing(tmp_path: Path) -> None:
    cells = [
        cell(tmp_path, "name=off", "log=none"),
        cell(tmp_path, "name=disabled"),
        cell(tmp_path, "name=missing"),
    ]
    command = [sys.executable, "-c", SWITCHES, *(str(c.folder.path) for c in cells)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    warning = "warning: log: WandbLogger failed at start (ModuleNotFoundError: "
    assert done.stderr.startswith(warning) and done.stderr.count("\n") == 1
    assert not (tmp_path / "off" / "wandb").exists() and not (tmp_path / "disabled" / "wandb").exists()

"""``log=wandb`` with a server: what is sent, what a resume sends, and a server that is not there."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.cells.cell import Cell
from runner.train.session import run_cell
from tests.doubles import wandb_world
from tests.doubles.wandb_server import Server
from tests.doubles.wandb_world import KEY, offline_runs

SMALL = ("workload.batch_size=64", "workload.budget_samples=4800", "stop_at_target=false")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    server = Server()
    wandb_world.enter(monkeypatch, tmp_path / "home", WANDB_API_KEY=KEY, WANDB_BASE_URL=server.url)
    yield server
    wandb_world.leave()
    server.stop()


def cell(tmp_path: Path, *overrides: str) -> Cell:
    c = Cell.from_overrides([f"results_dir={tmp_path}", "log=wandb", "log.timeout=20", *SMALL, *overrides])
    c.submit()
    return c


def rows_of(run: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows in the order of their lines, without W&B's own keys."""
    rows = [run["history"][number] for number in sorted(run["history"])]
    assert [row["_step"] for row in rows] == [row["eval_index"] for row in rows]
    return [{k: v for k, v in row.items() if not k.startswith("_")} for row in rows]


def preempt_at_row_3(event: dict[str, Any]) -> None:
    if event["event"] == "row" and event["drawn"] == 1920:
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_preempted_cell_goes_on_in_its_run(
    tmp_path: Path, server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    c = cell(tmp_path, "log.tags=[mine]")
    assert run_cell(c.folder.path, preempt_at_row_3)["status"] == "preempted"
    (name,) = server.runs
    run = server.runs[name]
    assert name == f"{c.id}-{c.source}" and run["preempting"] and run["exitcode"] == 1
    assert run["tags"][0] == "mine"
    assert run["groupName"] == "default" and run["jobType"] == c.config["workload_label"]
    assert rows_of(run) == c.folder.evals() and len(run["history"]) == 3
    assert run_cell(c.folder.path)["status"] == "done"
    assert list(server.runs) == [name] and run["exitcode"] == 0
    assert rows_of(run) == c.folder.evals() and len(run["history"]) == 6
    assert {"status": "done", **c.folder.status()["summary"]}.items() <= run["summary"].items()
    assert capfd.readouterr() == ("", "")


def test_a_job_of_a_cluster_logs_offline_unless_told_otherwise(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    c, told = cell(tmp_path), cell(tmp_path, "study=1", "log.mode=online")
    run_cell(c.folder.path)
    assert server.runs == {} and len(offline_runs(tmp_path / "default")) == 1
    run_cell(told.folder.path)
    assert list(server.runs) == [f"{told.id}-{told.source}"]


def test_rows_that_the_server_lacks_are_sent_at_the_resume(tmp_path: Path, server: Server) -> None:
    c = cell(tmp_path, "log.mode=offline")
    run_cell(c.folder.path, preempt_at_row_3)
    assert server.runs == {} and len(offline_runs(tmp_path / "default")) == 1
    Cell({**c.config, "log": {**c.config["log"], "mode": "auto"}}, c.folder, c.sources).submit()
    run_cell(c.folder.path)
    (run,) = server.runs.values()
    assert rows_of(run) == c.folder.evals() and c.folder.manifest()["resumes"] == 1
    assert offline_runs(tmp_path / "default") == []


def test_a_server_that_does_not_answer_is_asked_once(
    tmp_path: Path, server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    server.silent = True
    for study in (0, 1):
        assert run_cell(cell(tmp_path, f"study={study}", "log.timeout=2").folder.path)["status"] == "done"
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("warning: log: W&B cannot be used (")
    assert len(offline_runs(tmp_path / "default")) == 2


def test_a_server_that_is_not_there_means_offline(
    tmp_path: Path, server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    server.stop()
    c = cell(tmp_path)
    run_cell(c.folder.path)
    assert capfd.readouterr().err == f"warning: log: {server.url} cannot be reached: logging offline\n"
    (run,) = offline_runs(tmp_path / "default")
    assert len(run.history) == len(c.folder.evals())


def test_online_without_a_login_asks_nothing_and_logs_offline(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    run_cell(cell(tmp_path, "log.mode=online").folder.path)
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1 and "not logged in to" in said[0] and "wandb login" in said[0]
    assert len(offline_runs(tmp_path / "default")) == 1 and server.runs == {}

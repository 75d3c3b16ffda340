"""``python -m runner.retry``: the cells that have to run again, and no other."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.base.errors import UserError
from runner.base.files import read_json, write_json
from runner.cells.cell import Cell, identity
from runner.cells.launches import Launch, launches
from runner.cells.lock import Lock
from runner.cells.survey import View, survey
from runner.contract.records import CellFolder
from runner.launch.local import Inline, Local
from runner.retry import assignments, backend_of, how, main, restored, states
from runner.train.session import run_cell
from tests.experiments import write_cell

Command = Callable[..., "subprocess.CompletedProcess[str]"]
TINY = ("log=none", "workload.budget_samples=640", "stop_at_target=false", "workload.target=0.97")


def submitted(results: Path, *overrides: str) -> Cell:
    cell = Cell.from_overrides([f"results_dir={results}", "name=exp", *TINY, *overrides])
    assert cell.submit()
    return cell


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Studies 0 to 5: done, failed, left running, stale, never begun, and one whose config is damaged."""
    results = tmp_path / "results"
    done, failed, killed, stale, _, damaged = (submitted(results, f"study={study}") for study in range(6))
    for cell in (done, stale):
        assert run_cell(cell.folder.path)["status"] == "done"
    failed.folder.fail("ValueError: once", "its traceback")
    killed.folder.set_status("running")
    manifest = stale.folder.manifest()
    sources = {**manifest["sources"], "runner.train.loop": "before"}
    write_json(stale.folder.manifest_file, {**manifest, "source": "before", "sources": sources})
    damaged.folder.config_file.write_text("workload: {name: [")
    return results


def by_study(experiment: Path) -> dict[int, str]:
    return {int(cell.name.rsplit(".", 3)[1][1:]): cell.state for cell in survey(experiment)}


def test_what_is_not_done_runs_again_and_nothing_else(command: Command, results: Path) -> None:
    """In another folder than the configs say, too."""
    experiment = (results / "exp").rename(results / "moved")
    (done,) = experiment.glob("cells/*.s0.*")
    names = {path.name for path in experiment.glob("cells/*")}
    before = {path: path.stat().st_mtime_ns for path in done.iterdir()}
    ended = command(str(experiment), "workers=1", module="runner.retry")
    assert ended.returncode == 1, ended.stderr  # for the damaged one
    assert "5 cells: 4 done, 1 failed" in ended.stderr and "config.yaml cannot be used" in ended.stderr
    assert "other ids" not in ended.stderr and "Traceback" not in ended.stderr
    assert by_study(experiment) == {**dict.fromkeys(range(5), "done"), 5: "pending"}
    assert {path.name for path in experiment.glob("cells/*")} == names
    assert {path: path.stat().st_mtime_ns for path in done.iterdir()} == before
    assert len(list(experiment.glob("superseded/*.s3.*"))) == 1
    assert not (results / "exp").exists()
    (launch,) = launches(experiment)
    assert launch.record["launcher"] == "local" and launch.record["options"]["workers"] == 1


def test_a_cell_that_was_never_submitted_is_not_a_failure(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its launch was killed, or its disk was full, between making its folder and writing its config."""
    experiment = results / "exp"
    (experiment / "cells" / "digits.sgd.s9.t0.0123456789").mkdir()
    assert main([str(experiment), "--states", "killed", "--launcher", "inline"]) == 0
    printed = capsys.readouterr().err
    assert "1 folder without config.yaml" in printed and "launch the same grid again" in printed


def test_named_cells_and_states_alone(results: Path) -> None:
    experiment = results / "exp"
    assert main([str(experiment), "--cells", "*.s1.*", "*.s0.*", "--launcher", "inline"]) == 0
    assert by_study(experiment) == {0: "done", 1: "done", 2: "killed", 3: "stale", 4: "pending", 5: "pending"}
    assert main([str(experiment), "--states", "killed,stale", "--launcher", "inline"]) == 0
    assert by_study(experiment) == {**dict.fromkeys(range(4), "done"), 4: "pending", 5: "pending"}
    (alone,) = experiment.glob("cells/*.s4.*")
    assert main([str(alone)]) == 0  # inline, as the last launch
    assert by_study(experiment)[4] == "done"
    assert {launch.record["launcher"] for launch in launches(experiment)} == {"inline"}


def test_cells_that_somebody_comes_for_are_left_alone(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = results / "exp"
    (failed,) = experiment.glob("cells/*.s1.*")
    Launch.create(experiment, "local", {}).update(submitted=0.0)  # this very process
    with Lock.acquire(failed) or pytest.fail():
        assert main([str(experiment), "--states", "failed,killed,pending", "--launcher", "inline"]) == 0
    assert "nothing to retry: 1 done, 1 running, 1 killed, 1 stale, 2 pending" in capsys.readouterr().out
    assert by_study(experiment)[1] == "failed"


def test_a_dry_run_writes_nothing(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = results / "exp"
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*")}
    assert main([str(experiment), "--dry-run", "--cells", "*.s[0-4].*"]) == 0
    assert "to run: 4 cells" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in results.rglob("*")} == before


def test_a_cell_keeps_the_config_that_it_was_submitted_with(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the config of today would give it another id."""
    (path,) = (results / "exp").glob("cells/*.s1.*")
    folder = CellFolder(path)
    config = folder.config()
    assert identity(config) == config["id"]
    folder.create({**config, "of_an_older_format": 1}, {})
    assert main([str(path), "--launcher", "inline"]) == 0
    assert "would get other ids" in capsys.readouterr().err
    now = folder.config()
    assert folder.status()["status"] == "done" and now.pop("of_an_older_format") == 1
    assert {key for key in now if now[key] != config.get(key)} <= {"results_dir", "name"}
    assert (read_json(path / "cell.json") or {})["id"] == config["id"]


def test_a_config_without_resources_gets_defaults(results: Path) -> None:
    (path,) = (results / "exp").glob("cells/*.s1.*")
    folder = CellFolder(path)
    folder.create({k: v for k, v in folder.config().items() if k != "resources"}, {})
    needs = restored(results / "exp", path.name).config["resources"]
    assert needs["cores"] == folder.config()["threads"] and needs["minutes"] > 0


# -- where they run ----------------------------------------------------------------------------------


def test_the_last_launch_says_where_unless_told_otherwise(tmp_path: Path) -> None:
    assert how(View(tmp_path), None, {}) == ("local", {})
    old = Launch.create(tmp_path, "slurm", {"partition": "gpu"})
    last = Launch(tmp_path, {"launcher": "local", "options": {"workers": 3, "warm": False}})
    view = View(tmp_path, launched=[old, last])
    assert how(view, None, {"workers": 4}) == ("local", {"workers": 4, "warm": False})
    assert how(view, "slurm", {"time": 5}) == ("slurm", {"time": 5})
    assert how(View(tmp_path, launched=[old]), None, {"time": 5}) == (
        "slurm", {"partition": "gpu", "time": 5},
    )  # fmt: skip


def test_options_of_the_launchers() -> None:
    given = assignments(["workers=4", "hydra.launcher.per_gpu=2", "warm=false", "then=score"])
    assert backend_of("local", given) == (Local(workers=4, per_gpu=2, warm=False), "score")
    assert backend_of("inline", {}) == (Inline(), None)
    backend, then = backend_of("slurm", assignments(["hydra.launcher.partition=gpu", "then=score"]))
    assert backend.options()["partition"] == "gpu" and backend.options()["then"] == "score" and then is None


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["wrkers=2"], "did you mean workers?"),
        (["workers=0"], "workers: got 0"),
        (["workers=true"], "workers: got True"),
        (["hydra.launcher.warm=3"], "warm: got 3"),
        (["nonsense"], "nonsense: expected key=value"),
        (["--launcher", "slurm", "partitoin=x"], "did you mean partition"),
        (["--states", "done"], "--states done: cells in this state are not run again"),
        (["--states", "faild"], "did you mean failed, killed?"),
        (["--cells", "nothing", "workers=2"], "--cells nothing: no such cell"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], args: list[str], says: str
) -> None:
    write_cell(tmp_path, status="failed", error="x")
    assert main([str(tmp_path), *args]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and says in error


def test_no_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err
    with pytest.raises(UserError):
        states("running")

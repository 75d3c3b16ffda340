"""A cell's life: run, skip, fail, diverge, go stale, be killed and go on."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from runner.base.errors import UserError
from runner.cells.cell import Cell
from runner.launch.display import Display, outcome
from runner.launch.grid import job_of
from runner.launch.local import Inline
from runner.launch.scheduler import Scheduler
from runner.launch.start import run_grid
from runner.machine.slots import Slots
from runner.train.session import failure, run_cell
from tests.doubles import workloads

TIMES = ("seconds", "wall_seconds", "compile_seconds", "seconds_to_target", "cpu_seconds", "cpu_over_wall",
         "cpu_waited_seconds", "contended")  # fmt: skip


def cell(tmp_path: Path, *overrides: str) -> Cell:
    return Cell.from_overrides([f"results_dir={tmp_path}", "workload.target=0.97", *overrides])


def untimed(record: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in record.items() if k not in TIMES and not k.startswith("clock/")}


def result(c: Cell) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What must not depend on when, where and how often a cell was run."""
    return untimed(c.folder.status()["summary"]), [untimed(row) for row in c.folder.evals()]


def run(c: Cell) -> dict[str, Any]:
    c.submit(again=True)
    return run_cell(c.folder.path)


# -- the usual course --------------------------------------------------------------------------------


def test_a_run_leaves_a_complete_folder(tmp_path: Path) -> None:
    c = cell(tmp_path, "stop_at_target=false", "workload.budget_samples=6400")
    status = run(c)
    assert status["status"] == "done" and c.state() == "done"
    names = {path.name for path in c.folder.path.iterdir()}
    assert names == {"cell.json", "config.yaml", "manifest.json", "evals.jsonl", "status.json"}
    rows = c.folder.evals()
    assert [row["drawn"] for row in rows] == sorted({row["drawn"] for row in rows})
    assert rows[0]["drawn"] == 0 and rows[-1]["drawn"] == 6400 and "test/accuracy" in rows[-1]
    manifest = c.folder.manifest()
    assert manifest["source"] == c.source and manifest["seed"] > 0
    assert manifest["packages"]["torch"] == torch.__version__.split("+")[0] or torch.__version__
    assert set(manifest["data"]) == {"train", "validation", "test"}
    assert {"cpu", "device", "cores"} <= set(manifest["hardware"])
    accounts = [value for key, value in status["summary"].items() if key.startswith("clock/")]
    assert sum(accounts) == pytest.approx(status["summary"]["wall_seconds"])


def test_costs_and_grid_are_in_the_rows(tmp_path: Path) -> None:
    c = cell(
        tmp_path,
        "stop_at_target=false",
        "workload.batch_size=64",
        "workload.budget_samples=3200",
        "workload.eval_every=1000",
    )
    run(c)
    assert [row["drawn"] for row in c.folder.evals()] == [0, 1024, 2048, 3008, 3200]
    last = c.folder.evals()[-1]
    assert last["steps"] == 50 and last["samples"] == 3200 and last["cost/backward"] == 3200


def test_stops_at_the_first_hit_and_records_it(tmp_path: Path) -> None:
    c = cell(tmp_path, "workload.target=0.8")
    summary = run(c)["summary"]
    rows = c.folder.evals()
    values = [row["validation/accuracy"] for row in rows]
    assert summary["ended"] == "target" and summary["hit"]
    assert values[-1] >= 0.8 and all(v < 0.8 for v in values[:-1])
    assert summary["drawn_to_target"] == rows[-1]["drawn"] < 48000
    assert summary["test/accuracy_at_target"] == rows[-1]["test/accuracy"]
    assert "hit accuracy ≥ 0.8" in outcome(c.folder.status())


def test_goes_on_behind_the_target_when_asked(tmp_path: Path) -> None:
    args = ["workload.target=0.8", "workload.budget_samples=9600"]
    stopped, whole = cell(tmp_path, *args), cell(tmp_path, *args, "stop_at_target=false")
    first, second = run(stopped)["summary"], run(whole)["summary"]
    assert second["ended"] == "budget" and second["drawn"] == 9600
    assert first["drawn_to_target"] == second["drawn_to_target"]
    assert result(whole)[1][: first["evals"]] == result(stopped)[1]


def test_a_minimised_metric_hits_from_above(tmp_path: Path) -> None:
    c = cell(tmp_path, "workload.metric=loss", "workload.minimize=true", "workload.target=1.5")
    summary = run(c)["summary"]
    losses = [row["validation/loss"] for row in c.folder.evals()]
    assert summary["hit"] and losses[-1] <= 1.5 and all(v > 1.5 for v in losses[:-1])


def test_charged_seconds_are_limited(tmp_path: Path) -> None:
    c = cell(tmp_path, "max_seconds=0.05", "workload.budget_samples=1000000", "workload.eval_every=1000000",
             "workload.target=null")  # fmt: skip
    summary = run(c)["summary"]
    assert summary["ended"] == "max_seconds" and not summary["hit"]
    assert 0.05 <= summary["seconds"] < 5 and summary["drawn"] < 1000000


def test_the_same_cell_again_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [f"results_dir={tmp_path}", "workload.budget_samples=640"]
    assert run_grid([overrides], Inline()) == 0
    c = Cell.from_overrides(overrides)
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in c.folder.path.iterdir()}
    assert run_grid([overrides], Inline()) == 0
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in c.folder.path.iterdir()} == before
    assert "(before)" in capsys.readouterr().err


def test_other_source_makes_a_result_stale_and_a_rerun_keeps_the_old_one(tmp_path: Path) -> None:
    c = cell(tmp_path, "workload.budget_samples=640")
    run(c)
    stale = Cell(c.config, c.folder, {**c.sources, "algorithms.schedules.cosine": "other"})
    assert stale.state() == "stale"
    old = c.folder.path
    status = run(stale)
    assert status["status"] == "done" and c.state() == "done"  # it says what really ran
    kept = list((tmp_path / "default" / "superseded").iterdir())
    assert len(kept) == 1 and kept[0].name.startswith(old.name)
    assert json.loads((kept[0] / "manifest.json").read_text())["source"] == c.source


# -- what goes wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("double", "status", "error"),
    [
        ("Raises", "failed", "ZeroDivisionError: the plugin's own mistake"),
        ("Exits", "failed", "SystemExit: 7"),
        ("OutOfMemory", "oom", "planted"),
        (
            "LibraryOutOfMemory",
            "oom",
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        ),
        (
            "NotReproducible",
            "failed",
            "workload.deterministic=true: torch has no bit-reproducible cumsum_cuda_kernel here: use "
            "deterministic=false",
        ),
    ],
)
def test_a_plugin_that_raises_fails_its_cell_alone(
    tmp_path: Path, double: str, status: str, error: str
) -> None:
    c = faulty(tmp_path, double)
    record = run(c)
    assert (record["status"], record["error"]) == (status, error)
    assert "go_wrong" in c.folder.error_file.read_text()


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB",
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other call",
        "CUDA driver error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
        "cuFFT error: CUFFT_ALLOC_FAILED",
        "HIP error: hipErrorOutOfMemory",
        "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried "
        "to allocate 4000000000000000 bytes. Error code 12 (Cannot allocate memory)",
    ],
)
def test_memory_that_lacks_is_oom_however_a_library_says_it(message: str) -> None:
    said = failure(RuntimeError(message))
    assert said["status"] == "oom" and said["error"].startswith(message[:20])
    wrapped = UserError("algorithm.optimizer (Adam): could not be built")
    wrapped.__cause__ = RuntimeError(message)
    assert failure(wrapped)["status"] == "oom"


@pytest.mark.parametrize(
    "error",
    [RuntimeError("CUDA error: device-side assert triggered"), ValueError("a setting named out of memory"),
     RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`")],
)  # fmt: skip
def test_other_errors_of_a_gpu_are_failures(error: Exception) -> None:
    assert failure(error)["status"] == "failed"


@pytest.mark.parametrize(
    ("double", "error"),
    [("HardExits", "exit code 3"), ("Killed", "killed by SIGKILL"), ("Segfaults", "killed by SIGSEGV")],
)
def test_a_plugin_that_kills_its_process_fails_its_cell_alone(
    tmp_path: Path, double: str, error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, good = faulty(tmp_path, double), cell(tmp_path, "workload.budget_samples=640")
    display = train(bad, good)
    record, after = (display.statuses[c.folder.path] for c in (bad, good))
    assert display.summary() == 1
    assert record["status"] == "failed" and error in record["error"]
    assert error in bad.folder.error_file.read_text()
    assert after["status"] == "done"
    assert "trying again" in capsys.readouterr().err


def test_a_failed_cell_runs_again_and_keeps_no_old_traceback(tmp_path: Path) -> None:
    c = faulty(tmp_path, "Raises")
    run(c)
    assert c.state() == "failed"
    mended = faulty(tmp_path, "Plain")
    mended = Cell({**mended.config, "id": c.id}, c.folder, mended.sources)
    assert run(mended)["status"] == "done"
    assert not c.folder.error_file.exists()


def test_nan_is_diverged_and_finished(tmp_path: Path) -> None:
    c = faulty(tmp_path, "Explodes", "workload.eval_every=64")
    summary = run(c)["summary"]
    assert c.state() == "diverged" and summary["ended"] == "diverged" and not summary["hit"]
    assert summary["steps"] <= 7
    assert "diverged after" in outcome(c.folder.status())


@pytest.mark.parametrize("double", ["NanInTest", "InfiniteTest", "NoTest"])
def test_the_test_split_never_decides_how_a_cell_ends(tmp_path: Path, double: str) -> None:
    good, odd = (on(tmp_path, name, target=0.5) for name in ("workloads.Blobs", f"workloads_odd.{double}"))
    assert run(good)["summary"]["hit"]
    summary = run(odd)["summary"]
    assert odd.state() == "done" and summary["ended"] == "target"
    assert summary["samples_to_target"] == good.folder.status()["summary"]["samples_to_target"]
    missed = on(tmp_path, f"workloads_odd.{double}", target=1.1)
    assert run(missed)["summary"]["ended"] == "budget"


def test_no_number_before_any_training_is_the_workloads_fault(tmp_path: Path) -> None:
    c = on(tmp_path, "workloads_odd.NanInValidation", target=0.5)
    record = run(c)
    assert record["status"] == "failed" and record["user_error"]
    assert record["error"].startswith("workload odd: validation/loss is nan before the first step")
    assert len(c.folder.evals()) == 1


def on(tmp_path: Path, double: str, **workload: Any) -> Cell:
    """A cell on one of the doubles of workloads."""
    facts = {**workloads.config(double), "budget_samples": 4000, "eval_every": 400, **workload}
    config = {**cell(tmp_path).config, "workload": facts, "workload_label": "odd", "label": double}
    return Cell.from_config({k: v for k, v in config.items() if k != "id"})


def test_what_a_plugin_prints_goes_to_the_cells_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    c = faulty(tmp_path, "Prints")
    train(c)
    assert c.folder.log_file.read_text() == "a word from the plugin\n"
    assert "a word" not in capfd.readouterr().out


def test_a_constructor_that_refuses_a_value_is_the_users_mistake(tmp_path: Path) -> None:
    c = cell(tmp_path, "+algorithm.optimizer.maximise=true")
    record = run(c)
    assert record["user_error"] and "unexpected keyword argument 'maximise'" in record["error"]
    with Display(1) as display:
        display.ended(job_of(c), record)
        assert display.summary() == 2


def test_a_step_that_draws_nothing_is_stopped(tmp_path: Path) -> None:
    c = cell(tmp_path, "+algorithm.sampler._target_=tests.doubles.faults.Hoarder")
    assert "drew no rows" in run(c)["error"]


def train(*cells: Cell) -> Display:
    """Bring cells to their end in one worker process."""
    with Display(len(cells)) as display, Scheduler(Slots.here(workers=1), display) as scheduler:
        for c in cells:
            c.submit()
        assert scheduler.run(job_of(c) for c in cells)
    return display


def faulty(tmp_path: Path, double: str, *overrides: str) -> Cell:
    """Digits on one of the faulty optimizers."""
    plain = {
        "optimizer": {"_target_": f"tests.doubles.faults.{double}", "lr": 0.1},
        "_target_": "runner.parts.composed.Composed",
    }
    config = {
        **cell(tmp_path, "workload.budget_samples=1280", *overrides).config,
        "algorithm": plain,
        "label": double,
    }
    return Cell.from_config({k: v for k, v in config.items() if k != "id"})


# -- kills and resumes -------------------------------------------------------------------------------


def test_signals_checkpoint_and_the_next_start_goes_on(tmp_path: Path) -> None:
    args = ["workload.batch_size=64", "workload.budget_samples=64000", "stop_at_target=false"]
    c = cell(tmp_path, *args)
    c.submit()
    process = subprocess.Popen([sys.executable, "-m", "runner.train.session", str(c.folder.path)])
    wait_for(lambda: len(c.folder.evals()) >= 2)
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    assert c.state() == "preempted" and c.folder.checkpoint_file.exists()
    assert run_cell(c.folder.path)["status"] == "done"
    assert c.folder.manifest()["resumes"] == 1
    assert not c.folder.checkpoint_file.exists()
    undisturbed = cell(tmp_path, *args, "name=undisturbed")
    run(undisturbed)
    assert result(c) == result(undisturbed)


@pytest.mark.parametrize(
    ("parts", "kills"),
    [
        ([], 3),
        pytest.param(
            ["algorithm=ema", "algorithm/estimator=sam", "algorithm/wrapper=mechanic"],
            3,
            marks=pytest.mark.slow,
        ),
        pytest.param(["algorithm=ema", "algorithm/estimator=sam"], 10, marks=pytest.mark.slow),
    ],
)
def test_killed_at_random_instants_a_cell_ends_as_if_it_never_had_been(
    tmp_path: Path, parts: list[str], kills: int
) -> None:
    args = ["workload.batch_size=64", "workload.budget_samples=64000", "stop_at_target=false"]
    args += ["checkpoint_every=0.05", *parts]
    undisturbed, killed = cell(tmp_path, *args, "name=undisturbed"), cell(tmp_path, *args)
    run(undisturbed)
    seconds, chance = undisturbed.folder.status()["summary"]["wall_seconds"], random.Random(0)
    killed.submit()
    for i in range(kills):
        process = subprocess.Popen([sys.executable, "-m", "runner.train.session", str(killed.folder.path)])
        wait_for(lambda pid=process.pid: killed.folder.status().get("pid") == pid)
        if i == 0:
            wait_for(killed.folder.checkpoint_file.exists)  # so that there is something to go on from
        else:
            time.sleep(chance.uniform(0, seconds))
        process.kill()
        process.wait()
        if killed.state() == "done":
            break
    assert run_cell(killed.folder.path)["status"] == "done"
    assert killed.folder.manifest().get("resumes", 0) >= 1
    assert result(killed) == result(undisturbed)


def wait_for(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)

"""The grid benchmark: every way trains the same cells. How long it takes is not tested."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from scripts import bench_grid
from scripts.bench_grid import Grid, Result, Watch, check_same, main, numbers, table, tree, warm_since
from tests.experiments import write_cell


def test_the_arguments_differ_in_the_launcher_alone(tmp_path: Path) -> None:
    grid = Grid(cells=12, workers=3, budget_samples=160)
    ways = {way: grid.arguments(way, tmp_path) for way in bench_grid.WAYS}
    rest = {tuple(a for a in ways[way] if "launcher" not in a and "workers" not in a) for way in ways}
    assert len(rest) == 1
    assert "study=range(2)" in ways["warm"] and ways["warm"][-2].count(",") == 5  # six rates, two studies
    assert "hydra.launcher.warm=false" in ways["process"] and "hydra.launcher.n_jobs=3" in ways["joblib"]


def test_steady_begins_when_every_worker_has_ended_its_first_cell() -> None:
    def done(*pids: int) -> list[dict[str, Any]]:
        return [{"pid": pid, "updated": moment} for moment, pid in enumerate(pids)]

    assert warm_since(done(7, 7, 7, 8, 7, 8), workers=2) == 3
    assert warm_since(done(1, 2, 3, 4), workers=2) == 1  # a process per cell: each cell starts one


def test_the_tree_is_a_process_and_all_below_it() -> None:
    inner = [sys.executable, "-c", "import time; time.sleep(60)"]
    outer = f"import subprocess; subprocess.Popen({inner!r}, start_new_session=True).wait()"
    process = subprocess.Popen([sys.executable, "-c", outer])
    pids: list[int] = []
    try:
        deadline = time.monotonic() + 30
        while len(pids) < 2 and time.monotonic() < deadline:
            pids = list(tree(process.pid))
        watch = Watch()
        watch.sample(process.pid)
    finally:
        for pid in pids[::-1]:
            os.kill(pid, 9)
        process.wait()
    assert len(pids) == 2 and pids[0] == process.pid and os.getpid() not in pids
    assert watch.peak > 5e6 and watch.cpu_at(time.time()) == watch.cpu[-1]


def test_ratios_are_to_a_process_per_cell() -> None:
    rows = table([_result("warm", slot=200.0), _result("process", slot=4000.0)]).splitlines()
    assert len(rows) == 4 and len({row.count("|") for row in rows}) == 1
    assert "| 600.0 | 20.0× | 200 | 100 | 50 | 50 |" in rows[2]
    assert "1.0×" in rows[3]


def test_other_numbers_are_noticed(tmp_path: Path) -> None:
    for way, loss in (("warm", 0.5), ("process", 0.5)):
        _evaluated(tmp_path / way, loss, seconds=len(way))
    folders = [tmp_path / "warm", tmp_path / "process"]
    assert check_same(folders) == 1
    _evaluated(tmp_path / "process", 0.25, seconds=1)
    with pytest.raises(RuntimeError, match="different numbers"):
        check_same(folders)


def test_a_command_that_fails_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--cells", "2", "--workers", "1", "--ways", "warm", "--folder", str(tmp_path)]
    assert main([*args, "workload.batch_size=none_such"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "exit code 2" in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SystemExit):
        main(["--cells", "2", "--workers", "2"])


@pytest.mark.slow
def test_every_way_computes_the_same_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bench.json"
    args = ["--cells", "4", "--workers", "1", "--budget-samples", "160", "--json", str(file)]
    assert main([*args, "workload.eval_every=80"]) == 0
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if line.startswith("|")]
    ways = [way for way in bench_grid.WAYS if way != "joblib" or bench_grid.has_joblib()]
    assert [row.split("|")[1].strip() for row in rows[2:]] == [bench_grid.WAYS[way] for way in ways]
    assert len({row.count("|") for row in rows}) == 1
    assert "4 cells in all of the ways, with the same numbers; 160 samples a cell; load " in printed
    assert (bench_grid.MISSING in printed) == ("joblib" not in ways)
    results = json.loads(file.read_text())["results"]
    assert [r["way"] for r in results] == ways
    for r in results:
        assert r["cells"] == 4 and r["slot"] > r["training"] > 0 and r["cpu"] > 0 and r["peak_mb"] > 100


def test_a_launcher_that_is_not_installed_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured: list[str] = []

    def measure(way: str, grid: Grid, folder: Path) -> Result:
        measured.append(way)
        _evaluated(folder, 0.5)
        return _result(way)

    monkeypatch.setattr(bench_grid, "has_joblib", lambda: False)
    monkeypatch.setattr(bench_grid, "measure", measure)
    assert main(["--repeats", "2"]) == 0
    assert measured == ["warm", "process", "process", "warm"]
    printed = capsys.readouterr().out
    assert bench_grid.MISSING in printed and "| joblib launcher |" not in printed


def test_numbers_have_no_times(tmp_path: Path) -> None:
    _evaluated(tmp_path, 0.5, seconds=3.0)
    [rows] = numbers(tmp_path).values()
    assert rows == [{"eval_index": 0, "validation/loss": 0.5}]


def _result(way: str, slot: float = 200.0) -> Result:
    times = {"seconds": 60.0, "slot": slot, "training": 100.0, "warmup": 50.0, "cpu": 150.0}
    return Result(way, cells=10, workers=2, peak_mb=1000.0, load=1.0, **times)


def _evaluated(folder: Path, loss: float, seconds: float = 0.0) -> None:
    cell = write_cell(folder / bench_grid.NAME)
    row = {"eval_index": 0, "seconds": seconds, "validation/loss": loss, "clock/train": seconds}
    cell.evals_file.write_text(json.dumps(row) + "\n")

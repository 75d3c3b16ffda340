"""A grid that everything happens to ends with the table of one that nothing happened to.

``pytest -m slow -rP tests/runner/test_faults.py`` prints what was injected; docs/reliability.md has the
figures.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from runner.cells.tables import load
from tests.conftest import ROOT
from tests.runner.test_cells import wait_for

CELLS = 40
GRID = ["algorithm=adamw,lion,sgd,ema", "workload=breast_cancer,digits", "study=0,1,2,3,4"]
SMALL = ["workload.target=null", "workload.budget_samples=9600", "checkpoint_every=0.1", "log=none"]
# What may differ between two runs of the same cells: times, and where they ran.
INCIDENTAL = r"seconds|clock/|started|host|job|resumes|contended|cpu_|commit|dirty|folder|hardware|error"


def launch(results: Path, *extra: str, module: str = "runner") -> subprocess.Popen[str]:
    args = ["-m", *GRID, *SMALL, f"results_dir={results}", *extra] if module == "runner" else list(extra)
    log = (results / "launcher.txt").open("a")
    with log:
        return subprocess.Popen(
            [sys.executable, "-m", module, *args], cwd=ROOT, stdout=log, stderr=log, text=True
        )


def ends(process: subprocess.Popen[str], seconds: float = 900) -> int:
    try:
        return process.wait(seconds)
    finally:
        process.kill()


def table(experiment: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables without what may differ, in an order of their own."""
    tables = []
    for frame, key in zip(load(experiment), (["id"], ["id", "eval_index"]), strict=True):
        kept = frame.loc[:, ~frame.columns.str.contains(INCIDENTAL)]
        tables.append(kept.sort_values(key).reset_index(drop=True))
    return tables[0], tables[1]


def workers_of(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed if b"runner.launch.worker" in _command(int(child))]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def cells_in(results: Path, *states: str) -> list[Path]:
    from runner.contract.records import CellFolder

    found = sorted((results / "default" / "cells").glob("*"))
    return [path for path in found if not states or CellFolder(path).status()["status"] in states]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, pd.DataFrame]:
    results = tmp_path_factory.mktemp("undisturbed")
    assert ends(launch(results)) == 0
    return table(results / "default")


@pytest.fixture
def same(undisturbed: tuple[pd.DataFrame, pd.DataFrame]) -> Callable[[Path], None]:
    """Checks that an experiment has every cell once, with the undisturbed run's numbers."""

    def check(results: Path) -> None:
        cells, evals = table(results / "default")
        assert len(cells) == CELLS and cells["id"].is_unique and set(cells["status"]) == {"done"}
        assert not evals.duplicated(["id", "eval_index"]).any()
        pd.testing.assert_frame_equal(cells, undisturbed[0], check_like=True)
        pd.testing.assert_frame_equal(evals, undisturbed[1], check_like=True)
        assert not list(results.glob("default/cells/*/lock.*")), "a lock was left behind"
        assert not list(results.glob("default/cells/*/.*.tmp")), "half-written files were left behind"
        assert not list(results.glob("default/cells/*/checkpoint.pt"))
        resumes = int(load(results / "default")[0]["resumes"].sum())
        print(f"{CELLS} cells done, {resumes} resumed from a checkpoint, 0 lost, 0 twice")

    return check


@pytest.mark.slow
def test_workers_killed_at_random_instants(tmp_path: Path, same: Callable[[Path], None]) -> None:
    process, chance, kills = launch(tmp_path), random.Random(0), 0
    while process.poll() is None:
        time.sleep(chance.uniform(0.05, 1))
        # Mostly in the midst of training, now and then in the first moments.
        begun = {path: pid for path, pid in _holders(tmp_path).items() if pid in workers_of(process.pid)}
        victims = [pid for path, pid in begun.items() if (path / "checkpoint.pt").exists()]
        victims = victims or [pid for pid in begun.values() if chance.random() < 0.1]
        if victims and kills < 25:
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(victims), signal.SIGKILL)
                kills += 1
    assert kills >= 5
    code = process.returncode
    failed = cells_in(tmp_path, "failed", "oom")
    print(f"{kills} workers killed, {len(failed)} cells failed (hit twice) until retried")
    assert code == (1 if failed else 0)
    if failed:  # killed twice in the same cell
        assert ends(launch(tmp_path, str(tmp_path / "default"), module="runner.retry")) == 0
    same(tmp_path)


def _holders(results: Path) -> dict[Path, int]:
    from runner.cells.lock import holder

    holders = {path: holder(path) for path in cells_in(results, "running")}
    return {path: record["pid"] for path, record in holders.items() if record}


@pytest.mark.slow
def test_the_launcher_killed_again_and_again(tmp_path: Path, same: Callable[[Path], None]) -> None:
    chance = random.Random(1)
    print("launcher killed 4 times")
    for _ in range(4):
        process = launch(tmp_path)
        before = len(cells_in(tmp_path, "done"))
        wait_for(lambda n=before: len(cells_in(tmp_path, "done")) > n, 120)
        time.sleep(chance.uniform(0, 2))
        process.kill()
        process.wait()
    assert cells_in(tmp_path, "preempted", "running"), "nothing was interrupted"
    assert ends(launch(tmp_path)) == 0
    same(tmp_path)


@pytest.mark.slow
def test_the_same_grid_launched_twice_at_once(tmp_path: Path, same: Callable[[Path], None]) -> None:
    both = [launch(tmp_path), launch(tmp_path)]
    assert [ends(process) for process in both] == [0, 0]
    same(tmp_path)
    resumed = load(tmp_path / "default")[0]["resumes"]
    assert (resumed == 0).all(), "a cell was begun by one and gone on with by the other"


@pytest.mark.slow
def test_torn_lines_and_truncated_checkpoints(tmp_path: Path, same: Callable[[Path], None]) -> None:
    process = launch(tmp_path)
    wait_for(lambda: len(cells_in(tmp_path, "done")) >= 6, 300)
    workers = workers_of(process.pid)
    process.kill()
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    process.wait()
    torn = [path for path in cells_in(tmp_path, "running") if (path / "evals.jsonl").exists()]
    assert torn
    print(f"{len(torn)} running cells: last line torn, every other one's checkpoint cut to 5,000 bytes")
    for i, path in enumerate(torn):
        with (path / "evals.jsonl").open("a") as file:
            file.write('{"eval_index": 99, "drawn": 12')
        if i % 2 == 0 and (path / "checkpoint.pt").exists():
            os.truncate(path / "checkpoint.pt", 5000)
    assert ends(launch(tmp_path, str(tmp_path / "default"), module="runner.retry")) == 0
    assert ends(launch(tmp_path)) == 0  # the cells that had not been submitted yet
    same(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_a_disk_that_fills_up(small_disk: Path, tmp_path: Path, same: Callable[[Path], None]) -> None:
    process = launch(small_disk)
    wait_for(lambda: len(cells_in(small_disk, "done")) >= 4, 300)
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:  # all that is left
            file.write(b"\0" * 4096)
    assert ends(process) == 1
    done = len(cells_in(small_disk, "done"))
    assert done < CELLS
    print(f"disk full: {CELLS - done} cells not done until there was room again")
    assert "No space left" in (small_disk / "launcher.txt").read_text() or _says_no_space(small_disk)
    ballast.unlink()
    assert ends(launch(small_disk, str(small_disk / "default"), module="runner.retry")) in (0, 2)
    assert ends(launch(small_disk)) == 0
    same(small_disk)


@pytest.fixture
def little_memory() -> Iterator[Path]:
    """The list of processes of a control group that may use 1.2 GB."""
    old = Path("/sys/fs/cgroup/memory")
    group = (old if old.is_dir() else old.parent) / f"test-{os.getpid()}"
    limit, members = ("memory.limit_in_bytes", "tasks") if old.is_dir() else ("memory.max", "cgroup.procs")
    try:
        group.mkdir()
        (group / limit).write_text("1200000000")
    except OSError as error:
        pytest.skip(f"no control group to be had here ({error})")
    yield group / members
    group.rmdir()


@pytest.mark.slow
def test_the_kernel_runs_out_of_memory(little_memory: Path, tmp_path: Path) -> None:
    bad, good = "tests.doubles.faults.Devours", "torch.optim.SGD"
    args = ["algorithm=sgd", f"algorithm.optimizer._target_={bad},{good}", "workload=digits", "workers=1"]
    command = [sys.executable, "-m", "runner", "-m", *args, *SMALL, f"results_dir={tmp_path}"]
    line = ["sh", "-c", f'echo $$ > {little_memory} && exec "$@"', "sh", *command]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "2 cells: 1 done, 1 oom" in done.stderr, done.stderr
    (victim,) = cells_in(tmp_path, "oom")
    assert "out of memory: its process was killed by SIGKILL" in (victim / "error.txt").read_text()


def _says_no_space(results: Path) -> bool:
    return any("No space" in path.read_text() for path in results.glob("default/cells/*/*.txt"))

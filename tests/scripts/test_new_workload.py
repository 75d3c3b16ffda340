"""The scaffold: what it writes conforms and trains, unchanged."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runner.check import WORKLOAD_CHECKS
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project that may be written to, with a new workload in it."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("conf", "runner", "algorithms", "workloads", "hydra_plugins", "scripts"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    done = python(copy, "-m", "runner.new", "workload", "my_points")
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        [
            "wrote workloads/my_points.py",
            "wrote conf/workload/my_points.yaml",
            "next: python -m runner.check workload=my_points",
        ],
    )
    return copy


def python(cwd: Path, *args: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(cwd), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *args], cwd=cwd, env=environment, capture_output=True, text=True)


def test_it_conforms_as_written(checkout: Path) -> None:
    names = ",".join(name for name in WORKLOAD_CHECKS if name != "process")  # that one takes seconds
    done = python(checkout, "-m", "runner.check", "workload=my_points", "--only", names)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.splitlines()[-1] == "10 ok, 0 failed, 0 not applicable"


def test_it_trains_as_written(checkout: Path) -> None:
    line = ("algorithm=adamw", "workload=my_points", "workload.target=0.8", "log=none")
    done = python(checkout, "-m", "runner", *line)
    assert done.returncode == 0 and "hit accuracy" in done.stderr, done.stderr


def test_what_it_writes_is_tidy(checkout: Path) -> None:
    for check in (("check",), ("format", "--check")):
        done = python(checkout, "-m", "ruff", *check, "workloads/my_points.py")
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("digits", "exists: conf/workload/digits.yaml"),
        ("base", "exists: workloads/base.py"),
        ("MyPoints", "snake_case"),
        ("class", "snake_case"),
    ],
)
def test_a_name_that_will_not_do_is_refused_and_nothing_written(
    checkout: Path, name: str, reason: str
) -> None:
    before = sorted(checkout.rglob("*"))
    done = python(checkout, "-m", "runner.new", "workload", name)
    assert done.returncode == 2 and reason in done.stderr
    assert sorted(checkout.rglob("*")) == before

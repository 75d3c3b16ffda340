"""The scaffold: what it writes trains, conforms and passes its own test, unchanged."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runner.new.layout import FOLDERS
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project that may be written to, with a new method of every kind in it."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("conf", "runner", "algorithms", "workloads", "hydra_plugins", "scripts"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    for part in FOLDERS:
        done = python(copy, "-m", "runner.new", "algorithm", f"my_{part}", "--part", part)
        assert done.returncode == 0, done.stderr
    return copy


def python(cwd: Path, *args: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(cwd), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *args], cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_every_kind_of_new_method_conforms_as_written(checkout: Path) -> None:
    names = ",".join(f"my_{part}" for part in FOLDERS)
    done = python(checkout, "-m", "runner.check", f"algorithm={names}")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_its_own_test_passes_as_written(checkout: Path) -> None:
    done = python(checkout, "-m", "pytest", "tests/algorithms/losses/test_my_loss.py")
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout


def test_it_trains_as_written(checkout: Path) -> None:
    done = python(
        checkout, "-m", "runner", "algorithm=my_optimizer", "workload=digits", "workload.target=0.8"
    )
    assert done.returncode == 0 and "hit accuracy" in done.stderr, done.stderr


def test_what_it_writes_is_tidy(checkout: Path) -> None:
    written = [str(p.relative_to(checkout)) for p in checkout.glob("algorithms/*/my_*.py")]
    assert len(written) == len(FOLDERS)
    assert python(checkout, "-m", "ruff", "check", *written).returncode == 0
    assert python(checkout, "-m", "ruff", "format", "--check", *written).returncode == 0


@pytest.mark.parametrize(
    ("name", "reason"),
    [("lion", "exists"), ("MyMethod", "snake_case"), ("2fast", "snake_case"), ("class", "snake_case")],
)
def test_a_name_that_will_not_do_is_refused_and_nothing_written(
    checkout: Path, name: str, reason: str
) -> None:
    before = sorted(checkout.rglob("*.yaml"))
    done = python(checkout, "-m", "runner.new", "algorithm", name, "--part", "loss")
    assert done.returncode == 2 and reason in done.stderr
    assert sorted(checkout.rglob("*.yaml")) == before

"""Each file operation of a cell fails, in every way; then the same command ends as if nothing had happened.

``pytest -m slow -rP tests/runner/test_file_faults.py`` prints how many; docs/reliability.md has the figures.
With ``FILE_FAULTS_EVERY=1`` in the environment it takes all of them (half an hour of one core).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.doubles.fault_server import PLANTS, SCENARIOS
from tests.doubles.file_faults import KINDS

MEMORY = Path("/dev/shm")
EVERY = int(os.environ.get("FILE_FAULTS_EVERY", "4"))  # of the errors that have many operations to befall


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where there is one: no operation waits for a disk."""
    if not MEMORY.is_dir():
        yield tmp_path
        return
    made = Path(tempfile.mkdtemp(dir=MEMORY, prefix="file-faults."))
    yield made
    shutil.rmtree(made)


def served(folder: Path, *args: str) -> dict[str, dict[str, Any]]:
    """Scenario -> kind of fault -> how many operations were tried, and what was wrong behind them."""
    line = [sys.executable, "-m", "tests.doubles.fault_server", str(folder), *args]
    done = subprocess.run(line, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=900, check=True)
    return json.loads(done.stdout)


def wrong(found: dict[str, dict[str, Any]]) -> list[Any]:
    return [(scenario, kind, of["wrong"]) for scenario, kinds in found.items()
            for kind, of in kinds.items() if of["wrong"]]  # fmt: skip


def test_some_operations_that_fail(folder: Path) -> None:
    found = served(folder, "--sample", "2")
    assert wrong(found) == []
    assert sum(of["tried"] for kinds in found.values() for of in kinds.values()) == 36


@pytest.mark.slow
@pytest.mark.parametrize(("kinds", "every"), [(KINDS[:3], 1), (KINDS[3:], EVERY)], ids=["all", "some"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_operations_that_fail(folder: Path, scenario: str, kinds: tuple[str, ...], every: int) -> None:
    found = served(folder, "--scenarios", scenario, "--every", str(every), "--kinds", *kinds)
    assert wrong(found) == []
    for kind, of in found[scenario].items():
        print(f"{scenario}, {kind}: {of['tried']} operations")
        assert of["tried"] >= 20


@pytest.mark.slow
@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_bug_is_found(folder: Path, plant: str) -> None:
    assert wrong(served(folder, "--scenarios", "fresh", "--kinds", "killed", "--plant", plant))

"""Two to four processes after one cell, every call interleaved: never two writers, never a doubled row."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.cells import lock
from runner.cells.lock import Lock
from tests.doubles.lock_world import World, pretended

QUICK, CHUNKS, CHUNK = 300, 20, 500
MEMORY = Path("/dev/shm")


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where there is one: no schedule waits for a disk."""
    if not MEMORY.is_dir():
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(dir=MEMORY, prefix="lock-world."))
    yield folder
    shutil.rmtree(folder)


def faults_of(folder: Path, seeds: range, enough: int = 1) -> dict[int, list[str]]:
    """Seed -> what went wrong, of the first schedules where something did."""
    found: dict[int, list[str]] = {}
    for seed in seeds:
        cell = folder / str(seed)
        cell.mkdir()
        world = World(cell, seed)
        with pretended(world):
            if faults := world.run():
                found[seed] = faults
        shutil.rmtree(cell)
        if len(found) >= enough:
            break
    return found


def test_schedules_of_a_few_processes_after_one_cell(memory: Path) -> None:
    assert faults_of(memory, range(QUICK)) == {}


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_ten_thousand_schedules(memory: Path, chunk: int) -> None:
    assert faults_of(memory, range(QUICK + chunk * CHUNK, QUICK + (chunk + 1) * CHUNK)) == {}


def no_fence(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(lock, "_move_away", lambda stage: shutil.rmtree(stage, ignore_errors=True))
    patch.setattr(lock, "_stages", lambda cell: [])


def no_look(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Lock, "check", lambda self: None)
    patch.setattr(lock, "_stages", lambda cell: [])


def any_number(patch: pytest.MonkeyPatch) -> None:
    """A lock counts though a higher one is there."""
    patch.setattr(Lock, "_outnumbered", lambda self: False)


def too_eager(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(lock, "BEATS", 0.5)
    patch.setattr(lock, "_stages", lambda cell: [])


RARE = pytest.param(any_number, marks=pytest.mark.slow)  # it takes some thousand schedules to see it
PLANTED: list[Any] = [no_fence, no_look, too_eager, RARE]


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_found(memory: Path, bug: Callable[[Any], None]) -> None:
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        bug(patch)
        assert faults_of(memory, range(4000))

"""Results that a rerun replaces: kept out of the tables' sight, and put back where the rerun cannot start."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path
from typing import Any

from runner.base.errors import one_line
from runner.base.paths import utc
from runner.cells.lock import sweep
from runner.contract.records import CellFolder

KEY = "supersedes"  # of a manifest: the folder that the cell replaces


def supersede(cell: Path) -> Path:
    """Move a cell's folder, whose lock one holds, to ``superseded/``; returns where it went."""
    home = _home(cell)
    home.mkdir(parents=True, exist_ok=True)
    target = home / f"{cell.name}.{utc(time.time())}-{time.time_ns() % 10**6:06d}"
    cell.rename(target)
    sweep(target)
    return target


def kept(folder: CellFolder, status: dict[str, Any]) -> dict[str, Any]:
    """The status of a cell that has ended, whose lock one holds. Where it failed without a single evaluation,
    the result that it was to replace comes back.
    """
    if status["status"] not in ("failed", "oom") or not _reinstated(folder):
        return status
    return {**status, "error": one_line(f"the result from before the change is kept: {status.get('error')}")}


def _reinstated(folder: CellFolder) -> bool:
    """Whether there was one; the traceback of what failed comes along."""
    name = str(folder.manifest().get(KEY))
    old = _home(folder.path) / name
    if "/" in name or not name.startswith(f"{folder.path.name}."):  # it may come from elsewhere
        return False
    if folder.evals_file.exists() or old.is_symlink() or not old.is_dir():
        return False
    folder.guard()
    failed = supersede(folder.path)
    old.rename(folder.path)
    with contextlib.suppress(OSError):  # there may be none
        shutil.copyfile(failed / folder.error_file.name, folder.error_file)
    return True


def _home(cell: Path) -> Path:
    return cell.parent.parent / "superseded"

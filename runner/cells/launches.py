"""Records of launches: one folder per launch under the experiment's ``jobs/``, never reused."""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.base.files import no_link, read_json, write_json
from runner.base.paths import utc
from runner.cells.lock import runs_here, this_process
from runner.compose.commands import typed
from runner.provenance import allowances

RECORD = "job.json"
ABANDONED = 600.0  # seconds: a file takes nobody that long to write


@dataclass
class Launch:
    """One launch of an experiment.

    Attributes:
        path: its folder.
        record: ``launcher``, ``host``, ``pid``, ``command``, ``options``, ``submitted``, ``ended``, of a grid
            ``grid`` (its number of cells, twins included) and ``composed`` (whether all were written), and
            what a launcher adds (``arrays`` of a batch system).
    """

    path: Path
    record: dict[str, Any]

    @classmethod
    def create(cls, experiment: Path, launcher: str, options: Mapping[str, Any]) -> Launch:
        """Record a launch by this process.

        Raises:
            OSError: where the experiment's folder cannot be written.
        """
        submitted = time.time()
        path = experiment / "jobs" / f"{utc(submitted)}-{secrets.token_hex(3)}"
        path.mkdir(parents=True)
        record = {
            "launcher": launcher,
            **this_process(),
            "command": typed(),
            "options": dict(options),
            "submitted": submitted,
            "ended": None,
        }
        write_json(path / RECORD, record)
        _sweep(path)
        launch = cls(path, record)
        with contextlib.suppress(OSError):  # a later retry asks for the options
            allowances.remember([launch.how])
        return launch

    @property
    def how(self) -> str:
        """Launcher and options as an allowance: a later launch takes over those that this user has given."""
        given = json.dumps(
            [self.record.get("launcher"), self.record.get("options")], sort_keys=True, default=str
        )
        return f"launched={hashlib.sha256(given.encode()).hexdigest()[:16]}"

    @property
    def is_own(self) -> bool:
        """Whether this user has launched so before."""
        return self.how in allowances.launches()

    @property
    def submitted(self) -> float:
        """When, in seconds of UTC; 0 where the record does not say."""
        at = self.record.get("submitted")
        return float(at) if isinstance(at, (int, float)) else 0.0

    def update(self, **facts: Any) -> None:
        """Add to the record, on disk too."""
        self.record |= facts
        write_json(self.path / RECORD, self.record)

    def add(self, names: Iterable[str]) -> None:
        """Note cells of this launch by the names of their folders, finished ones included."""
        with open(self.path / "cells.txt", "a", encoding="utf-8", opener=no_link) as file:
            file.writelines(f"{name}\n" for name in names)

    def names(self) -> list[str]:
        """The cells that were noted."""
        try:
            with open(self.path / "cells.txt", encoding="utf-8", errors="replace", opener=no_link) as file:
                return file.read().splitlines()
        except OSError:
            return []

    def alive(self) -> bool:
        """Whether the launching process still runs, as far as this machine can see."""
        return self.record.get("ended") is None and bool(runs_here(self.record))


def launches(experiment: Path) -> list[Launch]:
    """The experiment's launches, oldest first: by the time that they recorded, whatever their names say."""
    found = ((path.parent, read_json(path)) for path in sorted(experiment.glob(f"jobs/*/{RECORD}")))
    known = [Launch(path, record) for path, record in found if record is not None]
    return sorted(known, key=lambda launch: launch.submitted)


def _sweep(own: Path) -> None:
    """Delete what other launchers of the experiment left of a record that they were killed in writing."""
    now = (own / RECORD).stat().st_mtime  # the file system's time
    for path in own.parent.glob(f"*/.{RECORD}.*.tmp"):
        with contextlib.suppress(OSError):  # others may sweep at the same time
            if _left(path, now):
                path.unlink()
                path.parent.rmdir()  # where there is nothing else


def _left(path: Path, now: float) -> bool:
    """Whether its launcher is gone; one that cannot be seen has had its time."""
    runs = runs_here(read_json(path) or read_json(path.with_name(RECORD)) or {})
    return runs is False or (runs is None and now - path.stat().st_mtime > ABANDONED)

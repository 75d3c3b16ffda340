"""What was launched, when, by whom: a folder a launch under the experiment's ``jobs/``, never used twice."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.commands import typed
from runner.files import read_json, write_json
from runner.lock import runs_here, this_process


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
        path = experiment / "jobs" / f"{time.strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(3)}"
        path.mkdir(parents=True)
        record = {
            "launcher": launcher,
            **this_process(),
            "command": typed(),
            "options": dict(options),
            "submitted": time.time(),
            "ended": None,
        }
        write_json(path / "job.json", record)
        return cls(path, record)

    def update(self, **facts: Any) -> None:
        """Add to the record, on disk too."""
        self.record |= facts
        write_json(self.path / "job.json", self.record)

    def add(self, names: Iterable[str]) -> None:
        """Note cells of this launch by the names of their folders, finished ones included."""
        with (self.path / "cells.txt").open("a", encoding="utf-8") as file:
            file.writelines(f"{name}\n" for name in names)

    def names(self) -> list[str]:
        """The cells that were noted."""
        try:
            return (self.path / "cells.txt").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []

    def alive(self) -> bool:
        """Whether the launching process still runs, as far as this machine can see."""
        return self.record.get("ended") is None and bool(runs_here(self.record))


def launches(experiment: Path) -> list[Launch]:
    """The experiment's launches, oldest first."""
    found = ((path.parent, read_json(path)) for path in sorted(experiment.glob("jobs/*/job.json")))
    return [Launch(path, record) for path, record in found if record is not None]

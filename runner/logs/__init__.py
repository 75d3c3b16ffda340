"""Where a cell logs to, beside its own folder. ``log=none`` logs nowhere else."""

from __future__ import annotations

import contextlib
import functools
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.base.errors import one_line
from runner.base.paths import shown
from runner.contract.instantiate import build_part

if TYPE_CHECKING:
    from runner.contract.records import CellFolder

FAULTS = (Exception, SystemExit)  # what a logger may raise without stopping a cell


class Logger:
    """A sink for one cell's records; this one drops them. None of it is charged to the algorithm."""

    def start(self, cell: CellFolder, resumed: bool) -> None:
        """The cell begins, or goes on from a checkpoint: ``cell.evals()`` are the rows it has so far."""

    def row(self, row: Mapping[str, Any]) -> None:
        """An evaluation was made; the row is plain numbers, so that no device is waited for."""

    def finish(self, summary: Mapping[str, Any]) -> None:
        """The cell has ended, its own records are written: ``status``, and the summary or the ``error``."""


class Guarded(Logger):
    """Keeps a logger out of the cell's way: after its first fault, one warning and no more logger."""

    def __init__(self, logger: Logger) -> None:
        self._logger: Logger | None = logger

    def start(self, cell: CellFolder, resumed: bool) -> None:
        """Pass on."""
        self._pass_on("start", cell, resumed)

    def row(self, row: Mapping[str, Any]) -> None:
        """Pass on."""
        self._pass_on("row", row)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Pass on."""
        self._pass_on("finish", summary)

    def _pass_on(self, what: str, *args: Any) -> None:
        logger = self._logger
        if logger is None:
            return
        try:
            getattr(logger, what)(*args)
        except FAULTS as error:
            self._logger = None
            fault = one_line(f"{type(error).__name__}: {error}")
            warn(f"{type(logger).__name__} failed at {what} ({fault}); the cell continues without it")


def afterwards(experiment: Path) -> list[str]:
    """What is left for a person to do once an experiment's cells have ended: to upload what is local."""
    runs: list[Path] = []
    with contextlib.suppress(OSError):  # a folder that cannot be read has been spoken of
        runs += [run for run in (experiment / "wandb").glob("offline-run-*") if not any(run.glob("*.synced"))]
    if not runs:
        return []
    count = f"{len(runs)} local W&B run{'' if len(runs) == 1 else 's'}"
    return [f"{count}; upload: wandb sync {shlex.quote(str(shown(experiment) / 'wandb'))}/offline-run-*"]


def warn(text: str) -> None:
    """One line on standard error; in a worker, that is the cell's ``log.txt``."""
    print(f"warning: log: {text}", file=sys.stderr, flush=True)


def check(spec: Mapping[str, Any] | None) -> None:
    """See that the logger of a config can be made, before anything is queued; once for each spec.

    Raises:
        UserError: for an option that the logger refuses, or a class that is not there.
    """
    if spec is not None:
        _check(json.dumps(spec, sort_keys=True, default=str))


@functools.lru_cache(maxsize=64)
def _check(spec: str) -> None:
    build_part("log", json.loads(spec), prefix="")


def open_logger(spec: Mapping[str, Any] | None) -> Logger:
    """The logger that a config describes; one that drops everything for None.

    Raises:
        UserError: for an option that the logger refuses.
    """
    return Logger() if spec is None else Guarded(build_part("log", spec, prefix=""))

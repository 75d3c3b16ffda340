"""Where a cell logs to, beside its own folder. ``log=none`` logs nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.build import build_part


class Logger:
    """A sink for one cell's records; this one drops them. A sink never stops a cell."""

    def start(self, config: Mapping[str, Any], manifest: Mapping[str, Any], resumed: bool) -> None:
        """The cell begins, or goes on from a checkpoint."""

    def row(self, row: Mapping[str, Any]) -> None:
        """An evaluation."""

    def finish(self, summary: Mapping[str, Any]) -> None:
        """The cell has ended."""


def open_logger(spec: Mapping[str, Any] | None) -> Logger:
    """The logger that a config describes; one that drops everything for None."""
    return Logger() if spec is None else build_part("log", spec, prefix="")

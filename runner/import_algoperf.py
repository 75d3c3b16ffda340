"""The earlier name of :mod:`runner.import_logs`."""

from __future__ import annotations

import sys

from runner.base.cli import leave
from runner.import_logs import load, main, save

__all__ = ["load", "main", "save"]


def command() -> int:
    """Import, after a word on the new name."""
    print("runner.import_algoperf is now runner.import_logs", file=sys.stderr)
    return main()


if __name__ == "__main__":
    leave(command)

"""``report.html``: everything about an experiment on one page, with its figures as SVG beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # pandas takes half a second, which a mistyped option need not cost
    from runner.boards.board import Board
    from runner.boards.inputs import Inputs
    from runner.boards.rules import Rules


def write(inputs: Inputs, made: Sequence[Board], rules: Rules | None = None, reason: str = "") -> Path:
    """Write the report of tables at hand and their boards; see :func:`runner.report.build.write`."""
    from runner.report import build

    return build.write(inputs, made, rules, reason)


def write_folder(folder: Path, by: str | None = None, mixed: bool = False) -> Path:
    """Read a folder and write its report; see :func:`runner.report.build.write_folder`."""
    from runner.report import build

    return build.write_folder(folder, by, mixed)

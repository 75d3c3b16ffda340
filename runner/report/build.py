"""From tables and boards to ``report.html`` and its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from runner.base.errors import UserError
from runner.base.files import write_text
from runner.boards.board import Board, boards
from runner.boards.inputs import Inputs, read, writing
from runner.boards.rules import Rules, unit_of
from runner.report.html import Html
from runner.report.material import gather
from runner.report.page import page
from runner.report.svg import standalone

PAGE, FIGURES = "report.html", "report"
OURS = '<svg xmlns="http://www.w3.org/2000/svg" class="chart"'  # how our figures begin


def write(inputs: Inputs, made: Sequence[Board], rules: Rules | None = None, reason: str = "") -> Path:
    """Write ``report.html`` beside the tables, and its figures into ``report/``.

    Args:
        inputs: the tables, as :func:`runner.boards.inputs.read` gives them.
        made: their boards; none where none could be made.
        rules: of the boards; theirs by default.
        reason: why there is no board.

    Returns:
        The page.

    Raises:
        UserError: where the folder cannot be written.
    """
    rules = rules or (made[0].rules if made else inputs.rules or inputs.defaults)
    material = gather(_disputed(inputs), _marked(inputs, made), rules, reason)
    text = page(material)
    with writing(inputs.folder):
        _write_figures(inputs.folder / FIGURES, material.figures)
        write_text(inputs.folder / PAGE, text)
    return inputs.folder / PAGE


def write_folder(folder: Path, by: str | None = None, mixed: bool = False) -> Path:
    """Read a folder, make its boards where that can be done, and write the report.

    Args:
        folder: an experiment, an import or a published board.
        by: the unit that is compared; samples by default, seconds for imported logs.
        mixed: rank cells that cannot be compared all the same.

    Raises:
        UserError: where there is nothing to report on, or it cannot be written.
    """
    inputs = read(folder)
    rules = inputs.rules or inputs.defaults
    if inputs.rules is None or by is not None:
        rules = replace(rules, by=unit_of(inputs.cells, by, inputs.imported))
    rules = replace(rules, mixed=rules.mixed or mixed)
    try:
        made, reason = boards(inputs.cells, rules, inputs.sources, inputs.workloads), ""
    except UserError as error:
        made, reason = [], str(error)
    return write(inputs, made, made[0].rules if made else rules, reason)


def _disputed(inputs: Inputs) -> Inputs:
    """With what reruns of a published board's cells disagreed on."""
    if inputs.kind != "published":
        return inputs
    from runner.boards.publish import disputes

    return replace(inputs, headline=[*inputs.headline, *disputes(inputs.folder)])


def _marked(inputs: Inputs, made: Sequence[Board]) -> list[Board]:
    if inputs.kind != "published":
        return list(made)
    from runner.boards.publish import disputed

    return [replace(board, marks=dict.fromkeys(disputed(inputs.folder), "disputed")) for board in made]


def _write_figures(folder: Path, figures: Mapping[str, Html]) -> None:
    """One file per figure; those of an earlier report that are no longer there go."""
    folder.mkdir(exist_ok=True)
    for name, drawing in figures.items():
        # Not flushed one by one: that is most of the time on a slow disk, and they can be drawn again.
        (folder / f"{name}.svg").write_text(standalone(drawing), encoding="utf-8")
    for path in folder.glob("*.svg"):
        if path.stem not in figures and path.read_text(encoding="utf-8", errors="replace").startswith(OURS):
            path.unlink()

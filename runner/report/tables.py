"""Tables on the page: sortable, numbers to the right, every cell with its value for machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runner.report.html import Html, el, number


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        name: its heading.
        key: what the CSV calls it; empty where it is in none.
        numeric: set to the right, in figures of equal width.
        hint: shown when pointed at.
    """

    name: str
    key: str = ""
    numeric: bool = True
    hint: str = ""


def word(name: str, key: str = "", hint: str = "") -> Column:
    """A column of words."""
    return Column(name, key, numeric=False, hint=hint)


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        shown: words or markup.
        value: what it is sorted by; the words where there is none.
        css: class.
        title: shown when pointed at.
    """

    shown: Any
    value: Any = None
    css: str = ""
    title: str = ""


def table(
    columns: Sequence[Column], lines: Sequence[Sequence[Any]], caption: str = "", name: int = 0,
    css: str = "", sortable: bool = True,
) -> Html:  # fmt: skip
    """A table in a box of its own, which scrolls where it is too wide.

    Args:
        columns: headings.
        lines: rows of :class:`Cell`, words or markup.
        caption: above it.
        name: the column that names a row.
        css: class.
        sortable: by clicking on a heading.
    """
    if not lines:
        return none(f"{caption or 'a table'}: there is nothing to list")
    head = el("tr", [_head(column, sortable) for column in columns])
    body = [el("tr", [_cell(c, columns[k], k == name) for k, c in enumerate(line)]) for line in lines]
    inside = el(
        "table", el("thead", head), el("tbody", body), class_=f"{'sortable ' * sortable}{css}".strip() or None
    )
    box = el("div", inside, class_="scroll", role="region", tabindex="0", aria_label=caption or "table")
    return el("div", el("p", caption, class_="caption"), box) if caption else box


def _head(column: Column, sortable: bool) -> Html:
    shown = el("button", column.name, type="button") if sortable and column.name else column.name
    return el(
        "th", shown, scope="col", class_="num" if column.numeric else None, data_key=column.key or None,
        title=column.hint or None, aria_sort="none" if sortable and column.name else None,
    )  # fmt: skip


def _cell(cell: Any, column: Column, names: bool) -> Html:
    cell = cell if isinstance(cell, Cell) else Cell(cell)
    css = f"{'num ' * column.numeric}{cell.css}".strip()
    value = None if cell.value is None else number(cell.value)
    return el(
        "th" if names else "td", cell.shown, scope="row" if names else None, class_=css or None,
        data_v=value, title=cell.title or None,
    )  # fmt: skip


def facts(pairs: Sequence[tuple[str, Any]]) -> Html:
    """Names and what they are."""
    lines = [[el("dt", name), el("dd", value)] for name, value in pairs]
    return el("dl", lines, class_="facts")


def none(reason: str) -> Html:
    """Why there is nothing here."""
    return el("p", reason[:1].upper() + reason[1:], "" if reason.endswith(".") else ".", class_="none")


def code(command: str) -> Html:
    """A command."""
    return el("code", command, class_="command")


def line_with_command(line: str) -> Html:
    """A line of which the part after the last ``: python`` is a command."""
    said, mark, command = line.rpartition(": python ")
    return el("li", said, ":", code(f"python {command}")) if mark else el("li", line)


def folded(summary: str | Html, *children: Any, opened: bool = False) -> Html:
    """What is shown when asked for."""
    return el("details", el("summary", summary), *children, open=opened)

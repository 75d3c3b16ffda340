"""Leaderboards on a terminal and in Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from runner.boards.board import Board
from runner.boards.sheets import Sheet, sheets_of

LEAST = 10  # columns for labels
USUAL = 80  # columns of a terminal
HEADER = 9  # columns of a line of a header
READING = (
    "On each workload, an algorithm that takes r times as long as the fastest earns (4 − r) / 3; the fastest "
    "earns 1. The score is the mean over workloads, and its interval comes from resampling studies. “rank "
    "stability”: share of the resamples in which the rank stays the same. “leave-one-out”: share of the "
    "leaderboards, each without one other algorithm, on which it keeps its place among the rest. "
    "“≈”: not separable from the next row (`python -m runner.compare`). “spread”: fastest to slowest study. "
    "“studies” and “cells”: how many hit the target. “reached”: the best validation value of each study's "
    "scored run (its fastest hit, or else its best trial); median over studies. “samples” and “seconds” "
    "under “Uncertainty and cost”: total over all cells, including unfinished ones."
)


def show(made: Sequence[Board], top: Iterable[str], end: Iterable[str], console: Console) -> None:
    """Print the leaderboards: caveats first, then each table, then the commands that fill gaps."""
    for line in top:
        console.print(line, style="bold yellow", markup=False, soft_wrap=True)
    for board in made:
        if len(made) > 1 or board.ruleset or board.open_division:
            title = f"On {board.title}"
            console.print(f"\n{title}", style="bold underline", markup=False, soft_wrap=True)
        for line in board.notices:
            console.print(line, style="yellow", markup=False, soft_wrap=True)
        for sheet in sheets_of(board):
            console.print(_rich(sheet, console))
    for line in end:
        console.print(line, markup=False, soft_wrap=True)


def markdown(title: str, made: Sequence[Board], top: Iterable[str], end: Iterable[str]) -> str:
    """Leaderboards as a Markdown page; the same tables always give the same text."""
    lines = [f"# {_words(title)}", ""]
    lines += [f"> **{_words(line)}**\n" for line in top]
    for board in made:
        lines += [f"## On {_words(board.title)}", ""]
        lines += [f"> {_words(line)}\n" for line in board.notices]
        for sheet in sheets_of(board):
            lines += [*_pipes(sheet), ""]
    lines += [READING.replace("(4 − r) / 3", _worth(made)), ""]
    if end := list(end):
        lines += ["## Missing cells", "", *(f"- {_code(line)}" for line in end), ""]
    return "\n".join(lines).rstrip() + "\n"


def _worth(made: Sequence[Board]) -> str:
    limits = {board.rules.tau_max for board in made}
    limit = next(iter(limits)) if len(limits) == 1 else 4.0
    return f"({limit:g} − r) / {limit - 1:g}"


def _rich(sheet: Sheet, console: Console) -> Table:
    style = box.SIMPLE_HEAD if console.is_terminal else box.ASCII2
    table = Table(
        title=Text(sheet.title), title_justify="left", title_style="bold", box=style, pad_edge=False
    )
    for place, name in enumerate(sheet.columns):
        if place == 1:
            table.add_column(Text(name), overflow="fold", min_width=LEAST)
        else:
            # Numbers are only wrapped once the labels cannot shrink any further.
            widest = max((cell_len(row[place]) for row in sheet.rows), default=0)
            least = widest if console.width >= USUAL else None
            table.add_column(Text(_wrapped(name)), justify="right", min_width=least, overflow="fold")
    for row in sheet.rows:
        table.add_row(*map(Text, row))
    return table


def _wrapped(header: str) -> str:
    """A long header on several lines, which leaves the room to the labels."""
    return "\n".join(textwrap.wrap(header, HEADER, break_long_words=False))


def _pipes(sheet: Sheet) -> list[str]:
    lines = [f"### {_words(sheet.title)}", "", _row(sheet.columns)]
    lines.append("|" + "|".join("---" if place == 1 else "--:" for place in range(len(sheet.columns))) + "|")
    return lines + [_row(row) for row in sheet.rows]


def _row(words: Iterable[str]) -> str:
    return "| " + " | ".join(_words(word) for word in words) + " |"


def _words(text: str) -> str:
    """Text that Markdown takes as it is: on one line, nothing of it markup."""
    flat = " ".join(str(text).split())
    for mark in ("\\", "|", "*", "_", "`", "<", "[", "#"):
        flat = flat.replace(mark, f"\\{mark}" if mark != "<" else "&lt;")
    return flat


def _code(line: str) -> str:
    """A line of which the part after the last ``: python`` is a command."""
    said, mark, command = line.rpartition(": python ")
    flat = " ".join(command.split())
    fence = "`` " if "`" in flat else "`"  # a label may hold a backtick
    return f"{_words(said)}: {fence}python {flat}{fence[::-1]}" if mark else _words(line)

"""What boards are made from: cells' folders, imported tables, or a published board."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from runner.base.errors import UserError, one_line
from runner.base.files import read_json, write_atomic, write_text
from runner.base.unpack import check_table
from runner.boards.board import Board, flat
from runner.boards.gaps import Gaps, gaps
from runner.boards.render import markdown
from runner.boards.rules import Rules
from runner.cells.survey import place
from runner.cells.tables import BOARD, IMPORTED, csv_text, load
from runner.contract.records import FINISHED, CellFolder

Kind = Literal["experiment", "imported", "published"]
MANIFEST = "manifest.json"
RECORD = ("name", "version", "history", "rules", "boards", "targets", "cells", "headline", "missing")
NEEDED = ("id", "workload", "label", "study", "trial", "status", "best_metric")


@dataclass
class Inputs:
    """Tables and what is known of them besides.

    Attributes:
        folder: where they are.
        kind: what that is.
        cells, evals: the tables.
        sources: a cell's ``source`` -> module -> hash.
        headline: what a board made from them has to say at its top.
        missing: what is missing, with commands.
        lasting: the same, but for what is true of today's source alone.
        imported: whether they come from AlgoPerf's logs.
        rules: of a published board; None otherwise.
        workloads: title -> workloads, of a published board.
        record: the rest of a published board's file.
    """

    folder: Path
    kind: Kind
    cells: pd.DataFrame
    evals: pd.DataFrame
    sources: dict[str, dict[str, str]] = field(default_factory=dict)
    headline: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    lasting: Gaps | None = None
    imported: bool = False
    rules: Rules | None = None
    workloads: dict[str, list[str]] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the experiment."""
        return self.folder.resolve().name

    @property
    def defaults(self) -> Rules:
        """The rules where nobody asked for others."""
        return Rules()


def read(folder: Path) -> Inputs:
    """Read whatever lies there.

    Raises:
        UserError: where that is nothing to score, or damaged.
    """
    if (folder / BOARD).is_file():
        return _published(folder)
    if (folder / IMPORTED).is_file():
        return _imported(folder)
    cells, evals = load(folder if not folder.is_dir() else _experiment(folder))
    found = gaps(folder, cells)
    return Inputs(
        folder, "experiment", cells, evals, sources_of(folder, cells), found.headline, found.lines,
        found.lasting(),
    )  # fmt: skip


def _experiment(folder: Path) -> Path:
    """The folder, unless it is one cell's."""
    if folder.resolve().parent.name == "cells":
        experiment, name = place(folder)
        raise UserError(f"{folder} is the folder of one cell, {name}: pass its experiment, {experiment}")
    return folder


def sources_of(experiment: Path, cells: pd.DataFrame) -> dict[str, dict[str, str]]:
    """A cell's ``source`` -> module -> hash, from one manifest of each."""
    found = {}
    first = cells.dropna(subset=["source"]).drop_duplicates("source")
    for source, folder in zip(first["source"], first["folder"], strict=True):
        modules = CellFolder(experiment / "cells" / folder).manifest().get("sources")
        if isinstance(modules, dict):
            found[source] = modules
    return found


def write_tables(inputs: Inputs) -> None:
    """``cells.csv``, ``cells.parquet`` and ``evals.parquet`` into the experiment's folder.

    Raises:
        UserError: where it cannot be written.
    """
    with writing(inputs.folder):
        write_csv(inputs.folder / "cells.csv", inputs.cells)
        write_parquet(inputs.folder / "cells.parquet", inputs.cells)
        write_parquet(inputs.folder / "evals.parquet", inputs.evals)


def write_boards(inputs: Inputs, made: Sequence[Board]) -> None:
    """``leaderboard.csv`` and ``leaderboard.md``.

    Raises:
        UserError: where the folder cannot be written.
    """
    page = markdown(inputs.name, made, inputs.headline, inputs.missing)
    with writing(inputs.folder):
        write_csv(inputs.folder / "leaderboard.csv", flat(made))
        write_text(inputs.folder / "leaderboard.md", page)


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """The frame as CSV for spreadsheets, in one step."""
    text = csv_text(frame)
    write_atomic(path, lambda file: file.write(text.encode()))


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    """The frame as Parquet, in one step."""
    write_atomic(path, lambda file: frame.to_parquet(file, index=False, compression="zstd"))


def read_parquet(path: Path) -> pd.DataFrame:
    """A table.

    Raises:
        UserError: where it is absent or damaged.
    """
    try:
        check_table(path)
        return pd.read_parquet(path)
    except UserError:
        raise
    except Exception as error:  # what a damaged file brings about depends on where it is damaged
        raise UserError(f"{path} cannot be read: {one_line(str(error))}") from error


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """What the system refuses to write becomes one line."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}") from error


def require(cells: pd.DataFrame, where: Path) -> pd.DataFrame:
    """The table, if it has the columns that a board cannot do without, and ids that name no file.

    Raises:
        UserError: where it has not.
    """
    if absent := [name for name in NEEDED if name not in cells]:
        raise UserError(f"{where}: the table of cells has no column {' and '.join(absent)}")
    for name in map(str, cells["id"]):
        if not name or name.startswith(".") or "/" in name:
            raise UserError(f"{where}: {one_line(name, 40)!r} is a path, not a cell id")
    return cells


def _imported(folder: Path) -> Inputs:
    cells, evals = load(folder)
    require(cells, folder)
    failed = sum(status not in FINISHED for status in cells["status"])
    note = (
        [f"{failed:,} of {len(cells):,} imported trials have no evaluations and are ignored"]
        if failed
        else []
    )
    record = read_json(folder / IMPORTED) or {}
    return Inputs(
        folder, "imported", cells, evals, headline=note, imported=record.get("format") == "algoperf"
    )


def _published(folder: Path) -> Inputs:
    record = read_json(folder / BOARD)
    if record is None:
        raise UserError(f"{folder / BOARD} is damaged")
    manifest = read_json(folder / MANIFEST)
    if manifest is None:
        raise UserError(f"{folder / MANIFEST} is damaged")
    if lacking := [key for key in RECORD if key not in record]:
        raise UserError(f"{folder / BOARD} is damaged: it has no {' and '.join(lacking)}")
    try:
        return Inputs(
            folder, "published", require(read_parquet(folder / "cells.parquet"), folder),
            read_parquet(folder / "evals.parquet"),
            sources=manifest.get("sources", {}), headline=[*map(str, record["headline"])],
            missing=[*map(str, record["missing"])], imported=record["imported"],
            rules=Rules.from_dict(record["rules"]),
            workloads={part["title"]: [*part["goals"]] for part in record["boards"]}, record=record,
        )  # fmt: skip
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{folder / BOARD} is damaged: {one_line(repr(error))}") from error


def as_json(value: Any) -> str:
    """Plain data, in one fixed spelling."""
    return json.dumps(value, indent=1, sort_keys=False, default=str) + "\n"


def goals_of(made: Sequence[Board]) -> list[Mapping[str, Any]]:
    """What a published board freezes of each part."""
    plain = [
        {name: {key: getattr(value, "item", lambda v=value: v)() for key, value in goal.items()}
         for name, goal in board.goals.items()}
        for board in made
    ]  # fmt: skip
    return [{"title": board.title, "goals": goals} for board, goals in zip(made, plain, strict=True)]

"""What a report is made of: tables, boards, and what the cells' folders say besides."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from runner.base.files import read_json
from runner.boards.board import Board
from runner.boards.inputs import Inputs
from runner.boards.rules import Rules
from runner.compose.commands import config_words
from runner.compose.overrides import name_of
from runner.contract.records import FINISHED, CellFolder
from runner.report.findings import Findings
from runner.report.html import Html, el
from runner.report.palette import Mark
from runner.stats.comparable import Part, parts

Record = dict[str, Any]
NO_FOLDERS = "imported tables hold results alone: no configs"


@dataclass(frozen=True)
class Group:
    """Cells of one board, whether or not it could be made.

    Attributes:
        part: the cells, and what kind they are.
        board: their board; None where there is none.
        reason: why there is none.
        marks: the algorithms, best first where there is a board, by name otherwise.
        findings: statistics of the cells.
    """

    part: Part
    board: Board | None
    reason: str
    marks: list[Mark]
    findings: Findings

    @property
    def cells(self) -> pd.DataFrame:
        """All cells, unfinished ones included."""
        return self.part.cells

    @property
    def title(self) -> str:
        """``embedded data, external tuning``."""
        return self.part.title

    @functools.cached_property
    def workloads(self) -> list[str]:
        """Those on the board first."""
        ranked = [] if self.board is None else list(self.board.goals)
        return ranked + sorted({str(name) for name in self.cells["workload"].unique()} - set(ranked))

    @property
    def finished(self) -> pd.DataFrame:
        """The cells that have ended."""
        return self.cells.loc[self.cells["status"].isin(list(FINISHED))]


@dataclass
class Material:
    """Everything that sections are made of; figures are noted as they are drawn.

    Attributes:
        inputs: tables.
        rules: how boards were, or would have been, scored.
        groups: the tables cut as boards are.
        configs: of one cell of each algorithm and of each workload, where they are kept.
        overrides: label -> the words of a command that make the algorithm.
        origin: how the numbers were made, each kind with its number of cells.
        figures: file name -> drawing.
    """

    inputs: Inputs
    rules: Rules
    groups: list[Group]
    configs: dict[tuple[str, str], Record] = field(default_factory=dict)
    overrides: dict[str, list[str]] = field(default_factory=dict)
    origin: Record = field(default_factory=dict)
    figures: dict[str, Html] = field(default_factory=dict)

    def figure(self, name: str, drawing: Html, caption: str | Html = "") -> Html:
        """The drawing on the page; the file of that name will hold it too."""
        from runner.compose.labels import slug

        base = slug(name, 100)
        name = base if base not in self.figures else f"{base}-{len(self.figures)}"
        self.figures[name] = drawing
        return el("figure", drawing, el("figcaption", caption) if caption else None)

    @property
    def spaces(self) -> dict[str, Mapping[str, Mapping[str, Any]]]:
        """Label -> its search space, where its config says so."""
        found: dict[str, Mapping[str, Mapping[str, Any]]] = {}
        for (_, label), config in self.configs.items():
            space = config.get("search_space")
            if isinstance(space, Mapping) and all(isinstance(one, Mapping) for one in space.values()):
                found.setdefault(label, space)
        return found

    def each(self) -> Iterator[tuple[Group, list[Html]]]:
        """The groups, each with its heading where there are several."""
        for group in self.groups:
            yield group, [el("h3", f"On {group.title}")] if len(self.groups) > 1 else []


def gather(inputs: Inputs, made: Sequence[Board], rules: Rules, reason: str = "") -> Material:
    """Read what is needed besides the tables.

    Args:
        inputs: the tables.
        made: their boards.
        rules: of the boards.
        reason: why there is no board, where there is none.
    """
    found = Material(inputs, rules, [])
    with contextlib.suppress(OSError):  # what cannot be read is said to be absent
        _read(found)
    known = {(board.data, board.ruleset, board.open_division): board for board in made}
    for part in parts(inputs.cells, rules.together):
        found.groups.append(
            _group(found, part, known.get((part.data, part.ruleset, part.open_division)), reason)
        )
    found.groups.sort(key=lambda group: group.board is None)
    return found


def _group(found: Material, part: Part, board: Board | None, reason: str) -> Group:
    why = "" if board is not None else reason or "no finished cell of these has a target"
    marks = _marks(part, board)
    inputs, order = found.inputs, [mark.label for mark in marks]
    evals = inputs.evals
    evals = evals.loc[evals["id"].isin(part.cells["id"])] if "id" in evals else evals
    rules = found.rules if board is None else board.rules
    name = inputs.folder if inputs.kind == "experiment" else None
    findings = Findings(part.cells, evals, rules, order, found.spaces, found.overrides, name)
    return Group(part, board, why, marks, findings)


def _marks(part: Part, board: Board | None) -> list[Mark]:
    ranks = (
        {}
        if board is None
        else dict(zip(map(str, board.ranking["label"]), board.ranking["rank"], strict=True))
    )
    labels = [*ranks, *sorted({str(label) for label in part.cells["label"]} - set(ranks))]
    return [Mark(label, place, _rank(label, ranks)) for place, label in enumerate(labels)]


def _rank(label: str, ranks: Mapping[str, int]) -> str:
    """``3``; ``4a`` and ``4b`` where two share the fourth."""
    if label not in ranks:
        return ""
    equals = [other for other, rank in ranks.items() if rank == ranks[label]]
    place = equals.index(label)
    return f"{ranks[label]}{chr(ord('a') + place) if len(equals) > 1 and place < 26 else ''}"


# -- configs and manifests ------------------------------------------------------------------------


def _read(found: Material) -> None:
    inputs = found.inputs
    if inputs.kind == "experiment" and "folder" in inputs.cells:
        _read_experiment(found)
    elif inputs.kind == "published":
        _read_published(found)
    elif record := read_json(inputs.folder / "imported.json"):
        found.origin = {"import": [{"value": record, "cells": len(inputs.cells)}]}


def _read_experiment(found: Material) -> None:
    cells = found.inputs.cells
    folders = {name: CellFolder(found.inputs.folder / "cells" / name) for name in map(str, cells["folder"])}
    manifests = {name: folder.manifest() for name, folder in folders.items()}  # one folder per cell
    for row in _examples(cells):
        folder, place = str(row["folder"]), (str(row["workload"]), str(row["label"]))
        with contextlib.suppress(Exception):  # damaged YAML can fail anywhere: then it is not shown
            config = folders[folder].config()
            found.configs |= {place: config} if isinstance(config, dict) else {}
        own = _of_algorithm(manifests[folder].get("overrides"))
        found.overrides.setdefault(place[1], [*config_words(manifests[folder]), *own] if own else [])
    found.overrides = {label: own for label, own in found.overrides.items() if own}
    found.origin = _origin(list(manifests.values()))
    pairs = zip(map(str, cells["workload"]), map(str, cells["folder"]), strict=True)
    found.origin["data"] = _data(
        {name: manifests[cell] for name, cell in pairs if manifests[cell].get("data")}
    )


def _read_published(found: Material) -> None:
    from runner.base.errors import UserError
    from runner.boards.publish import configs

    with contextlib.suppress(UserError):
        by_id = configs(found.inputs.folder)
        for row in _examples(found.inputs.cells):
            if isinstance(config := by_id.get(str(row["id"])), dict):
                found.configs[str(row["workload"]), str(row["label"])] = config
    record = read_json(found.inputs.folder / "manifest.json") or {}
    found.origin = {key: value for key, value in record.items() if key != "sources"}
    if isinstance(data := found.origin.get("data"), Mapping):
        found.origin["data"] = _data({name: {"data": value} for name, value in data.items()})


def _examples(cells: pd.DataFrame) -> list[Record]:
    """One cell of each algorithm and one of each workload, finished ones first."""
    order = cells.assign(late=~cells["status"].isin(list(FINISHED))).sort_values("late", kind="stable")
    first = pd.concat([order.drop_duplicates("label"), order.drop_duplicates("workload")])
    return [{str(k): v for k, v in row.items()} for row in first.drop_duplicates("id").to_dict("records")]


def _of_algorithm(overrides: Any) -> list[str]:
    listed = [str(one) for one in overrides] if isinstance(overrides, list) else []
    return [one for one in listed if name_of(one).replace("/", ".").partition(".")[0] == "algorithm"]


def _origin(manifests: Sequence[Mapping[str, Any]]) -> Record:
    names = {
        "commits": "git", "machines": "hardware", "threads": "threads", "python": "python",
        "packages": "packages",
    }  # fmt: skip
    return {name: counted(manifest.get(key) for manifest in manifests) for name, key in names.items()}


def counted(values: Iterator[Any] | Sequence[Any]) -> list[Record]:
    """Each different value and how many cells have it, most frequent first."""
    kinds: dict[str, Record] = {}
    for value in values:
        if value is not None:
            kinds.setdefault(repr(value), {"value": value, "cells": 0})["cells"] += 1
    return sorted(kinds.values(), key=lambda kind: -kind["cells"])


def _data(manifests: Mapping[str, Any]) -> list[Record]:
    """Workload and the checksums of its data."""
    pairs = ((name, manifest.get("data")) for name, manifest in manifests.items())
    return [
        {"value": data, "workload": name}
        for name, data in sorted(pairs)
        if isinstance(data, Mapping) and data
    ]


# -- small readings of the tables -------------------------------------------------------------------


def numbers(frame: pd.DataFrame, column: str) -> np.ndarray:
    """A column as floats; NaN where it is absent or holds none."""
    if column not in frame:
        return np.full(len(frame), np.nan)
    values: Any = pd.to_numeric(frame[column], errors="coerce")
    return values.to_numpy("float64", na_value=np.nan)


def rows(frame: pd.DataFrame) -> list[Record]:
    """A table as records."""
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def by_label(frame: pd.DataFrame, marks: Sequence[Mark]) -> dict[Mark, np.ndarray]:
    """Of each algorithm that has rows: where they are."""
    places = frame.groupby("label", sort=False).indices
    return {mark: places[mark.label] for mark in marks if mark.label in places}


def first(frame: pd.DataFrame, column: str) -> Any:
    """The first value of a column that is there; None without one."""
    known = frame[column].dropna().tolist() if column in frame else []
    return known[0] if known else None

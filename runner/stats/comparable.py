"""Which cells may share a board, and which cannot and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from runner.cells.tables import OF_GPU
from runner.contract.records import FINISHED

SAME = (
    "metric",
    "minimize",
    "target",
    "budget",
    "data_checksum",
    "precision",
)  # on one workload, whatever the unit
MACHINE = ("device", "hardware", *OF_GPU, "threads")  # on one workload, where seconds are compared
NAMED = 3  # cells of a kind that a message names


@dataclass(frozen=True)
class Part:
    """Cells of one board: results of different kinds never share one.

    Attributes:
        data: kind of data: ``embedded``, ``real``, …
        ruleset: under whose rules; empty for a plain grid.
        open_division: algorithms that change the model, too.
        cells: their rows.
    """

    data: str
    ruleset: str
    open_division: bool
    cells: pd.DataFrame = field(compare=False, repr=False)

    @property
    def title(self) -> str:
        """``embedded data, external tuning``."""
        rules = f", {self.ruleset.replace('_', ' ')}" if self.ruleset else ""
        return f"{self.data} data{rules}{', open division' if self.open_division else ''}"


@dataclass(frozen=True)
class Difference:
    """What cells of one board do not have in common.

    Attributes:
        what: a column, or a module of the project's source.
        workload: where; empty for the whole board.
        cells: value -> titles of the cells that have it.
        machine: seconds alone are made unlike by it.
    """

    what: str
    workload: str
    cells: Mapping[str, list[str]]
    machine: bool = False

    def __str__(self) -> str:
        kinds = [f"{value} ({_some(titles)})" for value, titles in self.cells.items()]
        where = f" of {self.workload}" if self.workload else ""
        return f"{self.what}{where} is {' and '.join(kinds)}"


def parts(cells: pd.DataFrame, together: bool = False) -> list[Part]:
    """The table cut where results may never share a board: by kind of data, ruleset and division.

    A cell that has not finished does not say its division: it goes where its label's others are.

    Args:
        cells: the ``cells`` table.
        together: the open division shares the board of the closed one.
    """
    opened = [] if together else names(cells.loc[flags(cells, "open_division")], "label")
    data, ruleset = _mapped(cells, "data", data_kind), _mapped(cells, "ruleset", _word)
    kinds = pd.DataFrame({"data": data, "ruleset": ruleset, "open": cells["label"].isin(opened).to_numpy()})
    found: dict[Any, Any] = dict(kinds.groupby(list(kinds)).indices)  # kind -> places of its rows
    return [Part(str(d), str(r), bool(o), cells.iloc[rows]) for (d, r, o), rows in sorted(found.items())]


def data_kind(data: Any) -> str:
    """What a board is made of: ``embedded`` (what comes with the project, drawn or shipped), ``real``, …"""
    if absent(data):
        return "unknown"
    return "embedded" if data == "synthetic" else str(data)


def differences(
    cells: pd.DataFrame, by: str = "samples", sources: Mapping[str, Mapping[str, str]] | None = None
) -> list[Difference]:
    """Why the finished cells of a board are not comparable; empty where they are.

    What a column does not say is no difference.

    Args:
        cells: rows of one board.
        by: the unit that it compares. Seconds need one kind of machine, steps one batch size.
        sources: a cell's ``source`` -> module -> hash; modules that two cells share must be the same.
    """
    rows = cells.loc[cells["status"].isin(list(FINISHED))]
    found = [*_mixed(rows, "targets", "")]
    machine = MACHINE if by == "seconds" else ()
    for workload, own in rows.groupby("workload"):
        for what in SAME:
            found += _mixed(own, what, str(workload))
        for what in machine:
            found += _mixed(own, what, str(workload), machine=True)
        if by == "steps":
            found += _mixed(own.assign(**{"batch size": _batch(own)}), "batch size", str(workload), True)
    if by == "seconds":
        found += _contended(rows)
    return found + _sources(rows, sources or {})


def twins(cells: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """Places (workload · label · study · trial) that several finished cells claim, and their ids."""
    place = ["workload", "label", "study", "trial"]
    rows = cells.loc[cells["status"].isin(list(FINISHED))]
    rows = rows.loc[rows.duplicated(place, keep=False)].sort_values(place)
    ids: dict[str, list[str]] = {}
    for title, cell in zip(titles(rows), rows["id"], strict=True):
        ids.setdefault(title, []).append(str(cell))
    return [(title, sorted(set(own))) for title, own in ids.items()]


def titles(cells: pd.DataFrame) -> list[str]:
    """``digits · lion · study 0 · trial 1`` of every row."""
    rows = zip(*(cells[key] for key in ("workload", "label", "study", "trial")), strict=True)
    return [f"{workload} · {label} · study {study} · trial {trial}" for workload, label, study, trial in rows]


def flags(cells: pd.DataFrame, name: str) -> np.ndarray:
    """A column of yes and no, where what is absent is no."""
    return _mapped(cells, name, lambda value: not absent(value) and bool(value)).astype(bool)


def names(cells: pd.DataFrame, column: str) -> list[str]:
    """What a column holds, each once, sorted."""
    return sorted(map(str, cells[column].unique()))


def absent(value: Any) -> bool:
    """Whether a cell of a table says nothing."""
    return value is None or value is pd.NA or value != value


def _mixed(cells: pd.DataFrame, what: str, workload: str, machine: bool = False) -> list[Difference]:
    if what not in cells:
        return []
    known = cells.loc[cells[what].notna()]
    if known[what].nunique() < 2:
        return []
    values = {_spelled(value): titles(own) for value, own in known.groupby(what, sort=True)}
    return [Difference(what, workload, values, machine)]


def _contended(cells: pd.DataFrame) -> list[Difference]:
    if "contended" not in cells:
        return []
    starved = cells.loc[flags(cells, "contended")]
    return [Difference("contended", "", {"true": titles(starved)}, machine=True)] if len(starved) else []


def _sources(cells: pd.DataFrame, sources: Mapping[str, Mapping[str, str]]) -> list[Difference]:
    if "source" not in cells:
        return []
    known = [str(source) for source in cells["source"].dropna().unique() if str(source) in sources]
    versions: dict[str, dict[str, list[str]]] = {}
    for source in known:
        for module, value in sources[source].items():
            versions.setdefault(module, {}).setdefault(value, []).append(source)
    several = {module: kinds for module, kinds in sorted(versions.items()) if len(kinds) > 1}
    if not several:
        return []
    module, kinds = next(iter(several.items()))
    values = {value[:8]: titles(cells.loc[cells["source"].isin(own)]) for value, own in kinds.items()}
    more = f" and {len(several) - 1} more" if len(several) > 1 else ""
    return [Difference(f"source ({module}{more})", "", values)]


def _batch(cells: pd.DataFrame) -> list[int | None]:
    """Rows drawn a step; a last step may be short."""
    pairs = zip(_column(cells, "drawn"), _column(cells, "steps"), strict=True)
    return [
        None if absent(drawn) or absent(steps) or not steps else round(drawn / steps)
        for drawn, steps in pairs
    ]


def _mapped(cells: pd.DataFrame, name: str, function: Callable[[Any], Any]) -> np.ndarray:
    """A function of each value of a column, absent ones included, called once for each distinct value."""
    if name not in cells:
        return np.full(len(cells), function(None), dtype=object)
    codes, values = pd.factorize(cells[name])
    return np.array([*map(function, values), function(None)], dtype=object)[codes]


def _word(value: Any) -> str:
    return "" if absent(value) else str(value)


def _column(cells: pd.DataFrame, name: str) -> Iterable[Any]:
    return list(cells[name]) if name in cells else [None] * len(cells)


def _spelled(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = f", and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return f"{len(names):,} cell{'s' * (len(names) != 1)}: {', '.join(names[:NAMED])}{more}"

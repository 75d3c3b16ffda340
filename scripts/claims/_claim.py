"""What a claim is: where it was made, the experiment that tries it, the evidence kept, and what that says."""

from __future__ import annotations

import csv
import importlib
import io
import json
import math
import pkgutil
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.base.errors import UserError, nearest
from runner.base.files import write_text
from runner.base.paths import ROOT
from runner.cells import tables

KEPT = ROOT / "results" / "claims"
FINISHED = ("done", "diverged")
Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A cell: its row of the cell table, and its rows of the evaluations by step."""

    cell: Row
    evals: list[Row]

    def setting(self, name: str, otherwise: float = math.nan) -> float:
        """A hyperparameter, of whichever part; the optimizer's where several have one."""
        found = [self.cell.get(f"hparam/{part}{name}") for part in ("", "optimizer.", "reweighting.")]
        return next((value for value in found if value is not None and value == value), otherwise)

    def along(self, column: str) -> list[float]:
        """The values of a column, where it was measured."""
        return [row[column] for row in self.evals if not math.isnan(row.get(column, math.nan))]


@dataclass(frozen=True)
class Claim:
    """One published claim.

    Attributes:
        name: of the experiment ``conf/experiment/claims/<name>.yaml`` and of the module.
        title: what was claimed, in a line.
        source: paper and what the wording rests on.
        evidence: the experiment's runs to the rows that are kept, one a line of a CSV.
        judge: those rows, numbers as numbers, to the section's Markdown; its first line is the verdict.
    """

    name: str
    title: str
    source: str
    evidence: Callable[[Sequence[Run]], Iterable[Row]]
    judge: Callable[[Sequence[Row]], str]

    @property
    def rows(self) -> Path:
        """The kept evidence."""
        return KEPT / f"{self.name}.csv"

    @property
    def facts(self) -> Path:
        """How it was made."""
        return KEPT / f"{self.name}.json"

    def keep(self, folder: Path) -> None:
        """Make the evidence of the experiment in ``folder``, and write it to where the project keeps it.

        Raises:
            UserError: when ``folder`` holds no cells, or some have not ended.
        """
        cells, evals = tables.load(folder)
        runs = {cell["id"]: Run(cell, []) for cell in cells.to_dict("records")}
        left = [run for run in runs.values() if run.cell["status"] not in FINISHED]
        if left:
            raise UserError(f"{folder}: {len(left)} of {len(runs)} cells have not ended; the claim needs all")
        for row in evals.sort_values("steps").to_dict("records"):
            runs[row["id"]].evals.append({str(key): value for key, value in row.items()})
        KEPT.mkdir(parents=True, exist_ok=True)
        write_text(self.rows, _to_csv(list(self.evidence(list(runs.values())))))
        write_text(self.facts, json.dumps(_facts([run.cell for run in runs.values()]), indent=1) + "\n")

    def section(self) -> str:
        """The claim's part of docs/claims.md, from the kept evidence.

        Raises:
            UserError: where none is kept.
        """
        if not self.rows.exists():
            raise UserError(f"no {self.rows}: run the experiment, then --keep its folder")
        facts = json.loads(self.facts.read_text(encoding="utf-8"))
        verdict, _, rest = self.judge(_from_csv(self.rows.read_text(encoding="utf-8"))).partition("\n")
        made = (
            f"{facts['cells']:,} cells, {facts['minutes']:,.0f} minutes of CPU time; {facts['hardware']}, "
            f"torch threads {facts['threads']}; commit {facts['commit']}."
        )
        lines = [f"## {self.title}", "", self.source, "", f"**{verdict}**", "", rest.strip(), ""]
        lines += [f"[Evidence](../results/claims/{self.rows.name}): {made}", "", "```"]
        lines += [f"python -m runner -m +experiment=claims/{self.name}"]
        lines += [
            f"python -m scripts.claims {self.name} --keep results/claims-{self.name} --write",
            "```",
            "",
        ]
        return "\n".join(lines)


def known() -> dict[str, Claim]:
    """Every claim by name: each module of this package that has a ``CLAIM``."""
    package = importlib.import_module("scripts.claims")
    names = sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))
    claims = [importlib.import_module(f"scripts.claims.{name}").CLAIM for name in names]
    return {claim.name: claim for claim in claims}


def by_name(name: str) -> Claim:
    """The claim of that name.

    Raises:
        UserError: when there is none.
    """
    claims = known()
    if name not in claims:
        raise UserError(f"unknown claim {name!r}: {nearest(name, list(claims))}")
    return claims[name]


# -- for the claims -----------------------------------------------------------------------------------


def grouped(rows: Iterable[Row], *keys: str) -> dict[Any, list[Row]]:
    """Rows by the value of a column, or by the tuple of several; in the order they first come in."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        values = tuple(row[key] for key in keys)
        found.setdefault(values if len(keys) > 1 else values[0], []).append(row)
    return found


def values(rows: Iterable[Row], column: str) -> list[float]:
    """A column."""
    return [row[column] for row in rows]


def mean(rows: Iterable[Row], column: str) -> float:
    """Its mean."""
    return statistics.fmean(values(rows, column))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; columns but the first to the right."""
    lines = ["| " + " | ".join(head) + " |", "|---" + "|--:" * (len(head) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def spread(numbers: Sequence[float], digits: int = 4) -> str:
    """``0.9732 (0.9710–0.9751)``: the mean and the range; the value alone where there is one."""
    if len(numbers) == 1:
        return f"{numbers[0]:.{digits}f}"
    return f"{statistics.fmean(numbers):.{digits}f} ({min(numbers):.{digits}f}–{max(numbers):.{digits}f})"


# -- files --------------------------------------------------------------------------------------------


def _to_csv(rows: Sequence[Row]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    return file.getvalue()


def _from_csv(text: str) -> list[Row]:
    return [{key: _value(value) for key, value in row.items()} for row in csv.DictReader(io.StringIO(text))]


def _value(text: str) -> Any:
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _facts(cells: Sequence[Row]) -> Row:
    def words(column: str) -> str:
        return ", ".join(sorted({str(cell[column]) for cell in cells}))

    return {
        "cells": len(cells),
        "minutes": round(sum(cell["cpu_seconds"] for cell in cells) / 60, 1),
        "hardware": words("hardware"),
        "threads": words("threads"),
        "commit": ", ".join(sorted({c["commit"][:10] + ("+" if c["dirty"] else "") for c in cells})),
        "contended": sum(cell["contended"] is True for cell in cells),
    }

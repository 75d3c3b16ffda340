"""What an experiment lacks, and the commands that fill it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from runner.cells.launches import Launch
from runner.cells.survey import DOUBTED, FAILED, LEFT, Seen, View, look
from runner.compose.commands import again, command, config_words, places
from runner.compose.overrides import name_of
from runner.contract.records import FINISHED, CellFolder
from runner.launch.display import plural
from runner.provenance.source import UNAVAILABLE
from runner.stats.comparable import parts, titles
from runner.stats.complete import blocks, holes, ranges

NAMED = 2  # cells of a kind that are named
STALE = "stale, source or data has changed since"
COMMANDS = 8  # that are printed
COUNTS, PLACES = ("study", "trial"), ("name", "results_dir")
NOT_FILLING = ("dry_run", "then")


@dataclass
class Gaps:
    """What is missing.

    Attributes:
        expected: how many cells a complete experiment has.
        counts: state, or ``missing`` -> number of cells.
        lines: what is missing and, after ``: python``, the command that fills it.
    """

    expected: int
    counts: dict[str, int] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    @property
    def headline(self) -> list[str]:
        """``incomplete: of 60 cells 12 are missing, 1 failed``; nothing where all is there."""
        wanting = {state: n for state, n in self.counts.items() if n}
        if not wanting:
            return []
        said = ", ".join(f"{n:,} {state}" for state, n in wanting.items())
        return [f"incomplete: of {self.expected:,} cells {said}"]

    def lasting(self) -> Gaps:
        """Without stale cells: that the source has changed since is a fact of today, not of the cells."""
        counts = {state: n for state, n in self.counts.items() if state != "stale"}
        lines = [line for line in self.lines if STALE not in line]
        return Gaps(self.expected, counts, lines)


def stale_command(lines: Iterable[str]) -> str:
    """The command that trains stale cells again, among the lines of what is missing; empty without any."""
    return next((line.rpartition(": ")[2] for line in lines if STALE in line), "")


def gaps(experiment: Path, cells: pd.DataFrame) -> Gaps:
    """What an experiment's folder lacks.

    Args:
        experiment: its folder.
        cells: its ``cells`` table.
    """
    view = look(experiment, check=True)
    missing, lines = _missing(view, cells)
    found = Gaps(len(view.cells) + missing, {"missing": missing}, lines)
    states: dict[str, list[Seen]] = {}
    censored = _censored(cells)
    for cell in view.cells:
        if cell.state not in (*FINISHED, UNAVAILABLE) and not (
            cell.state == "stopped" and cell.id in censored
        ):
            states.setdefault(
                "still to run" if cell.coming and cell.state in LEFT else cell.state, []
            ).append(cell)
    for state, own in states.items():
        found.counts[state] = len(own)
        found.lines.append(_unfinished(experiment, state, own))
    return found


def _censored(cells: pd.DataFrame) -> set[str]:
    """Ids of the stopped cells whose study has another trial that finished: the study has its time."""
    finished = cells.loc[cells["status"].isin(list(FINISHED))]
    studies = set(zip(finished["workload"], finished["label"], finished["study"], strict=True))
    stopped = cells.loc[cells["status"] == "stopped"]
    places = zip(stopped["id"], stopped["workload"], stopped["label"], stopped["study"], strict=True)
    return {str(name) for name, *study in places if tuple(study) in studies}


def _unfinished(experiment: Path, state: str, cells: Sequence[Seen]) -> str:
    said = STALE if state == "stale" else state
    what = f"{len(cells):,} {said} ({_some(cell.title for cell in cells)})"
    if state not in (*FAILED, *LEFT, *DOUBTED, "stopped"):
        return what
    return f"{what}: {command('runner.retry', experiment, '--states', state)}"


def _missing(view: View, cells: pd.DataFrame) -> tuple[int, list[str]]:
    """Cells that a launch asked for and never wrote, or those that the others' grid lacks; the larger."""
    asked, launched = _never_written(view)
    empty = pd.concat([holes(part.cells) for part in parts(cells)], ignore_index=True)
    if asked >= len(empty):
        return asked, launched
    return len(empty), _fill(view.experiment, cells, empty, launched)


def _never_written(view: View) -> tuple[int, list[str]]:
    there, number, lines = {cell.name for cell in view.cells}, 0, []
    for launch in _last_of_each_command(view.launched):
        names = launch.names()
        composed = launch.record.get("composed") or launch.alive()
        absent = len(set(names) - there) + (0 if composed else launch.record["grid"] - len(names))
        if absent > 0:
            number += absent
            what = plural(absent, "cell") + " never written, or deleted, by an interrupted launch"
            lines.append(f"{what}: {again(launch.record.get('command') or [])}")
    return number, lines


def _last_of_each_command(launched: Iterable[Launch]) -> list[Launch]:
    grids = [launch for launch in launched if isinstance(launch.record.get("grid"), int)]
    return list({tuple(launch.record.get("command", [])): launch for launch in grids}.values())


# -- places that no launch explains -----------------------------------------------------------------


def _fill(experiment: Path, cells: pd.DataFrame, empty: pd.DataFrame, launched: list[str]) -> list[str]:
    recipes, lines = _recipes(experiment, cells), []
    for workload, label in sorted(set(zip(empty["workload"], empty["label"], strict=True))):
        own = empty.loc[(empty["workload"] == workload) & (empty["label"] == label)]
        how = _overrides(recipes, workload, label)
        what = f"{plural(len(own), 'cell')} missing ({_some(titles(own))})"
        for studies, trials in blocks(own) if how is not None else []:
            counts = [f"study={ranges(studies)}", f"trial={ranges(trials)}"]
            words = [*(how or []), *places(experiment), *counts]
            lines.append(f"{what}: {command('runner', '-m', *words)}")
            what = "and"
        if how is None:
            lines.append(f"{what}; no record of how they were launched")
    more = [f"and {plural(len(lines) - COMMANDS, 'command')} more"] if len(lines) > COMMANDS else []
    return lines[:COMMANDS] + more + launched


def _recipes(experiment: Path, cells: pd.DataFrame) -> dict[tuple[str, str], list[str]]:
    """(workload, label) -> the words that make one of its cells, but for its study, its trial and its place,
    where they are known.
    """
    found: dict[tuple[str, str], list[str]] = {}
    first = cells.drop_duplicates(["workload", "label"])
    for workload, label, folder in zip(first["workload"], first["label"], first["folder"], strict=True):
        manifest = CellFolder(experiment / "cells" / folder).manifest()
        overrides = manifest.get("overrides")
        if isinstance(overrides, list):
            kept = [str(o) for o in overrides if name_of(str(o)) not in (*COUNTS, *PLACES, *NOT_FILLING)]
            found[workload, label] = [*config_words(manifest), *kept]
    return found


def _overrides(recipes: Mapping[tuple[str, str], list[str]], workload: str, label: str) -> list[str] | None:
    """A cell's own; or the algorithm's from another workload with the workload's from another algorithm."""
    if (workload, label) in recipes:
        return recipes[workload, label]
    same_label = next((own for (_, other), own in recipes.items() if other == label), None)
    same_workload = next((own for (other, _), own in recipes.items() if other == workload), None)
    if same_label is None or same_workload is None:
        return None
    about = [o for o in same_workload if name_of(o).partition(".")[0] == "workload"]
    return [o for o in same_label if name_of(o).partition(".")[0] != "workload"] + about


def recipes_of_algorithms(experiment: Path, cells: pd.DataFrame) -> dict[str, list[str]]:
    """Label -> the words that choose this algorithm, where they are known, whatever it was trained on."""
    ours = ("workload", "ruleset")
    return {
        label: [word for word in words if name_of(word).partition(".")[0] not in ours]
        for (_, label), words in _recipes(experiment, cells).items()
    }


def _some(names: Iterable[Any]) -> str:
    listed = [str(name) for name in names]
    more = f", and {len(listed) - NAMED:,} more" if len(listed) > NAMED else ""
    return ", ".join(listed[:NAMED]) + more

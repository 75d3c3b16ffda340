"""No two settings under one name: what the cells of a launch claim, and what is in the experiment already."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from runner.base.errors import UserError
from runner.base.files import read_json
from runner.cells.cell import Cell, experiment_folder
from runner.contract.records import FINISHED, CellFolder

FACTS = ("label", "workload_label", "study", "trial", "ruleset")  # what a board tells cells apart by


class Claim(NamedTuple):
    """A cell that was composed: its id, its title, and what it was composed from."""

    id: str
    title: str
    overrides: Sequence[str]


@dataclass
class Places:
    """Places on a board, and folders, that the cells of one launch have claimed."""

    _places: dict[tuple[object, ...], Claim] = field(default_factory=dict)
    _folders: dict[str, Claim] = field(default_factory=dict)
    _there: dict[Path, dict[str, list[str]]] = field(default_factory=dict)

    def claim(self, cell: Cell, overrides: Sequence[str]) -> None:
        """Note a cell that the launch is about.

        Raises:
            UserError: where another cell of it has the same place on the board, or a folder of the same name,
                upper and lower case being one on some file systems.
        """
        own = Claim(cell.id, cell.title, overrides)
        place = (experiment_folder(cell.config), *(cell.config[key] for key in FACTS))
        other = self._places.setdefault(place, own)
        if other.id != own.id:
            raise UserError(
                f"{own.title} names two different cells, {_unlike(other, own)}: every setting needs its own "
                "label on the leaderboard; give each a label=, or remove the difference"
            )
        other = self._folders.setdefault(str(cell.folder.path).casefold(), own)
        if other.title != own.title:
            raise UserError(
                f"{other.title} and {own.title} would share the folder {cell.folder.path.name}: "
                "choose labels that differ in more than punctuation or case"
            )

    def namesakes(self, cell: Cell) -> list[str]:
        """Finished cells of the experiment, by folder, with the place of ``cell`` and another config."""
        experiment = experiment_folder(cell.config)
        if experiment not in self._there:
            self._there[experiment] = _by_place(experiment / "cells")
        name = cell.folder.path.name
        others = self._there[experiment].get(_place(name), [])
        cells = experiment / "cells"
        return [other for other in others if other != name and _stands_for(CellFolder(cells / other), cell)]


def _by_place(cells: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in sorted(os.listdir(cells)):  # noqa: PTH208 - of every cell of a grid
        found.setdefault(_place(name), []).append(name)
    return found


def _place(name: str) -> str:
    """A folder's name less the id at its end."""
    return name.rpartition(".")[0]


def _stands_for(folder: CellFolder, cell: Cell) -> bool:
    card = read_json(folder.path / "cell.json") or {}
    same = all(card.get(key) == cell.config[key] for key in FACTS)
    return same and folder.status()["status"] in FINISHED


def _unlike(one: Claim, other: Claim) -> str:
    """What each of two was composed from and the other was not."""
    sides = [[o for o in a.overrides if o not in b.overrides] for a, b in ((one, other), (other, one))]
    return " and ".join(" ".join(side) or "the bare one" for side in sides)

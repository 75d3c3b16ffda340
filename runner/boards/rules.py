"""How a board is scored; a published one keeps its rules for good."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import pandas as pd

from runner.base.errors import UserError
from runner.stats.comparable import absent
from runner.stats.profiles import Integral
from runner.stats.times import Pick

BASELINE = "adamw"  # what most people compare with


@dataclass(frozen=True)
class Rules:
    """Options of a board, as :func:`runner.stats.board` takes them.

    Attributes:
        by: the unit that is compared.
        pick: which trial stands for a study.
        integral: of the performance profile.
        tau_max: where the profile ends, and what counts as a miss.
        baseline: label that speed-ups are over; None for none.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        level: of its intervals.
        together: the open division shares a board with the closed one.
        mixed: cells that cannot be compared share a board all the same.
        decimals: of printed scores.
    """

    by: str = "samples"
    pick: Pick = "time"
    integral: Integral = "exact"
    tau_max: float = 4.0
    baseline: str | None = None
    resamples: int = 1000
    seed: int = 0
    level: float = 0.95
    together: bool = False
    mixed: bool = False
    decimals: int = 3

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Rules:
        """What :meth:`to_dict` gave; keys of later versions are refused.

        Raises:
            UserError: for an unknown key.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(record.keys() - known):
            raise UserError(f"rules from a newer version: {', '.join(unknown)}")
        return cls(**record)

    def settled(self, cells: pd.DataFrame) -> Rules:
        """With what is left open decided: the baseline is the usual one; none where the part lacks it."""
        wanted = self.baseline or BASELINE
        return replace(self, baseline=wanted if wanted in set(cells["label"]) else None)

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of :func:`runner.stats.board`."""
        names = ("pick", "integral", "tau_max", "baseline", "resamples", "seed", "level")
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        said = [f"by {self.by}", f"misses beyond {self.tau_max:g}×"]
        said += ["studies' trials by evaluation index"] * (self.pick == "eval_index")
        said += ["AlgoPerf's integral"] * (self.integral == "trapezoid")
        return ", ".join(said)


def unit_of(cells: pd.DataFrame, wanted: str | None, imported: bool = False) -> str:
    """The unit to compare: samples, and seconds where nobody counted samples.

    Raises:
        UserError: for one that means nothing in these tables.
    """
    if imported and wanted in ("samples", "steps"):
        why = {"samples": "samples are not recorded", "steps": "each submission counts its own steps"}[wanted]
        raise UserError(f"--by {wanted}: in imported logs {why}; --by seconds compares them")
    return wanted or ("seconds" if imported else "samples")


def variants_of(cells: pd.DataFrame) -> dict[str, str]:
    """Held-out variant -> its base workload, as an imported table says."""
    if "base_workload" not in cells:
        return {}
    pairs = cells[["workload", "base_workload"]].drop_duplicates()
    found = dict(zip(pairs["workload"], pairs["base_workload"], strict=True))
    return {
        workload: base
        for workload, base in found.items()
        if not absent(base) and base != workload and base in found
    }

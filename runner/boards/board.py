"""Leaderboards of an experiment: its cells, split into comparable parts and scored by the rules."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from runner.base.errors import UserError
from runner.boards.rules import Rules, variants_of
from runner.contract.records import FINISHED
from runner.stats import board, by_workload
from runner.stats.comparable import Part, absent, differences, flags, names, parts, titles, twins
from runner.stats.pairs import neighbours
from runner.stats.times import untrained

Sources = Mapping[str, Mapping[str, str]]
GOAL = ("metric", "minimize", "target")


@dataclass(frozen=True)
class Board:
    """A leaderboard, ready to be shown.

    Attributes:
        data, ruleset, open_division: what kind of results it holds.
        rules: how it was scored.
        ranking: one row per algorithm, as returned by :func:`runner.stats.board`.
        workloads: one row per workload and algorithm, as returned by :func:`runner.stats.by_workload`.
        goals: workload -> ``metric, minimize, target``, for the ranked workloads.
        notices: caveats shown above the table, one line each.
        cells: how many have finished.
        marks: label -> a word shown beside it, such as ``disputed``.
    """

    data: str
    ruleset: str
    open_division: bool
    rules: Rules
    ranking: pd.DataFrame
    workloads: pd.DataFrame
    goals: dict[str, dict[str, Any]]
    notices: list[str] = field(default_factory=list)
    cells: int = 0
    marks: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """``embedded data, external tuning``."""
        return Part(self.data, self.ruleset, self.open_division, pd.DataFrame()).title


def boards(
    cells: pd.DataFrame,
    rules: Rules,
    sources: Sources | None = None,
    workloads: Mapping[str, Sequence[str]] | None = None,
) -> list[Board]:
    """One board for each part of the table that has finished cells.

    Args:
        cells: the ``cells`` table of an experiment.
        rules: how to score.
        sources: a cell's ``source`` -> module -> hash.
        workloads: title of a board -> its workloads, where they were fixed before.

    Raises:
        UserError: where nothing can be ranked, two cells claim one place, or cells are not comparable.
    """
    refuse_hopeless(cells, rules.by)
    made, poor = [], []
    for part in parts(cells, rules.together):
        try:
            made.append(_made(part, rules.settled(part.cells), sources, (workloads or {}).get(part.title)))
        except _NothingToRankError as error:
            poor.append(f"{part.title}: {error}")
    if not made:
        raise UserError("; ".join(poor))
    made[0].notices.extend(poor)
    return made


class MixedError(UserError):
    """Cells that cannot be compared."""


class _NothingToRankError(UserError):
    """A part without a board."""


def refuse_hopeless(cells: pd.DataFrame, by: str) -> None:
    """Refuse tables from which no leaderboard can be computed, and say what to do.

    Raises:
        UserError: for a single cell, or where no cell has finished, has a target, or reached it.
    """
    finished = cells.loc[cells["status"].isin(list(FINISHED))]
    if not len(finished):
        raise UserError(f"no finished cell to score: {tally(cells['status'])}")
    if len(cells) == 1:
        raise UserError(f"only one cell, {_outcome(finished, by)}; a leaderboard needs a second algorithm")
    times = _times(finished, by)
    if np.isnan(times).all():
        raise UserError(
            f"nothing to rank: {len(finished):,} cells have finished, but no workload has a target"
        )
    if not np.isfinite(times).any():
        raise UserError(
            f"all missed: none of the {len(finished):,} finished cells reached its target{_best(finished)}"
        )


def tally(words: Iterable[Any]) -> str:
    """``2 failed, 1 running``."""
    return ", ".join(f"{count:,} {word}" for word, count in sorted(Counter(map(str, words)).items()))


def flat(made: Sequence[Board]) -> pd.DataFrame:
    """Leaderboards as one table: one row per algorithm; a workload's columns are prefixed by its name."""
    frames = []
    for one in made:
        wide = one.workloads.pivot(index="label", columns="workload").swaplevel(axis=1)
        wide = wide.reindex(columns=one.workloads["workload"].unique(), level=0)
        wide.columns = [f"{workload}/{name}" for workload, name in wide.columns]
        facts = {"data": one.data, "ruleset": one.ruleset, "open_division": one.open_division}
        facts |= {"by": one.rules.by, "baseline": one.rules.baseline}
        frames.append(one.ranking.assign(**facts).merge(wide.reset_index(), on="label", how="left"))
    return pd.concat(frames, ignore_index=True)


def as_json(board: Board) -> dict[str, Any]:
    """A board for a program: what :class:`Board` holds, its tables as lists of rows."""
    plain = {name: getattr(board, name) for name in ("title", "data", "ruleset", "open_division", "cells")}
    tables = {name: getattr(board, name).to_dict("records") for name in ("ranking", "workloads")}
    more = {"goals": board.goals, "marks": board.marks, "notices": board.notices}
    return {**plain, "rules": board.rules.to_dict(), **more, **tables}


def _made(part: Part, rules: Rules, sources: Sources | None, fixed: Sequence[str] | None) -> Board:
    _refuse_twins(part.cells)
    notices = _unlike(part.cells, rules, sources)
    finished = part.cells.loc[part.cells["status"].isin(list(FINISHED))]
    aimed = finished.loc[~np.isnan(_times(finished, rules.by)), "workload"]
    ranked = sorted(map(str, aimed.unique())) if fixed is None else list(fixed)
    if not ranked:
        raise _NothingToRankError(f"nothing to rank: {tally(part.cells['status'])}; no workload has a target")
    variants = {held: base for held, base in variants_of(part.cells).items() if {held, base} <= set(ranked)}
    ranking = board(part.cells, rules.by, workloads=ranked, variants=variants, **rules.arguments())
    ranking = ranking.merge(
        _separable(part.cells.loc[part.cells["workload"].isin(ranked)], ranking, rules),
        on="label",
        how="left",
    )
    if rules.together:
        ranking["open"] = ranking["label"].isin(_open(part.cells))
    per_workload = by_workload(part.cells, rules.by, pick=rules.pick, workloads=ranked)
    goals = {name: _goal(finished.loc[finished["workload"] == name]) for name in ranked}
    notices += _asides(part.cells, finished, per_workload, ranked, set(aimed))
    kind = (part.data, part.ruleset, part.open_division)
    return Board(*kind, rules, ranking, per_workload, goals, notices, len(finished))


def _refuse_twins(cells: pd.DataFrame) -> None:
    for place, ids in twins(cells):
        if len(ids) == 1:
            raise UserError(f"the table of cells holds {ids[0]} twice ({place})")
        raise UserError(
            f"{len(ids)} cells claim {place}: {' and '.join(ids)}; their configs differ in something that "
            "the label does not show: give one of them label=NAME, or move its folder away"
        )


def _unlike(cells: pd.DataFrame, rules: Rules, sources: Sources | None) -> list[str]:
    found = differences(cells, rules.by, sources)
    if not found:
        return []
    said = [str(difference) for difference in found]
    if rules.mixed:
        return [f"mixed, on request: {line}" for line in said]
    helps = all(difference.machine for difference in found) and rules.by != "samples"
    hint = "--by samples compares them, " if helps else ""
    raise MixedError(
        f"these cells cannot share a leaderboard: {'; '.join(said)} ({hint}--allow-mixed ranks them anyway)"
    )


def _separable(cells: pd.DataFrame, ranking: pd.DataFrame, rules: Rules) -> pd.DataFrame:
    """Whether each algorithm is separable from the next one on the leaderboard, with the test's p value."""
    order = [str(label) for label in ranking["label"]]
    found = neighbours(cells, order, by=rules.by, pick=rules.pick, level=rules.level)
    return found.rename(columns={"separable": "separable_from_next", "p": "next_p"}).loc[
        :, ["label", "separable_from_next", "next_p"]
    ]


def _open(cells: pd.DataFrame) -> list[str]:
    return names(cells.loc[flags(cells, "open_division")], "label")


def _goal(cells: pd.DataFrame) -> dict[str, Any]:
    known = {key: cells[key].dropna() for key in GOAL if key in cells}
    return {key: own.iloc[0] if len(own) else None for key, own in known.items()}


def _asides(
    cells: pd.DataFrame,
    finished: pd.DataFrame,
    per_workload: pd.DataFrame,
    ranked: Sequence[str],
    aimed: set[str],
) -> list[str]:
    hit = names(per_workload.loc[per_workload["hits"] > 0], "workload")
    unreached = [name for name in ranked if name not in hit]
    aimless = [name for name in names(finished, "workload") if name not in aimed]
    later = sorted(aimed - set(ranked))
    met = names(finished.loc[untrained(finished)], "workload")
    unsure = names(cells.loc[flags(cells, "provisional")], "workload")
    alone = len(names(cells, "label")) == 1
    lines = ["only one algorithm: there is nothing to rank it against"] * alone
    if unreached:
        lines.append(f"target never reached, scored 0 for every algorithm: {', '.join(unreached)}")
    if met:
        lines.append(f"target already met by the untrained model, so uninformative: {', '.join(met)}")
    lines += [f"not ranked, no target: {', '.join(aimless)}"] * bool(aimless)
    lines += [f"not ranked, not a workload of this leaderboard: {', '.join(later)}"] * bool(later)
    if unsure:
        said = "provisional target, published elsewhere and not reproduced here (conf/targets)"
        lines.append(f"{said}: {', '.join(unsure)}")
    return lines


def _times(cells: pd.DataFrame, by: str) -> np.ndarray:
    if f"{by}_to_target" not in cells:
        raise UserError(f"the table of cells has no column {by}_to_target")
    times = cells[f"{by}_to_target"]
    try:
        return np.array([math.nan if absent(time) else float(time) for time in times])
    except (TypeError, ValueError) as error:
        raise UserError(f"column {by}_to_target holds something that is not a number: {error}") from error


def _outcome(finished: pd.DataFrame, by: str) -> str:
    row = finished.iloc[0]
    time = row.get(f"{by}_to_target", np.nan)
    hit = not absent(time) and np.isfinite(float(time))
    how = f"reached its target at {float(time):,.4g} {by}" if hit else "did not reach its target"
    return f"{titles(finished)[0]}, which {how}{_best(finished)}"


def _best(finished: pd.DataFrame) -> str:
    """``; best accuracy on digits: 0.93``, of the first workload."""
    if "best_metric" not in finished or not {"metric", "minimize"} <= set(finished.columns):
        return ""
    row = finished.iloc[0]
    own = finished.loc[finished["workload"] == row["workload"], "best_metric"].dropna()
    if not len(own) or absent(row["metric"]):
        return ""
    best = own.min() if bool(row["minimize"]) else own.max()
    return f"; best {row['metric']} on {row['workload']}: {best:.4g}"

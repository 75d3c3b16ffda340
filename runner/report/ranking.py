"""The leaderboard: the numbers of ``leaderboard.csv``, in the same order."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from runner.boards.board import Board
from runner.boards.sheets import DASH, TOO_FEW, name_of, number, percent, rough
from runner.report.html import Html, el
from runner.report.material import Group, Material, Record, rows
from runner.report.svg import cut
from runner.report.tables import Cell, Column, none, table, word
from runner.stats.comparable import absent
from runner.stats.edges import TRUNCATED

LONG = 80  # characters of a label


def section(material: Material) -> list[Html]:
    """The ranking and the times on each workload, of every group."""
    parts: list[Html] = []
    for group, heading in material.each():
        parts += heading
        if group.board is None:
            parts.append(none(f"no leaderboard: {group.reason}"))
            continue
        parts += [ranking(group.board), medians(group.board, truncated(group))]
    return parts


def ranking(board: Board) -> Html:
    """The ranking, one row per algorithm."""
    faster, level = board.rules.baseline, f"{100 * board.rules.level:g} %"
    recorded = board.ranking.count()
    spent = [unit for unit in ("samples", "seconds") if recorded.get(f"spent_{unit}", 0)]
    columns = [
        Column("#", "rank"),
        word("algorithm", "label"),
        Column("score", "score", hint="0 to 1: 1 is fastest on every workload"),
        Column(f"{level} low", "low", hint="lower end of the interval from resampling studies"),
        Column("high", "high", hint="upper end of the interval"),
        Column(
            "vs. next rank",
            "separable_from_next",
            numeric=False,
            hint="is it separable from the algorithm one rank below?",
        ),
        Column("hit rate", "hit_rate", hint="share of its finished cells that hit the target"),
        *[Column(f"× {faster}", "speedup", hint=f"geometric mean speed-up over {faster}")] * bool(faster),
        Column("rank stability", "rank_stability", hint="share of resamples in which it has this rank"),
        Column(
            "leave-one-out",
            "leave_one_out",
            hint="share of leaderboards without one other algorithm on which it keeps its place",
        ),
        Column("studies", "studies"),
        Column("trials", "trials"),
        *(Column(unit, f"spent_{unit}", hint="total over all its cells") for unit in spent),
    ]
    lines = [
        [
            *_score(row, board),
            _separable(row, board, place == len(board.ranking) - 1),
            Cell(percent(row["hit_rate"]), row["hit_rate"]),
            *[Cell(speedup(row), row["speedup"])] * bool(faster),
            Cell(percent(row["rank_stability"]), row["rank_stability"]),
            Cell(percent(row["leave_one_out"]), row["leave_one_out"]),
            Cell(row["studies"], row["studies"]),
            Cell(row["trials"], row["trials"]),
            *(Cell(rough(row[f"spent_{unit}"]), row[f"spent_{unit}"]) for unit in spent),
        ]
        for place, row in enumerate(rows(board.ranking))
    ]
    count = len(board.goals)
    caption = f"{count} workload{'s' * (count != 1)}, {board.rules}"
    return table(columns, lines, caption, name=1, css="board")


def truncated(group: Group) -> set[tuple[str, str]]:
    """(workload, label) whose best trial lies on the border of its search space."""
    frame = group.findings.edges.frame
    if "warning" not in frame:
        return set()
    kept = frame.loc[frame["warning"] == TRUNCATED]
    return set(zip(map(str, kept["workload"]), map(str, kept["label"]), strict=True))


def medians(board: Board, truncated: Collection[tuple[str, str]] = ()) -> Html:
    """Median time to target, spread and studies that hit: one row per algorithm, one column per workload."""
    by = board.rules.by
    found = {(str(row["workload"]), str(row["label"])): row for row in rows(board.workloads)}
    columns = [Column("#", "rank"), word("algorithm", "label")]
    columns += [
        Column(cut(name, 28), f"{name}/median", hint=f"{name}: {goal_of(board, name)}")
        for name in board.goals
    ]
    lines = [
        [
            Cell(row["rank"], row["rank"]),
            _name(row, board),
            *(_time(found.get(place), place in truncated) for place in _places(board, row)),
        ]
        for row in rows(board.ranking)
    ]
    note = f"Median {by} to the target; below it, the fastest and slowest study and how many studies hit"
    return table(columns, lines, note, name=1, css="medians")


def goal_of(board: Board, workload: str) -> str:
    """``accuracy ≥ 0.9877``."""
    goal = board.goals[workload]
    if absent(goal.get("metric")) or absent(goal.get("target")):
        return "no target"
    return f"{goal['metric']} {'≤' if goal.get('minimize') else '≥'} {goal['target']:g}"


def speedup(row: Record) -> Any:
    """``1.21``, and its interval below."""
    if absent(row["speedup"]):
        return DASH
    if row["too_few"] or absent(row["speedup_low"]):
        return f"{row['speedup']:.2f}"
    return [f"{row['speedup']:.2f}", el("small", f"{row['speedup_low']:.2f}–{row['speedup_high']:.2f}")]


def _score(row: Record, board: Board) -> list[Cell]:
    decimals = board.rules.decimals
    shown = f"{row['score']:.{decimals}f}"
    cells = [Cell(row["rank"], row["rank"]), _name(row, board)]
    cells.append(Cell(el("strong", shown), row["score"]))
    for end in ("low", "high"):
        words = DASH if absent(row[end]) else f"{row[end]:.{decimals}f}"
        few = bool(row["too_few"])
        note = "fewer than 5 studies: too narrow" if few else ""
        cells.append(Cell(TOO_FEW if few and end == "low" else "" if few else words, row[end], title=note))
    return cells


def _name(row: Record, board: Board) -> Cell:
    words = name_of(row, board)
    return Cell(cut(words, LONG), row["label"], title=words if len(words) > LONG else "")


def _separable(row: Record, board: Board, last: bool) -> Cell:
    """Whether it is separable from the next row, as the board says."""
    verdict, p = row.get("separable_from_next"), row.get("next_p", math.nan)
    if last or absent(verdict):
        return Cell("" if last else DASH, "")
    words = f"p = {p:.2g}, level {100 * board.rules.level:g} %"
    if verdict:
        return Cell("separable", True, title=words)
    return Cell("≈ not separable", False, css="tied level", title=words)


def _places(board: Board, row: Record) -> list[tuple[str, str]]:
    return [(name, str(row["label"])) for name in board.goals]


def _time(row: Record | None, truncated: bool = False) -> Cell:
    if row is None:
        return Cell(DASH, math.inf, title="no finished cell")
    spread = f"{number(row['low'])}–{number(row['high'])}" if math.isfinite(row["low"]) else DASH
    counts = f"{row['studies_hit']}/{row['studies']}"
    missed = not math.isfinite(row["median"])
    ratio = "" if missed else f", {row['ratio']:.2f} × the fastest"
    shown = [
        el("span", number(row["median"]), class_="miss" if missed else None),
        el("small", f"{spread} · {counts}"),
        el("small", el("a", TRUNCATED, href="#edges")) if truncated else None,
    ]
    return Cell(shown, row["median"], title=f"{counts} studies hit{ratio}")

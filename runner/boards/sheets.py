"""Leaderboards as plain tables of text, for the terminal and for Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runner.boards.board import Board
from runner.stats.comparable import absent

TOO_FEW = "too few studies"
DASH = "—"
LEVEL = "≈"


@dataclass(frozen=True)
class Sheet:
    """A table of text.

    Attributes:
        title: shown above the table.
        columns: headers; the first column is right-aligned, the second left, the others right.
        rows: one string per column.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def sheets_of(board: Board) -> list[Sheet]:
    """The ranking, its uncertainty and cost, then each workload."""
    return [_ranking(board), _uncertainty(board), *(_workload(board, name) for name in board.goals)]


def _ranking(board: Board) -> Sheet:
    faster = f"× {board.rules.baseline}"
    level = f"{100 * board.rules.level:g} % interval"
    columns = ["#", "algorithm", "score", level, "hit rate"] + [faster] * bool(board.rules.baseline)
    rows = []
    for row in _rows(board.ranking):
        score = f"{row['score']:.{board.rules.decimals}f}"
        cells = [_place(row), name_of(row, board), score, _interval(row, board)]
        rows.append([*cells, percent(row["hit_rate"])] + [_speedup(row)] * bool(board.rules.baseline))
    number = len(board.goals)
    return Sheet(f"{number} workload{'s' * (number != 1)}, {board.rules}", columns, rows)


def _uncertainty(board: Board) -> Sheet:
    spent = [unit for unit in ("samples", "seconds") if f"spent_{unit}" in board.ranking]
    columns = ["#", "algorithm", "rank stability", "leave-one-out", "studies", "trials", *spent]
    rows = []
    for row in _rows(board.ranking):
        stability = [percent(row["rank_stability"]), percent(row["leave_one_out"])]
        counts = [str(row["studies"]), str(row["trials"])]
        costs = [rough(row[f"spent_{unit}"]) for unit in spent]
        rows.append([str(row["rank"]), name_of(row, board), *stability, *counts, *costs])
    return Sheet("Uncertainty and cost", columns, rows)


def _workload(board: Board, workload: str) -> Sheet:
    goal, own = board.goals[workload], board.workloads
    said = ""
    if goal.get("metric") is not None and not absent(goal.get("target")):
        said = f": {goal['metric']} {'≤' if goal.get('minimize') else '≥'} {goal['target']:g}"
    columns = ["#", "algorithm", board.rules.by, "spread", "ratio", "studies", "cells", "reached"]
    rows = sorted(_rows(own.loc[own["workload"] == workload]), key=lambda r: (r["median"], r["label"]))
    places = [1 + sum(other["median"] < row["median"] for other in rows) for row in rows]
    return Sheet(
        f"{workload}{said}",
        columns,
        [_on_workload(row, str(place)) for row, place in zip(rows, places, strict=True)],
    )


def _on_workload(row: dict[str, Any], place: str) -> list[str]:
    hit = math.isfinite(row["median"])
    spread = f"{number(row['low'])}–{number(row['high'])}" if math.isfinite(row["low"]) else DASH
    ratio = f"{row['ratio']:.2f}" if math.isfinite(row["ratio"]) else DASH
    counts = [f"{row['studies_hit']}/{row['studies']}", f"{row['hits']}/{row['finished']}"]
    return [
        place if hit else DASH,
        row["label"],
        number(row["median"]),
        spread,
        ratio,
        *counts,
        number(row["reached"], DASH),
    ]


def _place(row: dict[str, Any]) -> str:
    """The rank, marked where the next algorithm is not separable from this one."""
    return f"{row['rank']}{LEVEL if row['separable_from_next'] is False else ''}"


def name_of(row: dict[str, Any], board: Board) -> str:
    """The label, marked where it competes in the open division or where its numbers are disputed."""
    words = ["open"] * bool(row.get("open")) + [board.marks.get(row["label"], "")]
    said = ", ".join(word for word in words if word)
    return f"{row['label']} ({said})" if said else row["label"]


def number(value: float, missing: str = "miss") -> str:
    """Four significant digits, thousands separated; ``missing`` where infinite or not a number."""
    if absent(value) or not math.isfinite(value):
        return missing
    if abs(value) >= 1e7:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def rough(value: float) -> str:
    """Three significant digits: ``2.19M``, ``21.9k``, ``368``."""
    if absent(value) or not math.isfinite(value):
        return DASH
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / min(size, 1e3 if suffix == 'k' else size):.3g}{suffix}"
    return f"{value:,.0f}"


def percent(share: float) -> str:
    """``87 %``."""
    return DASH if absent(share) else f"{100 * share:.0f} %"


def _interval(row: dict[str, Any], board: Board) -> str:
    if row["too_few"]:
        return TOO_FEW
    if absent(row["low"]):
        return DASH
    return f"{row['low']:.{board.rules.decimals}f}–{row['high']:.{board.rules.decimals}f}"


def _speedup(row: dict[str, Any]) -> str:
    if absent(row["speedup"]):
        return DASH
    if row["too_few"] or absent(row["speedup_low"]):
        return f"{row['speedup']:.2f}"
    return f"{row['speedup']:.2f} ({row['speedup_low']:.2f}–{row['speedup_high']:.2f})"


def _rows(frame: Any) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]

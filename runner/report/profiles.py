"""Performance profiles, and the times on each workload as bars."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from runner.boards.board import Board
from runner.boards.rules import variants_of
from runner.boards.sheets import number
from runner.report.html import Html, el
from runner.report.material import Group, Material, Record, rows
from runner.report.palette import Mark
from runner.report.ranking import goal_of
from runner.report.scales import Scale, covering, tick_text
from runner.report.svg import Chart, cut, drawing, legend, short
from runner.report.tables import none
from runner.stats import medians, profile, study_times
from runner.stats.profiles import Rule

HAIR = 1.3  # by which lines are drawn apart, so that equal ones stay visible
ROW = 19.0
NAMES, FIGURES = 118.0, 78.0  # room beside the bars
SHOWN = 30  # algorithms among the bars


def profile_section(material: Material) -> list[Html]:
    """A performance profile for every group."""
    parts: list[Html] = []
    for place, (group, heading) in enumerate(material.each()):
        parts += heading
        if group.board is None:
            parts.append(none(f"no profile without a board: {group.reason}"))
            continue
        caption = (
            "Share of workloads on which an algorithm is within τ times the fastest; the score is the area "
            "below its line. Equal lines are drawn slightly apart."
        )
        ranked = group.marks[: len(group.board.ranking)]
        parts += [
            legend(ranked),
            el(
                "div",
                material.figure(f"profile-{place + 1}", profile_chart(group, group.board), caption),
                class_="plots wide",
            ),
        ]
    return parts


def profile_chart(group: Group, board: Board) -> Html:
    """Step lines over τ, exact at every ratio."""
    by, limit = board.rules.by, board.rules.tau_max
    workloads = list(board.goals)
    variants = {v: b for v, b in variants_of(group.cells).items() if {v, b} <= set(workloads)}
    labels = [str(label) for label in board.ranking["label"]]
    table = medians(study_times(group.cells, by, board.rules.pick), labels, workloads)
    taus = _taus(table, limit, variants)
    shares = profile(table, taus, limit, variants)
    chart = Chart(Scale(1.0, limit, log=True), Scale(-0.03, 1.05), width=480, height=270)
    ticks = [tau for tau in (1, 1.25, 1.5, 2, 2.5, 3, 4, 6, 8, 16) if tau <= limit]
    chart.axes(f"τ: time ÷ the fastest, {by}, logarithmic", "share of workloads", ticks)
    middle = (min(len(labels), 10) - 1) / 2
    for mark in reversed(group.marks[: len(labels)]):
        line = shares.loc[mark.label].to_numpy("float64")
        shift = (min(mark.place, 9) - middle) * HAIR
        chart.steps(
            taus, line, mark, f"{mark.label}: {line[0]:.0%} at τ = 1, {line[-1]:.0%} at {limit:g}", shift
        )
    _end_numbers(
        chart,
        group.marks[: len(labels)],
        [float(shares.loc[m.label].iloc[-1]) for m in group.marks[: len(labels)]],
    )
    count = len(workloads)
    return chart.svg("Performance profiles", f"{len(labels)} algorithms on {count} workloads, by {by}")


def _taus(table: pd.DataFrame, limit: float, variants: dict[str, str]) -> np.ndarray:
    ratios = Rule(table.columns, limit, "exact", variants).ratios(table.to_numpy("float64"))
    inside = ratios[np.isfinite(ratios) & (ratios <= limit)]
    return np.unique(np.concatenate([[1.0, limit], inside]))


def _end_numbers(chart: Chart, marks: Sequence[Mark], shares: Sequence[float]) -> None:
    """Ranks at the right end, side by side where lines end together."""
    seen: dict[float, int] = {}
    for mark, share in zip(marks, shares, strict=True):
        if mark.number:
            column = seen[share] = seen.get(share, -1) + 1
            chart.number(chart.right - 8 - 14 * column, float(chart.py(share)) - 9, mark)


# -- bars ---------------------------------------------------------------------------------------------


def bars_section(material: Material) -> list[Html]:
    """A chart for every workload."""
    parts: list[Html] = []
    for place, (group, heading) in enumerate(material.each()):
        parts += heading
        if group.board is None:
            parts.append(none(f"nothing to compare: {group.reason}"))
            continue
        figures = [
            material.figure(
                f"times-{place + 1}-{name}", bars(group, group.board, name), _bars_caption(group.board, name)
            )
            for name in group.board.goals
        ]
        parts += [el("p", _bars_note(group.board), class_="note"), el("div", figures, class_="plots")]
    return parts


def bars(group: Group, board: Board, workload: str) -> Html:
    """Median time to target of each algorithm, in the order of the board, with the range over studies."""
    own = {str(row["label"]): row for row in rows(board.workloads) if row["workload"] == workload}
    marks = group.marks[: min(len(board.ranking), SHOWN)]
    ends = [
        value
        for row in own.values()
        for value in (row["median"], row["low"], row["high"])
        if math.isfinite(value)
    ]
    scale = covering([0.0, *(1.06 * end for end in ends)], zero=True)
    width, height = 380.0, 12 + ROW * len(marks) + 34
    left, right, bottom = NAMES, width - FIGURES, height - 34
    chart = Chart(scale, Scale(0, 1), width, height, left, width - right, 8, 34)
    shapes = (
        _ruler(chart, board.rules.by)
        if ends
        else [el("text", "no study of any algorithm hit", x=left, y=height - 20)]
    )
    limit = board.rules.tau_max * min((row["median"] for row in own.values()), default=math.inf)
    if math.isfinite(limit) and limit <= scale.high:
        place = short(float(chart.px(limit)))
        shapes.append(
            el(
                "path",
                el("title", f"{board.rules.tau_max:g} × the fastest: beyond is a miss for the score"),
                class_="goal",
                d=f"M{place},8V{short(bottom)}",
            )
        )
    for k, mark in enumerate(marks):
        shapes += _bar(chart, 12 + ROW * k, mark, own.get(mark.label))
    hits = sum(math.isfinite(row["median"]) for row in own.values())
    words = f"Median {board.rules.by} to {goal_of(board, workload)}; {hits} of {len(own)} algorithms hit"
    return drawing(width, height, f"Time to target on {cut(workload, 80)}", words, shapes)


def _ruler(chart: Chart, by: str) -> list[Html]:
    shapes = []
    for tick in chart.x.ticks(3):
        place = short(float(chart.px(tick)))
        shapes.append(el("path", class_="grid", d=f"M{place},8V{short(chart.bottom)}"))
        shapes.append(el("text", tick_text(tick), class_="half", x=place, y=short(chart.bottom + 13)))
    middle = short((chart.left + chart.right) / 2)
    return [
        *shapes,
        el("text", f"{by} to the target, median", class_="half", x=middle, y=short(chart.height - 5)),
    ]


def _bar(chart: Chart, top: float, mark: Mark, row: Record | None) -> list[Html]:
    base, middle = chart.left, top + ROW / 2
    name = f"{mark.number} {cut(mark.label, 17)}".strip()
    colour = mark.css.split()[0]
    shapes = [
        el("text", name, el("title", mark.label), class_="end strong", x=short(base - 6), y=short(middle + 4))
    ]
    if row is None:
        return [*shapes, el("text", "not run", x=short(base + 4), y=short(middle + 4))]
    counts = f"{row['studies_hit']}/{row['studies']}"
    middling, low, high = (number(row[name]) for name in ("median", "low", "high"))
    title = el("title", f"{mark.label}: median {middling}, {low} to {high}, {counts} studies hit")
    hit = math.isfinite(row["median"])
    if hit:
        long = max(float(chart.px(row["median"])) - base, 1)
        place = {"x": short(base), "y": short(middle - 6), "width": short(long), "height": 12}
        shapes.append(el("rect", title, class_=f"bar {colour}", **place))
    if math.isfinite(row["low"]):
        shapes.append(_whisker(chart, middle, row["low"], row["high"]))
    figure = f"{number(row['median'])} · {counts}" if hit else f"✕ miss · {counts}"
    words = el(
        "text",
        figure,
        None if hit else title,
        class_=None if hit else "miss",
        x=short(chart.right + 6),
        y=short(middle + 4),
    )
    return [*shapes, words]


def _whisker(chart: Chart, middle: float, low: float, high: float) -> Html:
    """From the fastest to the slowest study; an arrow where the slowest missed."""
    start, missed = short(float(chart.px(low))), not math.isfinite(high)
    end = short(chart.right if missed else float(chart.px(high)))
    tail = "m-5,-3l5,3l-5,3" if missed else "m0,-3v6"
    return el("path", class_="whisker", fill="none", d=f"M{start},{short(middle - 3)}v6m0,-3H{end}{tail}")


def _bars_note(board: Board) -> str:
    return (
        "Bars: median over studies. Whiskers: fastest to slowest study, with an arrow if a study missed. "
        "✕ miss: at least half of the studies missed. n/N: studies that hit. Dashed: "
        f"{board.rules.tau_max:g} × the fastest, beyond which the score counts a miss."
    )


def _bars_caption(board: Board, workload: str) -> Html:
    more = len(board.ranking) - SHOWN
    rest = f"; the first {SHOWN} of {len(board.ranking)} algorithms" if more > 0 else ""
    return el("span", el("b", workload), f" {goal_of(board, workload)}{rest}")

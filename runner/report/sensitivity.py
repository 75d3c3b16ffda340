"""Sensitivity: time to target over two hyperparameters, the good region, and what matters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from runner.boards.sheets import DASH, number, percent
from runner.report.html import Html, el
from runner.report.material import Group, Material, Record, numbers, rows
from runner.report.palette import Mark
from runner.report.scales import Scale, covering, tick_text
from runner.report.svg import Chart, cut, drawing, short
from runner.report.tables import Cell, Column, folded, none, table, word
from runner.stats.axes import Axis

MAPPED = 12  # algorithms whose maps are drawn
KINDS = (
    (1.25, 6.0, 1.0),
    (2.0, 5.0, 0.72),
    (4.0, 4.0, 0.45),
    (math.inf, 3.2, 0.25),
)  # within, radius, opacity
NOTE = (
    "One point per cell, larger and darker the closer it is to the algorithm's best time: within 1.25 ×, 2 "
    "×, 4 ×, or beyond; ✕ missed. Dotted: the search space. The good region contains the settings within 2 "
    "× of the best; its width is a share of the searched range. Explained variance: the share of the "
    "variance of ranks that one hyperparameter explains on its own; * if more than chance."
)


def section(material: Material) -> list[Html]:
    """One fold per algorithm."""
    parts = (
        [el("p", NOTE, class_="note"), key()]
        if any(any(g.findings.axes.values()) for g in material.groups)
        else []
    )
    for place, (group, heading) in enumerate(material.each()):
        parts += heading
        varied = [mark for mark in group.marks if group.findings.axes.get(mark.label)]
        if not varied:
            parts.append(
                none(
                    "no sensitivity analysis: only one setting of each algorithm was run, or none is recorded"
                )
            )
            continue
        for k, mark in enumerate(varied[:MAPPED]):
            parts.append(
                folded(
                    f"{mark.number} {mark.label}".strip(),
                    *_algorithm(material, group, mark, f"{place + 1}"),
                    opened=k == 0,
                )
            )
        if len(varied) > MAPPED:
            parts.append(none(f"showing the first {MAPPED} of {len(varied)} tuned algorithms"))
        if still := [mark.label for mark in group.marks if mark not in varied]:
            parts.append(none(f"only one setting, or none recorded: {cut(', '.join(still), 300)}"))
    return parts


def key() -> Html:
    """What the points of a map say."""
    shapes: list[Html] = []
    names = ("≤ 1.25 × best", "≤ 2 ×", "≤ 4 ×", "slower")
    for k, ((_, radius, opacity), name) in enumerate(zip(KINDS, names, strict=True)):
        shapes.append(el("circle", class_="q", cx=8 + 104 * k, cy=9, r=radius, fill_opacity=opacity))
        shapes.append(el("text", name, x=18 + 104 * k, y=13))
    shapes.append(el("path", class_="x", d="M420,5l8,8m0,-8l-8,8"))
    shapes.append(el("text", "missed", x=434, y=13))
    return el(
        "div",
        drawing(480, 18, "Key of the maps", "Size and shade show how close to the best", shapes),
        class_="key",
    )


def _algorithm(material: Material, group: Group, mark: Mark, place: str) -> list[Html]:
    axes = group.findings.axes[mark.label]
    plain = [axis for axis in axes if not axis.choices]
    parts: list[Html] = []
    if len(plain) >= 2:
        parts += _maps(material, group, mark, plain[0], plain[1], place)
    elif plain:
        parts += _strips(material, group, mark, plain[0], place)
    else:
        parts.append(none("no map: it has no two hyperparameters in a range"))
    return [*parts, _regions(group, mark)]


def _maps(material: Material, group: Group, mark: Mark, x: Axis, y: Axis, place: str) -> list[Html]:
    found = group.findings.map(mark.label, x.key, y.key)
    if found.reason:
        return [none(f"no map: {found.reason}")]
    figures = []
    for workload in group.workloads:
        own = found.frame.loc[found.frame["workload"] == workload]
        if len(own):
            missed = int(own["missed"].sum())
            caption = el("span", el("b", workload), f" n = {len(own)}, {missed} missed")
            svg = scatter(own, x, y, workload, mark.label)
            figures.append(material.figure(f"map-{place}-{mark.label}-{workload}", svg, caption))
    return [el("div", figures, class_="plots small")] if figures else [none("no map: no cell has a target")]


def _strips(material: Material, group: Group, mark: Mark, x: Axis, place: str) -> list[Html]:
    """One hyperparameter alone: the times above it."""
    found = group.findings.map(mark.label, x.key, x.key)
    if found.reason:
        return [none(f"no map: {found.reason}")]
    figures = []
    for workload in group.workloads:
        own = found.frame.loc[found.frame["workload"] == workload]
        if len(own):
            svg = strip(own, x, workload, mark.label, material.rules.by)
            figures.append(material.figure(f"map-{place}-{mark.label}-{workload}", svg, el("b", workload)))
    return [el("div", figures, class_="plots small")] if figures else [none("no map: no cell has a target")]


def scatter(own: pd.DataFrame, x: Axis, y: Axis, workload: str, label: str) -> Html:
    """Points of the search; the best ones on top."""
    xs, ys, times = numbers(own, "x"), numbers(own, "y"), numbers(own, "time")
    chart = Chart(axis_scale(x, xs), axis_scale(y, ys), width=300, height=220, left=62)
    chart.axes(x.key.rpartition(".")[2], y.key.rpartition(".")[2])
    _searched(chart, x, y)
    best = float(np.min(times, initial=math.inf))
    for k in np.argsort(-times, kind="stable").tolist():
        where = f"{x.key} {xs[k]:.4g}, {y.key} {ys[k]:.4g}"
        _point(chart, float(xs[k]), float(ys[k]), float(times[k]), best, where)
    words = f"Time to target of {cut(label, 60)} over {x.key} and {y.key}; the best {number(best)}"
    return chart.svg(f"{cut(label, 60)} on {cut(workload, 60)}", words)


def strip(own: pd.DataFrame, x: Axis, workload: str, label: str, by: str) -> Html:
    """Time to target over one hyperparameter; misses along the top."""
    xs, times = numbers(own, "x"), numbers(own, "time")
    hits = times[np.isfinite(times)]
    chart = Chart(axis_scale(x, xs), covering(hits, log=True, margin=0.15), width=300, height=220, left=62)
    chart.axes(x.key.rpartition(".")[2], f"{by}, logarithmic")
    best = float(np.min(times, initial=math.inf))
    for place, time in zip(xs, times, strict=True):
        _point(
            chart, place, time if math.isfinite(time) else chart.y.high, time, best, f"{x.key} {place:.4g}"
        )
    return chart.svg(f"{cut(label, 60)} on {cut(workload, 60)}", f"Time to target over {x.key}")


def axis_scale(axis: Axis, tried: np.ndarray) -> Scale:
    """The searched range and whatever was tried beside it, the defaults for one."""
    ends = [value for value in (axis.low, axis.high) if math.isfinite(value)]
    return covering([*ends, *tried], log=axis.log, margin=0.06)


def _searched(chart: Chart, x: Axis, y: Axis) -> None:
    if x.declared and y.declared:
        left, right = (short(float(chart.px(value))) for value in (x.low, x.high))
        bottom, top = (short(float(chart.py(value))) for value in (y.low, y.high))
        chart.inside.append(
            el(
                "path",
                class_="axis",
                fill="none",
                stroke_dasharray="1 3",
                d=f"M{left},{bottom}H{right}V{top}H{left}Z",
            )
        )


def _point(chart: Chart, x: float, y: float, time: float, best: float, where: str) -> None:
    px, py = float(chart.px(x)), float(chart.py(y))
    if not (math.isfinite(px) and math.isfinite(py)):
        return
    if not math.isfinite(time):
        title = el("title", f"{where}: missed")
        chart.over.append(
            el("path", title, class_="x", d=f"M{short(px - 3.5)},{short(py - 3.5)}l7,7m0,-7l-7,7")
        )
        return
    ratio = time / best if best > 0 else 1.0 if time == best else math.inf
    radius, opacity = next((r, o) for within, r, o in KINDS if ratio <= within)
    title = el("title", f"{where}: {number(time)}, {ratio:.2f} × the best")
    chart.over.append(
        el("circle", title, class_="q", cx=short(px), cy=short(py), r=radius, fill_opacity=opacity)
    )


# -- the good region and what matters ---------------------------------------------------------------


def _regions(group: Group, mark: Mark) -> Html:
    regions, matters = group.findings.regions, group.findings.importance
    if regions.reason:
        return none(f"no good region: {regions.reason}")
    own = rows(regions.frame.loc[regions.frame["label"] == mark.label])
    if not own:
        return none("no good region: none of its trials finished on a workload with a target")
    matter = [] if matters.reason else rows(matters.frame.loc[matters.frame["label"] == mark.label])
    known = {(row["workload"], row["hyperparameter"]): row for row in matter}
    columns = [
        word("workload"), Column("good", hint="settings within 2 × the best, of all"),
        word("hyperparameter"), Column("good from"), Column("to"),
        Column("width", hint="share of the searched range"), word("interval"),
        Column("explains", hint="share of the variance of the times' ranks"), Column("p"), word("note"),
    ]  # fmt: skip
    fold = folded("The good region, in numbers", table(columns, [_region(row, known) for row in own], name=2))
    return el("div", _matters(group, own, known), fold)


def _matters(group: Group, own: Sequence[Record], known: Mapping[tuple[str, str], Record]) -> Html:
    """Explained variance, width of the good region: one row per hyperparameter, one column per workload."""
    keys = [key for key in dict.fromkeys(row["hyperparameter"] for row in own) if isinstance(key, str)]
    if not keys:
        reasons = dict.fromkeys(str(row["reason"]) for row in own)
        return none(f"no good region: {'; '.join(reasons)}")
    widths = {(row["workload"], row["hyperparameter"]): row["width"] for row in own}
    columns = [
        word("hyperparameter"),
        *(Column(cut(name, 28), hint=name) for name in group.workloads),
    ]
    body = [
        [key, *(_matter(known.get((name, key)), widths.get((name, key))) for name in group.workloads)]
        for key in keys
    ]
    caption = "Share of the variance explained on each workload; below it, the width of the good region"
    return table(columns, body, caption)


def _matter(row: Record | None, width: float | None) -> Cell:
    share = math.nan if row is None else row["share"]
    star = "*" if row is not None and row["matters"] is True else ""
    shown = [f"{percent(share)}{star}", el("small", "width ", DASH if width is None else percent(width))]
    return Cell(shown, share, css="sure" if star else "")


def _region(row: Record, known: Mapping[tuple[str, str], Record]) -> Sequence[object]:
    matter = known.get((row["workload"], row["hyperparameter"]), {})
    if not matter:
        matter = next(
            (r for (workload, _), r in known.items() if workload == row["workload"] and r["reason"]), {}
        )
    share, p = matter.get("share", math.nan), matter.get("p", math.nan)
    star = "*" if matter.get("matters") is True else ""
    twin = matter.get("confounded")
    twin = f"always varied together with {twin}" if isinstance(twin, str) and twin else ""
    notes = dict.fromkeys(
        str(note)
        for note in (row["reason"], matter.get("reason", ""), twin)
        if isinstance(note, str) and note
    )
    key = row["hyperparameter"] if isinstance(row["hyperparameter"], str) else DASH
    return [
        row["workload"], Cell(f"{_count(row['good'])}/{_count(row['settings'])}", row["share"]), key,
        Cell(_value(row["low"]), row["low"]), Cell(_value(row["high"]), row["high"]),
        Cell(percent(row["width"]), row["width"]), _between(row["width_low"], row["width_high"]),
        Cell(f"{percent(share)}{star}", share, css="sure" if star else ""),
        Cell(DASH if math.isnan(p) else f"{p:.2g}", p),
        "; ".join(notes),
    ]  # fmt: skip


def _count(value: object) -> str:
    return "0" if value is None or value != value or value is pd.NA else str(value)


def _value(value: float) -> str:
    return DASH if math.isnan(value) else tick_text(value)


def _between(low: float, high: float) -> str:
    return DASH if math.isnan(low) else f"{percent(low)} to {percent(high)}"

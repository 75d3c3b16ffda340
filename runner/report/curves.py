"""Validation against samples, seconds and steps, with the target: medians over studies."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from runner.compose.values import UNITS
from runner.report.html import Html, el
from runner.report.material import Group, Material, by_label, first, numbers
from runner.report.palette import COLOURED, Mark
from runner.report.runs import POINTS, Curve, Runs, picked
from runner.report.scales import Scale, covering
from runner.report.svg import Chart, cut, legend
from runner.report.tables import none

NAMES = {"samples": "samples (gradient equivalents)", "seconds": "charged seconds", "steps": "steps"}
DRAWN = 4000  # points of a chart, about
SHIFTS = [(12 * right, down) for right in (0, 1, -1, 2) for down in (0, -11)] + [(0, 20), (12, 20), (24, 20)]
FAR = 3.0  # times as far from the top as usual: out of the picture
NOTE = (
    "Each study is represented by the run that tuning selects: the fastest hit, or else the best run. Lines: "
    "median over studies; a run that has ended keeps its last value, and a line ends once more than half of "
    "its runs have ended. Bands: from the study at or just below the lower quartile to the one at or just "
    "above the upper quartile. ● the median hits the target, ○ it does not; numbers as in the legend."
)


def section(material: Material) -> list[Html]:
    """Small multiples, one tab per unit."""
    parts: list[Html] = []
    runs = Runs(material.inputs.evals)
    units = [unit for unit in UNITS if runs.has(unit)]
    if not units:
        return [none("no evaluations, so there are no curves")]
    if absent := [unit for unit in UNITS if unit not in units]:
        parts.append(none(f"no curves by {' and '.join(absent)}: not recorded in these tables"))
    for place, (group, heading) in enumerate(material.each()):
        panels = {unit: list(_charts(material, group, runs, unit, f"{place + 1}")) for unit in units}
        drawn = {unit: charts for unit, charts in panels.items() if charts}
        parts += heading
        if not drawn:
            parts.append(none("none of these cells has an evaluation of its metric"))
            continue
        parts += [legend(group.marks), tabs(f"curves-{place + 1}", _first(drawn, material.rules.by))]
    return [*parts, el("p", NOTE, class_="note")]


def tabs(name: str, panels: Mapping[str, Sequence[Html]]) -> Html:
    """Panels of which one is shown; without scripts, and in print, all are."""
    buttons = [
        el("button", unit, type="button", role="tab", id=f"{name}-{k}-tab", aria_controls=f"{name}-{k}",
           aria_selected="true" if k == 0 else "false", tabindex=None if k == 0 else "-1")
        for k, unit in enumerate(panels)
    ]  # fmt: skip
    bodies = [
        el("div", el("h4", unit), el("div", list(charts), class_="plots"), role="tabpanel", id=f"{name}-{k}",
           aria_labelledby=f"{name}-{k}-tab", class_="panel")
        for k, (unit, charts) in enumerate(panels.items())
    ]  # fmt: skip
    return el("div", el("div", buttons, role="tablist"), bodies, class_="tabs")


def _first(panels: Mapping[str, Sequence[Html]], unit: str) -> dict[str, Sequence[Html]]:
    """The unit of the board in front."""
    order = [unit] * (unit in panels) + [name for name in panels if name != unit]
    return {name: panels[name] for name in order}


def _charts(material: Material, group: Group, runs: Runs, unit: str, place: str) -> Iterator[Html]:
    best = picked(group.cells, unit if f"{unit}_to_target" in group.cells else material.rules.by)
    for workload in group.workloads:
        own = best.loc[best["workload"] == workload]
        metric = first(own, "metric")
        curves = curves_of(own, runs, unit, f"validation/{metric}", group.marks)
        if curves:
            target, minimize = first(own, "target"), bool(first(own, "minimize"))
            target = float(target) if target is not None and math.isfinite(float(target)) else None
            drawing = chart(curves, unit, str(metric), target, minimize, workload)
            waiting = int((~own["status"].isin(["done", "diverged"])).sum())
            caption = el(
                "span", el("b", workload), _range(curves), f"; {waiting} unfinished" if waiting else ""
            )
            yield material.figure(f"curve-{place}-{workload}-{unit}", drawing, caption)


def curves_of(
    own: pd.DataFrame, runs: Runs, unit: str, column: str, marks: Sequence[Mark]
) -> dict[Mark, Curve]:
    """The curve of each algorithm on one workload, best first."""
    if not runs.has(column):
        return {}
    points = min(POINTS, max(16, DRAWN // max(1, len(set(own["label"])))))
    ids, times = own["id"].to_numpy(), numbers(own, f"{unit}_to_target")
    curves = {
        mark: runs.curve(ids[places].tolist(), times[places], unit, column, points)
        for mark, places in by_label(own, marks).items()
    }
    return {mark: curve for mark, curve in curves.items() if curve is not None}


def chart(
    curves: dict[Mark, Curve], unit: str, metric: str, target: float | None, minimize: bool, workload: str
) -> Html:
    """One workload."""
    far = max(float(curve.x[-1]) for curve in curves.values())
    x = covering([0.0, far], zero=True)
    drawn = Chart(x, window(list(curves.values()), target, minimize), top=24)
    drawn.axes(NAMES[unit], f"validation {metric}")
    for mark, curve in reversed(curves.items()):
        if mark.place < COLOURED and curve.studies > 1:
            drawn.band(curve.x, curve.low, curve.high, mark)
    for mark, curve in reversed(curves.items()):
        drawn.line(curve.x, curve.median, mark, f"{mark.label}, n = {curve.studies}")
    if target is not None:
        drawn.level(target, f"target {'≤' if minimize else '≥'} {target:g}")
    _ends(drawn, curves)
    words = f"Median over studies of {len(curves)} algorithms by {unit}"
    return drawn.svg(f"Validation {metric} on {cut(workload, 80)}", words)


def window(curves: Sequence[Curve], target: float | None, minimize: bool) -> Scale:
    """The values round the target, where runs are told apart; the first evaluations lie outside.

    Every algorithm's best value is inside, unless it is much further from the target than most.
    """
    sign = -1.0 if minimize else 1.0
    ends = np.array([float(np.max(sign * curve.median)) for curve in curves])
    top = max(float(ends.max()), -math.inf if target is None else sign * target)
    usual = float(np.sort(ends)[len(ends) // 2])
    better = [sign * curve.median for curve, end in zip(curves, ends, strict=True) if end >= usual]
    low = min(usual, float(np.quantile(np.concatenate(better), 0.3)))
    near = ends[ends >= top - FAR * (top - low)]
    return covering([sign * min(low, float(near.min())), sign * top], margin=0.06)


def _ends(drawn: Chart, curves: dict[Mark, Curve]) -> None:
    """A dot where each curve ends, and the rank beside it; numbers are kept apart."""
    ends = {
        mark: (float(curve.x[-1]), float(curve.median[-1])) for mark, curve in curves.items() if mark.number
    }
    for mark, (x, y) in reversed(ends.items()):
        curve = curves[mark]
        words = f"{mark.label}: {curve.median[-1]:.4g} at {x:,.4g}, n = {curve.studies}"
        drawn.dot(x, float(np.clip(y, drawn.y.low, drawn.y.high)), mark, words, not math.isfinite(curve.time))
    late = {mark: y for mark, (x, y) in ends.items() if float(drawn.px(x)) > drawn.right - 16}
    drawn.end_numbers(late)
    taken: list[tuple[float, float]] = []
    for mark, (x, y) in sorted(ends.items(), key=lambda item: item[1][0]):
        if mark not in late:
            place = _free(float(drawn.px(x)), float(np.clip(drawn.py(y), drawn.top, drawn.bottom)) - 7, taken)
            taken.append(place)
            drawn.number(*place, mark)


def _free(px: float, py: float, taken: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """A place near this one where no number is yet: above it, else below, else further on."""
    places = [(px + right, py + down) for right, down in SHIFTS if py + down > 8]
    free = (p for p in places if not any(abs(p[0] - a) < 12 and abs(p[1] - b) < 10 for a, b in taken))
    return next(free, (px, py))


def _range(curves: Mapping[Mark, Curve]) -> str:
    counts: list[Any] = sorted({curve.studies for curve in curves.values()})
    return f" n = {counts[0]}" + (f"–{counts[-1]}" if len(counts) > 1 else "") + " studies"

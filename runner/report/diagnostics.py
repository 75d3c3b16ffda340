"""What was recorded at evaluations besides the metrics: norms of gradients, updates and weights."""

from __future__ import annotations

import numpy as np

from runner.report.curves import NAMES, curves_of, tabs
from runner.report.html import Html, el
from runner.report.material import Material
from runner.report.palette import Mark
from runner.report.runs import Curve, Runs, picked
from runner.report.scales import covering
from runner.report.svg import Chart, cut, legend
from runner.report.tables import none

PREFIX = "diag/"
NOTE = "Medians over the studies' best runs, as above; the axis is logarithmic if all values are positive."


def section(material: Material) -> list[Html]:
    """One tab per quantity, one chart per workload."""
    runs = Runs(material.inputs.evals)
    columns = [
        str(name) for name in material.inputs.evals if str(name).startswith(PREFIX) and runs.has(str(name))
    ]
    unit = next((u for u in (material.rules.by, "samples", "seconds", "steps") if runs.has(u)), None)
    if not columns or unit is None:
        return [none("these runs recorded no diagnostics (columns diag/… of their evaluations)")]
    parts: list[Html] = []
    for place, (group, heading) in enumerate(material.each()):
        best = picked(group.cells, material.rules.by)
        panels: dict[str, list[Html]] = {}
        for column in columns:
            name = column.removeprefix(PREFIX).replace("_", " ")
            for workload in group.workloads:
                own = best.loc[best["workload"] == workload]
                if curves := curves_of(own, runs, unit, column, group.marks):
                    svg, caption = chart(curves, unit, name, workload), el("b", workload)
                    figure = material.figure(f"diag-{place + 1}-{name}-{workload}", svg, caption)
                    panels.setdefault(name, []).append(figure)
        parts += heading
        parts += (
            [legend(group.marks), tabs(f"diag-{place + 1}", panels)]
            if panels
            else [none("none of these cells recorded diagnostics")]
        )
    return [*parts, el("p", NOTE, class_="note")]


def chart(curves: dict[Mark, Curve], unit: str, name: str, workload: str) -> Html:
    """One quantity on one workload."""
    values = np.concatenate([curve.median for curve in curves.values()])
    log = bool((values[np.isfinite(values)] > 0).all())
    x = covering([0.0, *(float(curve.x[-1]) for curve in curves.values())], zero=True)
    drawn = Chart(x, covering(values, log=log, margin=0.05))
    drawn.axes(NAMES[unit], name)
    for mark, curve in reversed(curves.items()):
        drawn.line(curve.x, curve.median, mark, f"{mark.label}, n = {curve.studies}")
    drawn.end_numbers({mark: float(curve.median[-1]) for mark, curve in curves.items()})
    return drawn.svg(
        f"{name} on {cut(workload, 80)}", f"Median over studies of {len(curves)} algorithms by {unit}"
    )

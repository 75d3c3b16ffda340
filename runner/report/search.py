"""Was the search wide enough, and would one setting do for all workloads?"""

from __future__ import annotations

import json
import math

from runner.boards.sheets import DASH
from runner.report.evidence import ratio
from runner.report.html import Html, el
from runner.report.material import Material, Record, rows
from runner.report.scales import tick_text
from runner.report.tables import Cell, Column, code, none, table, word


def edges_section(material: Material) -> list[Html]:
    """Best trials on the border of their search space, and the command that searches further."""
    parts: list[Html] = []
    for group, heading in material.each():
        parts += heading
        found = group.findings.edges
        if found.reason:
            tuned = any(group.findings.axes.values())
            parts.append(
                none(
                    found.reason
                    if tuned
                    else "nothing was searched: only one setting of each algorithm was run"
                )
            )
            continue
        lines = rows(found.frame)
        columns = [
            word("algorithm"), word("workload"),
            word("hyperparameter"), word("end"), Column("best"), Column("bound"),
            Column("studies there", hint="studies whose best trial lies on this border"),
            Column("chance", hint="how often this happens for a hyperparameter that has no effect"),
            word("warning"),
        ]  # fmt: skip
        body = [
            [
                row["label"], row["workload"], row["hyperparameter"], row["side"], _shown(row["value"]),
                _shown(row["bound"]),
                Cell(f"{row['studies_at_border']}/{row['studies']}", row["studies_at_border"]),
                Cell(f"{row['chance']:.2g}", row["chance"]), row["warning"],
            ]
            for row in lines
        ]  # fmt: skip
        parts.append(table(columns, body))
        commands = {str(row["label"]): str(row["command"]) for row in lines if row["command"]}
        parts += (
            [
                el(
                    "ul",
                    [el("li", f"{label}, wider: ", code(line)) for label, line in commands.items()],
                    class_="commands",
                )
            ]
            if commands
            else [
                none("no command for a wider search: the search space is unknown or ends at a natural bound")
            ]
        )
    return parts


def one_section(material: Material) -> list[Html]:
    """The regret of the best single setting."""
    parts = (
        [] if all(group.findings.one.reason for group in material.groups) else [el("p", NOTE, class_="note")]
    )
    for group, heading in material.each():
        parts += heading
        found = group.findings.one
        if found.reason:
            parts.append(none(f"no single setting: {found.reason}"))
            continue
        columns = [
            word("algorithm"), Column("settings", hint="settings run on all workloads, which are compared"),
            Column("hits", hint="workloads it hits, out of those that any setting hits"),
            Column("ratio", hint="geometric mean over the workloads it hits"),
            Column("held-out hits", hint="chosen on the other workloads"), Column("held-out ratio"),
            word("setting"),
        ]  # fmt: skip
        order = {mark.label: mark.place for mark in group.marks}
        lines = sorted(rows(found.frame), key=lambda row: order.get(str(row["label"]), 0))
        parts.append(table(columns, [_one(row) for row in lines]))
    return parts


NOTE = (
    "The single setting that hits the most workloads; ties are broken by how close it comes to the best "
    "setting of each workload. A ratio of 1 means no regret. The setting is chosen on the same runs that "
    "give its ratio, which is optimistic; the held-out columns choose it on the other workloads, which is "
    "pessimistic. The true regret usually lies in between."
)


def _one(row: Record) -> list[object]:
    if row["reason"]:
        blank = [Cell(DASH)] * 4
        return [row["label"], Cell(_count(row["settings"]), row["settings"]), *blank, row["reason"]]
    held = f"{_count(row['held_out_hits'])}/{row['workloads']}"
    return [
        row["label"], Cell(row["settings"], row["settings"]),
        Cell(f"{row['hits']}/{row['workloads']}", row["hits"]),
        Cell(ratio(row["ratio"]), row["ratio"]), Cell(held, row["held_out_hits"]),
        Cell(ratio(row["held_out_ratio"]), row["held_out_ratio"]), _setting(row),
    ]  # fmt: skip


def _setting(row: Record) -> Html:
    """Study and trial, and the hyperparameters."""
    try:
        values = json.loads(row["setting"])
    except (TypeError, ValueError):
        values = {}
    said = ", ".join(f"{key} {_shown(value)}" for key, value in values.items())
    return el("span", f"study {row['study']}, trial {row['trial']}", f": {said}" if said else "")


def _count(value: object) -> str:
    return "0" if value is None or value != value else str(value)


def _shown(value: object) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return DASH if math.isnan(value) else tick_text(float(value))
    return str(value)

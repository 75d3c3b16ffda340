"""Where the numbers come from, what is missing, and how to read them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from runner.base.errors import one_line
from runner.boards.render import READING
from runner.report.html import Html, el
from runner.report.material import Material, Record
from runner.report.svg import cut
from runner.report.tables import Cell, facts, line_with_command, none, table, word

SHOWN = 8  # kinds of a thing


def manifest_section(material: Material) -> list[Html]:
    """Commits, machines, threads, packages and data, each with its number of cells."""
    if not material.origin:
        return [none("no manifest: the cells' folders are not available, and the tables contain none")]
    parts: list[Html] = []
    for name, kinds in material.origin.items():
        parts.append(el("h4", name))
        if not isinstance(kinds, list) or not kinds:
            parts.append(none("not recorded"))
            continue
        parts.append(_data(kinds) if name == "data" else _kinds(kinds))
    return parts


def _kinds(kinds: Sequence[Any]) -> Html:
    lines = []
    for kind in kinds[:SHOWN]:
        kind = kind if isinstance(kind, Mapping) else {"value": kind, "cells": "?"}
        lines.append((f"{kind.get('cells', '?')} cells", _words(kind.get("value"))))
    more = [(f"{len(kinds) - SHOWN} more", "")] if len(kinds) > SHOWN else []
    return facts([*lines, *more])


def _data(kinds: Sequence[Record]) -> Html:
    columns = [
        word("workload"),
        word("part"),
        word("checksum"),
    ]
    body = [
        [cut(str(kind["workload"]), 60), str(part), _checksum(str(value))]
        for kind in kinds for part, value in kind["value"].items()
    ]  # fmt: skip
    return table(columns, body)


def _checksum(value: str) -> Cell:
    return Cell(el("code", value[:16]), value, title=one_line(value))


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {one_line(_plain(part), 120)}" for key, part in value.items())
    return one_line(_plain(value), 300)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def missing_section(material: Material) -> list[Html]:
    """What is missing, with the commands that fill it."""
    inputs = material.inputs
    if not inputs.headline and not inputs.missing:
        return [none("nothing is missing: every requested cell has finished")]
    parts = [el("p", line, class_="notice") for line in inputs.headline]
    return [*parts, el("ul", [line_with_command(line) for line in inputs.missing], class_="commands")]


def reading_section(material: Material) -> list[Html]:
    """What the words mean."""
    limit = material.rules.tau_max
    worth = READING.replace("(4 − r) / 3", f"({limit:g} − r) / {limit - 1:g}")
    lines = [
        ("cell", "one training run: workload, algorithm, study, trial"),
        (
            "study",
            "one independent repetition of the whole tuning; its trials are the points it tries",
        ),
        ("target", "the validation metric to reach; a hit is the first evaluation that reaches it"),
        (
            "samples",
            "work in gradients of one example: (forward + 2 · backward + 6 · Hessian-vector products) / 3",
        ),
        ("seconds", "charged seconds: set-up and training, excluding evaluation, logging and checkpoints"),
        ("score", worth),
        (
            "≈ not separable",
            "the paired test cannot tell the two apart with these studies, which does not make them equal",
        ),
        ("✕ miss", "the target was not reached within the budget; a miss is later than every hit"),
        ("n", "the number of studies, trials or pairs behind a figure"),
    ]
    return [facts(lines)]

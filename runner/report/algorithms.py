"""A section for every algorithm: its card, hyperparameters, cells, costs and failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from runner.base.errors import one_line
from runner.boards.sheets import number, percent, rough
from runner.cells.tables import hyperparameters
from runner.contract.records import FINISHED
from runner.report import cards
from runner.report.html import Html, el
from runner.report.material import NO_FOLDERS, Group, Material, numbers
from runner.report.palette import Mark
from runner.report.scales import tick_text
from runner.report.svg import cut
from runner.report.tables import Cell, Column, facts, folded, none, table, word

FAILURES = 5  # that are shown, of an algorithm
SHOWN = 100  # algorithms


def section(material: Material) -> list[Html]:
    """One fold per algorithm, in the order of the board."""
    parts: list[Html] = []
    for group, heading in material.each():
        parts += heading
        parts += [_algorithm(material, group, mark) for mark in group.marks[:SHOWN]]
        if len(group.marks) > SHOWN:
            parts.append(none(f"the first {SHOWN} of {len(group.marks)} algorithms"))
    return parts


def _algorithm(material: Material, group: Group, mark: Mark) -> Html:
    own = group.cells.loc[group.cells["label"] == mark.label]
    counts = Counter(map(str, own["status"]))
    tally = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    config = next((c for (_, label), c in material.configs.items() if label == mark.label), None)
    said = el(
        "span", f"{mark.number} {cut(mark.label, 90)} ".lstrip(), el("small", f"{len(own)} cells: {tally}")
    )
    return folded(
        said, *([el("p", mark.label, class_="full")] if len(mark.label) > 90 else []), *_cards(config),
        _hyperparameters(own, config), _cells(own, material.rules.by), _costs(own), *_failures(own),
    )  # fmt: skip


def _cards(config: Mapping[str, Any] | None) -> list[Html]:
    if config is None:
        return [none(f"no card: {NO_FOLDERS}, or its config cannot be read")]
    algorithm = config.get("algorithm")
    found = {(part, target): settings for part, target, settings in cards.targets(algorithm)}
    return [_card(*which, settings) for which, settings in found.items()] or [
        none("no card: its config names no class")
    ]


def _card(part: str, target: str, settings: Mapping[str, Any]) -> Html:
    words = cards.card(target, settings)
    summary = words.partition("\n")[0]
    head = el(
        "span",
        el("b", part),
        " ",
        el("code", target),
        f": {summary}" if summary else " (a library's, or the user's own)",
    )
    rest = words.partition("\n")[2].partition("\nArgs:")[0].strip("\n")
    return folded(head, el("pre", rest)) if rest else el("p", head, class_="card")


def _hyperparameters(own: pd.DataFrame, config: Mapping[str, Any] | None) -> Html:
    tried = [str(name) for name in own if str(name).startswith("hparam/")]
    names = [str(name) for name in own[tried].dropna(axis="columns", how="all")]
    space = (config or {}).get("search_space")
    space = space if isinstance(space, Mapping) else {}
    pairs = []
    for name in names:
        key, values = name.removeprefix("hparam/"), own[name].dropna().tolist()
        pairs.append((key, f"{_tried(values)}{_searched(space.get(key))}"))
    if not pairs and config is not None:
        pairs = [(key, str(value)) for key, value in hyperparameters(config.get("algorithm")).items()]
    if not pairs:
        return none("no hyperparameters are recorded")
    return el("div", el("h5", "Hyperparameters"), facts(pairs))


def _tried(values: Sequence[Any]) -> str:
    distinct = [*dict.fromkeys(values)]
    plain = all(isinstance(v, (int, float, np.number)) and not isinstance(v, bool) for v in distinct)
    if len(distinct) > 4 and plain:
        return (
            f"{tick_text(float(min(distinct)))} to {tick_text(float(max(distinct)))}, {len(distinct)} values"
        )
    shown = ", ".join(tick_text(float(v)) if plain else one_line(str(v), 80) for v in distinct[:4])
    return shown + (f", … {len(distinct)} values" if len(distinct) > 4 else "")


def _searched(entry: Any) -> str:
    if not isinstance(entry, Mapping):
        return ""
    if "choices" in entry:
        return f"; searched: {one_line(str(entry['choices']), 120)}"
    return f"; searched {entry.get('min')} to {entry.get('max')}, {entry.get('scale', 'linear')}"


def _cells(own: pd.DataFrame, by: str) -> Html:
    columns = [
        word("workload"), Column("cells"), Column("finished"), Column("hit"), Column("diverged"),
        Column("failed or unfinished"), Column(f"fastest, {by}"), Column("best metric"),
    ]  # fmt: skip
    needed = ["workload", "status", f"{by}_to_target", "best_metric", "minimize"]
    own = own.loc[:, [name for name in needed if name in own]]
    body = [_on_workload(str(name), rows, by) for name, rows in own.groupby("workload", sort=True)]
    return table(columns, body)


def _on_workload(name: str, rows: pd.DataFrame, by: str) -> list[Any]:
    states = [str(status) for status in rows["status"]]
    finished = np.array([status in FINISHED for status in states])
    times = numbers(rows, f"{by}_to_target")
    hits = int((np.isfinite(times) & finished).sum())
    fastest = float(np.nanmin(times)) if np.isfinite(times).any() else np.inf
    best = numbers(rows, "best_metric")
    minimize = bool((numbers(rows, "minimize") == 1).any())
    top = np.nan if np.isnan(best).all() else float(np.nanmin(best) if minimize else np.nanmax(best))
    ended, diverged, count = int(finished.sum()), states.count("diverged"), len(rows)
    return [
        name, Cell(count, count), Cell(ended, ended), Cell(hits, hits), Cell(diverged, diverged),
        Cell(count - ended, count - ended), Cell(number(fastest), fastest), Cell(number(top, "—"), top),
    ]  # fmt: skip


def _costs(own: pd.DataFrame) -> Html:
    """What its cells spent, in all, and where the time went."""
    pairs = [
        (unit, rough(float(np.nansum(numbers(own, unit)))))
        for unit in ("samples", "seconds", "steps")
        if np.isfinite(numbers(own, unit)).any()
    ]
    clocks = {
        str(n).removeprefix("clock/"): float(np.nansum(numbers(own, str(n))))
        for n in own
        if str(n).startswith("clock/")
    }
    total = sum(clocks.values())
    if total > 0:
        shares = [
            f"{name} {percent(value / total)}"
            for name, value in sorted(clocks.items(), key=lambda c: -c[1])
            if value / total >= 0.005
        ]
        pairs.append(("of the wall time", ", ".join(shares)))
    if not pairs:
        return none("costs are not recorded")
    return el("div", el("h5", "Total cost of all its cells"), facts(pairs))


def _failures(own: pd.DataFrame) -> list[Html]:
    broken = own.loc[~own["status"].isin([*FINISHED, "pending", "running"])]
    if not len(broken):
        return []
    said = Counter(
        (str(status), one_line(str(error)) if error is not None and error == error else "no message")
        for status, error in zip(broken["status"], broken.get("error", [None] * len(broken)), strict=True)
    )
    lines = [
        el("li", f"{count} × {status}: ", el("code", error))
        for (status, error), count in said.most_common(FAILURES)
    ]
    more = [el("li", f"and {len(said) - FAILURES} other messages")] if len(said) > FAILURES else []
    return [el("h5", "Failures"), el("ul", lines, more)]

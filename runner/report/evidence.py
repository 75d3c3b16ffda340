"""Certified crossings, and every algorithm against the next one."""

from __future__ import annotations

import math

from runner.boards.sheets import DASH, number, percent
from runner.report.findings import COMPARED
from runner.report.html import Html, el
from runner.report.material import Group, Material, Record, rows
from runner.report.svg import cut
from runner.report.tables import Cell, Column, folded, none, table, word
from runner.stats.pairs import Comparison

MANY = 1000  # more studies than this are not told apart


def crossing_section(material: Material) -> list[Html]:
    """Where the mean over studies is past the target for good, beside the median first crossing."""
    parts = [el("p", _crossing_note(material), class_="note")]
    for group, heading in material.each():
        parts += heading
        found = group.findings.certified
        if found.reason:
            parts.append(none(f"no certified crossings: {found.reason}"))
            continue
        lines = rows(found.frame)
        certified = sum(bool(row["certified"]) for row in lines)
        said = f"{certified} of {len(lines)} crossings are certified"
        parts.append(el("p", said, ": " if not certified else ".", _why(lines) if not certified else None))
        parts.append(folded("Every workload and algorithm", _crossings(group, lines), opened=certified > 0))
    return parts


def _crossing_note(material: Material) -> str:
    level = f"{100 * material.rules.level:g} %"
    return (
        "If the metric is noisy and evaluated often, a run's first crossing comes too early. ✓: from this "
        "grid point on, the mean over the studies' best runs stays past the target, by a one-sided test at "
        f"{level} over the whole curve. This needs runs that continue after their first hit "
        "(stop_at_target=false)."
    )


def _why(lines: list[Record]) -> str:
    reasons: dict[str, int] = {}
    for row in lines:
        reason = "runs ended at their first hit; use stop_at_target=false"
        reason = reason if "ended at their first hit" in row["reason"] else str(row["reason"])
        reasons[reason] = reasons.get(reason, 0) + 1
    return (
        "; ".join(f"{reason} ({count})" for reason, count in sorted(reasons.items(), key=lambda r: -r[1]))
        + "."
    )


def _crossings(group: Group, lines: list[Record]) -> Html:
    by, order = group.findings.rules.by, {mark.label: mark.place for mark in group.marks}
    columns = [
        word("workload"), word("algorithm"), Column("n"),
        Column("first crossing", hint=f"median over studies, {by}"),
        Column("at most", hint="one-sided bound on that median; — if there are too few studies"),
        word("certified"), Column("from", hint=f"{by}, median over studies"),
        Column("mean there"), Column("p"), word("why not"),
    ]  # fmt: skip
    lines = sorted(lines, key=lambda row: (str(row["workload"]), order.get(str(row["label"]), 0)))
    body = [
        [
            row["workload"], row["label"], Cell(row["studies"], row["studies"]),
            Cell(number(row["first"]), row["first"]), Cell(_bound(row["first_high"]), row["first_high"]),
            _sign(bool(row["certified"])),
            Cell(number(row["at"], DASH), row["at"]), Cell(number(row["mean"], DASH), row["mean"]),
            Cell(_p(row["p"]), row["p"]), row["reason"],
        ]
        for row in lines
    ]  # fmt: skip
    return table(columns, body, name=1)


def _sign(certified: bool) -> Cell:
    return Cell("✓", 1, css="sure") if certified else Cell("✗", 0, css="miss")


def _bound(value: float) -> str:
    return DASH if math.isnan(value) else "unbounded" if math.isinf(value) else number(value)


# -- comparisons ---------------------------------------------------------------------------------------


def versus_section(material: Material) -> list[Html]:
    """Neighbours in full, and a matrix of all."""
    parts: list[Html] = []
    for group, heading in material.each():
        parts += heading
        if group.board is None:
            parts.append(none(f"no ranking, so no adjacent ranks: {group.reason}"))
            continue
        if not group.findings.comparisons:
            parts.append(none("only one algorithm: nothing to compare it with"))
            continue
        parts += [_neighbours(group), _matrix(group)]
        parts.append(el("p", _note(group), class_="note"))
    return parts


def _neighbours(group: Group) -> Html:
    by = group.findings.rules.by
    columns = [
        word("algorithm"), word("next rank"),
        Column("ratio", hint=f"{by} to target, geometric mean where both hit; below 1 is faster"),
        word("interval"), Column("both hit"), Column("only it"), Column("only the next"),
        Column("p"), word("verdict"),
        Column("studies needed", hint="further studies per workload to separate them with 80 % power"),
    ]  # fmt: skip
    body = [_neighbour(comparison) for comparison in group.findings.comparisons]
    more = len(group.marks) - 1 - len(body)
    caption = "Each algorithm against the next rank, paired over workloads and studies"
    return table(columns, body, caption + (f"; the first {len(body)}" if more > 0 else ""))


def _neighbour(comparison: Comparison) -> list[Cell]:
    one = comparison.overall
    verdict = f"{one.faster} is faster" if one.separable else one.reason or "not separable"
    return [
        Cell(comparison.a), Cell(comparison.b),
        Cell(ratio(one.ratio), one.ratio), Cell(interval(one.low, one.high)),
        Cell(f"{one.both_hit}/{one.pairs}", one.both_hit), Cell(one.only_a, one.only_a),
        Cell(one.only_b, one.only_b), Cell(_p(one.p), one.p),
        Cell(verdict, css="" if one.separable else "tied"), Cell(studies(one.more_studies), one.more_studies),
    ]  # fmt: skip


def _matrix(group: Group) -> Html:
    found = group.findings.matrix
    if found.reason:
        return none(found.reason)
    known = {(row["a"], row["b"]): row for row in rows(found.frame)}
    labels = [mark.label for mark in group.marks[:COMPARED]]
    columns = [word(""), *(Column(f"{k + 1}", hint=name) for k, name in enumerate(labels))]
    body = [[f"{k + 1} {cut(a, 40)}", *(_place(known, a, b) for b in labels)] for k, a in enumerate(labels)]
    first = f" (the first {COMPARED})" if len(group.marks) > COMPARED else ""
    caption = f"Row ÷ column: ratio of {group.findings.rules.by} to target where both hit{first}; * separable"
    return folded("All pairs", table(columns, body, caption, sortable=False, css="matrix"))


def _place(known: dict[tuple[str, str], Record], a: str, b: str) -> Cell:
    row, turned = known.get((a, b)), known.get((b, a))
    if row is None and turned is None:
        return Cell("·", css="dim")
    entry = row or turned or {}
    value = entry["ratio"] if row is not None else 1 / entry["ratio"]
    mark = "*" if entry["separable"] else ""
    return Cell(
        f"{ratio(value)}{mark}",
        value,
        css="sure" if mark else "dim",
        title=f"p = {entry['p']:.2g}, {entry['pairs']} pairs",
    )


def _note(group: Group) -> str:
    rules = group.findings.rules
    return (
        f"Each verdict is a separate signed-rank test at {100 * rules.level:g} % over the pairs, in which a "
        "miss ranks beyond every finite ratio; if studies share their trial points, it also tests over "
        "studies. Ratio and interval are from the pairs that both hit. Compare any two: python -m "
        "runner.compare."
    )


def ratio(value: float) -> str:
    """``0.713``; a dash where there is none."""
    return DASH if math.isnan(value) else "∞" if math.isinf(value) else f"{value:.3g}"


def interval(low: float, high: float) -> str:
    """``0.61 to 0.82``."""
    return DASH if math.isnan(low) else f"{ratio(low)} to {ratio(high)}"


def studies(count: float) -> str:
    """How many more; a dash where none are needed or nothing can be said."""
    if math.isnan(count) or count == 0:
        return DASH
    return "∞" if math.isinf(count) else f">{MANY}" if count > MANY else f"{count:.0f}"


def _p(value: float) -> str:
    return DASH if math.isnan(value) else f"{value:.2g}"


__all__ = ["crossing_section", "interval", "percent", "ratio", "studies", "versus_section"]

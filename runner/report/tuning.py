"""Tuning curves: the chance to hit after k trials, and the best metric after k trials."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from runner.boards.sheets import DASH, number, percent
from runner.report.curves import tabs
from runner.report.html import Html, el
from runner.report.material import Group, Material, by_label, numbers, rows
from runner.report.palette import Mark
from runner.report.scales import Scale, covering
from runner.report.svg import Chart, cut, legend
from runner.report.tables import Cell, Column, folded, none, table, word

LOG_FROM = 20  # trials from which k is on a logarithmic axis


def section(material: Material) -> list[Html]:
    """Curves of the chance to hit, what a hit costs, and the expected best metric."""
    parts: list[Html] = []
    for place, (group, heading) in enumerate(material.each()):
        parts += heading
        found = group.findings.hits
        tried = found.frame if found.reason else found.frame.loc[found.frame["reason"] == ""]
        if not len(tried):
            reasons = dict.fromkeys(str(row["reason"]) for row in rows(found.frame))
            parts.append(none(f"no tuning curves: {'; '.join(reasons) or found.reason}"))
            continue
        panels = _panels(material, group, tried, f"{place + 1}")
        parts += [legend(group.marks), tabs(f"tuning-{place + 1}", panels)]
        parts += [
            el("p", _note(group), class_="note"),
            _costs(group),
            *_best(material, group, f"{place + 1}"),
        ]
    return parts


def _panels(material: Material, group: Group, tried: pd.DataFrame, place: str) -> dict[str, list[Html]]:
    """Within the budget; within the best median time; within twice that."""
    kinds = {"within the budget": "budget", "within the best median": "", "within twice that": "2 × "}
    panels: dict[str, list[Html]] = {}
    for k, (words, start) in enumerate(kinds.items()):
        for workload in group.workloads:
            own = tried.loc[tried["workload"] == workload]
            own = own.loc[[_is(str(at), start) for at in own["at"]]]
            if not len(own):
                continue
            time = own["time"].iloc[0]
            limit = "" if math.isinf(time) else f" within {number(time)} {material.rules.by}"
            drawing = chart(own, group.marks, workload, f"hit{limit}")
            caption = el("span", el("b", workload), f" n = {_trials(own)} trials each{limit and ','}{limit}")
            figure = material.figure(f"tuning-{place}-{workload}-{k}", drawing, caption)
            panels.setdefault(words, []).append(figure)
    return panels


def _is(at: str, start: str) -> bool:
    if start == "budget":
        return at == "budget"
    return at.startswith("2 × ") if start else at != "budget" and not at.startswith("2 × ")


def _trials(own: pd.DataFrame) -> str:
    counts = sorted({int(count) for count in own["trials"]})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"


def chart(own: pd.DataFrame, marks: Sequence[Mark], workload: str, what: str) -> Html:
    """The chance as a function of k, with the band of the first two algorithms."""
    last = max(map(int, own["k"]))
    x = Scale(1, last, log=True) if last >= LOG_FROM else covering([1, max(2, last)])
    drawn = Chart(x, Scale(0.0, 1.04))
    drawn.axes("trials tried", f"chance to {cut(what, 34)}", _whole(x, last))
    curves = _curves(own, marks, "probability", "low", "high")
    for mark, (k, _, low, high) in curves.items():
        if mark.place < 2:
            drawn.band(k, low, high, mark)
    for mark, (k, chance, *_) in reversed(curves.items()):
        words = f"{mark.label}: {chance[0]:.0%} after 1 trial, {chance[-1]:.0%} after {k[-1]:.0f}"
        drawn.line(k, chance, mark, words)
    drawn.end_numbers({mark: float(chance[-1]) for mark, (_, chance, *_) in curves.items()})
    return drawn.svg(
        f"Chance to {what} on {cut(workload, 80)}", f"By the number of trials, {len(curves)} algorithms"
    )


def _curves(own: pd.DataFrame, marks: Sequence[Mark], *columns: str) -> dict[Mark, np.ndarray]:
    """Of each algorithm that has rows: k, ascending, and these columns, (1 + columns, k)."""
    own = own.sort_values("k", kind="stable")
    values = np.stack([numbers(own, name) for name in ("k", *columns)])
    return {mark: values[:, places] for mark, places in by_label(own, marks).items()}


def _whole(x: Scale, last: int) -> list[float]:
    ticks = sorted({1.0, *(tick for tick in x.ticks(5) if tick == int(tick))})
    return [tick for tick in ticks if 1 <= tick <= max(2, last)]


def _note(group: Group) -> str:
    return (
        "Probability that at least one of k trials, drawn from those that were run, reaches the target; "
        f"exact over all subsets. Bands (ranks 1 and 2): {100 * group.findings.rules.level:g} %, pointwise."
    )


def _costs(group: Group) -> Html:
    found = group.findings.cost
    if found.reason:
        return none(f"no cost of tuning: {found.reason}")
    by = group.findings.rules.by
    columns = [
        word("workload"), word("algorithm"), Column("trials"), Column("hits"),
        Column("chance of one", hint="share of the trials that hit"), word("interval"),
        Column("trials to the first hit", hint="expected, in any order"),
        Column(f"{by} to it", hint="expected, including the misses before it"), word("why not"),
    ]  # fmt: skip
    body = [
        [
            row["workload"], row["label"], Cell(row["trials"], row["trials"]), Cell(row["hits"], row["hits"]),
            Cell(percent(row["chance"]), row["chance"]), _interval(row["low"], row["high"]),
            Cell(number(row["expected_trials"], DASH), row["expected_trials"]),
            Cell(number(row["expected_cost"], DASH), row["expected_cost"]), row["reason"],
        ]
        for row in rows(found.frame.loc[found.frame["trials"].notna()])
    ]  # fmt: skip
    return folded(f"What the first hit costs ({len(body)} rows)", table(columns, body, name=1))


def _interval(low: float, high: float) -> str:
    return DASH if math.isnan(low) else f"{percent(low)} to {percent(high)}"


def _best(material: Material, group: Group, place: str) -> list[Html]:
    """The expected best metric, from runs that went to their end."""
    found = group.findings.best
    if found.reason:
        return [none(f"no expected best metric: {found.reason}")]
    frame = found.frame
    refused, good = frame.loc[frame["reason"].notna() & frame["k"].isna()], frame.loc[frame["k"].notna()]
    figures = []
    for workload in group.workloads:
        own = good.loc[good["workload"] == workload]
        if len(own) and max(own["k"]) > 1:
            figures.append(
                material.figure(
                    f"best-{place}-{workload}", _best_chart(own, group.marks, workload), el("b", workload)
                )
            )
    parts = [el("h4", "Expected best validation metric after k trials")]
    parts += [el("div", figures, class_="plots")] if figures else []
    if len(refused):
        stopped = sum("stopped at the target" in str(reason) for reason in refused["reason"])
        words = f"{len(refused)} of {len(refused) + len(good.groupby(['workload', 'label']))} pairs left out"
        others = sorted({str(r) for r in refused["reason"] if "stopped at the target" not in str(r)})
        why = [f"{stopped} have runs that stopped at the target (run with stop_at_target=false)"] * bool(
            stopped
        )
        parts.append(none(f"{words}: {'; '.join(why + others)}"))
    return parts


def _best_chart(own: pd.DataFrame, marks: Sequence[Mark], workload: str) -> Html:
    last = max(map(int, own["k"]))
    x = Scale(1, last, log=True) if last >= LOG_FROM else covering([1, last])
    values = own["expected"].to_numpy(float)
    drawn = Chart(x, covering(values, margin=0.05))
    metric = own["metric"].iloc[0]
    drawn.axes("trials tried", f"expected best {metric}", _whole(x, last))
    curves = _curves(own, marks, "expected")
    for mark, (k, expected) in reversed(curves.items()):
        drawn.line(k, expected, mark, mark.label)
    drawn.end_numbers({mark: float(expected[-1]) for mark, (_, expected) in curves.items()})
    return drawn.svg(
        f"Expected best {metric} on {cut(workload, 80)}", "By the number of trials, over all subsets"
    )

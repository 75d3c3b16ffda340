"""The summary boxes: winner, margin, certainty, cost, dependence on tuning, and missing cells."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from runner.boards.board import Board
from runner.boards.sheets import number, percent, rough
from runner.report.evidence import interval, ratio, studies
from runner.report.html import Html, el
from runner.report.material import Group, Material, Record, rows
from runner.report.svg import cut
from runner.report.tables import none
from runner.stats.comparable import absent

NAMED = 3  # algorithms that share a rank, and are named


def notices(material: Material) -> list[Html]:
    """The caveats shown at the top of the page."""
    lines = [*material.inputs.headline]
    for group in material.groups:
        several = f"{group.title}: " if len(material.groups) > 1 else ""
        own = [group.reason] if group.board is None else group.board.notices
        lines += [f"{several}{'no leaderboard: ' * (group.board is None)}{line}" for line in own]
    return [el("p", line, class_="notice") for line in dict.fromkeys(lines)]


def section(material: Material) -> list[Html]:
    """The answers, one box each, for every group."""
    parts = [] if material.groups else [none("no leaderboard: there are no cells")]
    for group, heading in material.each():
        boxes = (
            _ranked(material, group, group.board) if group.board is not None else _unranked(material, group)
        )
        parts += [*heading, el("div", boxes, class_="answers")]
    return parts


def _ranked(material: Material, group: Group, board: Board) -> list[Html]:
    ranking = rows(board.ranking)
    first = [row for row in ranking if row["rank"] == 1]
    return [
        _who(board, first), _margin(group, ranking, first), _sure(group, board, first),
        _cost(group, first[0]), _tuning(group, first[0]), _missing(material, group),
    ]  # fmt: skip


def _who(board: Board, first: list[Record]) -> Html:
    names = ", ".join(cut(str(row["label"]), 60) for row in first[:NAMED])
    more = f" and {len(first) - NAMED} more" if len(first) > NAMED else ""
    row, count = first[0], len(board.goals)
    score = f"{row['score']:.{board.rules.decimals}f}"
    words = f"score {score} on {count} workload{'s' * (count != 1)}, {board.rules}"
    if len(first) > 1:
        words = f"tied for first; {words}"
    return _box("Who won", names + more, words)


def _margin(group: Group, ranking: list[Record], first: list[Record]) -> Html:
    if len(ranking) < 2:
        return _box("By how much", "—", "only one algorithm")
    if len(first) > 1:
        return _box("By how much", "tied", f"{len(first)} algorithms have the same score")
    by, decimals = group.findings.rules.by, group.findings.rules.decimals
    second, ahead = ranking[1], ranking[0]["score"] - ranking[1]["score"]
    head = f"{ahead:+.{decimals}f} over {cut(str(second['label']), 40)}"
    comparison = group.findings.comparisons[0]
    one = comparison.overall
    if math.isnan(one.ratio):
        return _box("By how much", head, "no ratio of times: in no pair did both hit")
    spans = (
        ""
        if math.isnan(one.low)
        else f", {100 * one.interval_level:.3g} % interval {interval(one.low, one.high)}"
    )
    words = f"needs {ratio(one.ratio)} × its {by} where both hit ({one.both_hit} of {one.pairs} pairs{spans})"
    return _box("By how much", head, words)


def _sure(group: Group, board: Board, first: list[Record]) -> Html:
    row, level = first[0], f"{100 * board.rules.level:g} %"
    words = []
    if row["too_few"]:
        words.append("too few studies for an interval of its score")
    elif not absent(row["low"]):
        decimals = board.rules.decimals
        words.append(
            f"score {row['low']:.{decimals}f} to {row['high']:.{decimals}f} ({level}, resampling studies)"
        )
    if not absent(row["rank_stability"]):
        words.append(f"keeps its rank in {percent(row['rank_stability'])} of the resamples")
    if not group.findings.comparisons:
        return _box("How certain", "—", "; ".join(words))
    one = group.findings.comparisons[0].overall
    second = cut(group.marks[1].label, 30)
    if one.separable:
        words.append(f"p = {one.p:.2g} against {second}")
        head = "separable" if one.faster == group.marks[0].label else f"{second} is faster in paired tests"
        return _box("How certain", head, "; ".join(words))
    more = studies(one.more_studies)
    words.insert(0, one.reason or f"p = {one.p:.2g} against {second}")
    words += [f"{more} more studies per workload would be expected to separate them"] * more.strip(
        ">"
    ).isdigit()
    return _box("How certain", f"not separable at {level}", "; ".join(words))


def _cost(group: Group, row: Record) -> Html:
    own = group.cells.loc[group.cells["label"] == row["label"]]
    spent = [
        f"{rough(row[f'spent_{unit}'])} {unit}"
        for unit in ("samples", "seconds")
        if not absent(row.get(f"spent_{unit}"))
    ]
    name, hit = cut(str(row["label"]), 40), percent(row["hit_rate"])
    words = f"all {len(own)} cells of {name}; {hit} of the finished ones hit"
    return _box("At what cost", ", ".join(spent) or "not recorded", words)


def _tuning(group: Group, row: Record) -> Html:
    """Would it hold with other tuning?"""
    title, label = "Dependence on tuning", row["label"]
    cost = group.findings.cost.frame
    own = cost.loc[(cost["label"] == label) & cost["trials"].notna()] if "label" in cost else pd.DataFrame()
    if not len(own):
        return _box(title, "unknown", "only one setting was run, so nothing was tuned")
    chance = float(np.mean(own["chance"].to_numpy(float)))
    edges = group.findings.edges.frame
    truncated = edges.loc[edges["label"] == label] if "label" in edges else pd.DataFrame()
    words = ["chance that a single trial of its search hits, averaged over workloads"]
    if len(truncated):
        keys = dict.fromkeys(f"{r['hyperparameter']} ({r['side']})" for r in rows(truncated))
        words.append(f"best trials lie on the border of the search space for {', '.join(keys)}")
    one = group.findings.one.frame
    best = one.loc[(one["label"] == label) & (one["reason"] == "")] if "label" in one else pd.DataFrame()
    if len(best):
        found = rows(best)[0]
        words.append(
            f"one setting hits {found['hits']} of {found['workloads']} workloads, at "
            f"{ratio(found['ratio'])} × the tuned time"
        )
    return _box(title, percent(chance), "; ".join(words))


def _missing(material: Material, group: Group) -> Html:
    if material.inputs.headline:
        below = "; commands below" if material.inputs.missing else ""
        return _box("Missing cells", "incomplete", material.inputs.headline[0] + below, "bad")
    unfinished = len(group.cells) - len(group.finished)
    if unfinished:
        return _box("Missing cells", f"{unfinished:,} cells", "not finished; see below", "bad")
    return _box("Missing cells", "none", f"all {len(group.cells):,} cells have finished")


def _unranked(material: Material, group: Group) -> list[Html]:
    finished = group.finished
    labels, workloads = group.cells["label"].nunique(), group.cells["workload"].nunique()
    what = (
        f"{len(finished)} of {len(group.cells)} cells finished, {labels} algorithms on {workloads} workloads"
    )
    return [
        _box("Who won", "no leaderboard", group.reason),
        _box("Results so far", number(len(group.cells)) + " cells", what),
        _missing(material, group),
    ]


def _box(question: str, answer: str, words: str, css: str = "") -> Html:
    answer, words = (text.replace(" %", "\u00a0%") for text in (answer, words))  # never on a line of its own
    head = el("p", answer, class_="answer")
    return el("div", el("h3", question), head, el("p", words), class_=f"box {css}".strip())

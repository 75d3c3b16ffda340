"""``python -m runner.compare results/<name> A B``: is A faster than B, by how much, and is that significant?

Paired over (workload, study); docs/statistics.md says what the test and the intervals are.
"""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.base.cli import add_json, leave, print_json
from runner.base.errors import UserError, nearest, one_line
from runner.base.paths import expanded
from runner.compose.values import UNITS

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from runner.base.terminal import Console
    from runner.boards.inputs import Inputs
    from runner.stats.comparable import Part
    from runner.stats.pairs import Comparison

SHORT = 30  # characters of a label in a sentence
MANY = 1000  # more studies than this are not told apart
Row = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Compare and print; 2 for bad input."""
    options = _parser().parse_args(argv)
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    try:
        _compare(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runner.compare",
        description="Compare paired comparison of two algorithms over workloads and studies.",
    )
    add = parser.add_argument
    add("folder", type=expanded, help="results/<name>, imported logs, or a published leaderboard")
    add("a", metavar="A", help="label of an algorithm")
    add("b", metavar="B", help="label of another algorithm")
    add("--by", choices=UNITS, help="unit of time to target (default: samples; seconds for imported logs)")
    add("--study-pick", choices=("time", "eval_index"), default="time", help="trial that represents a study: "
        "the fastest to hit, or the one with the smallest evaluation index (default: time)")  # fmt: skip
    add("--level", type=float, default=0.95, metavar="P", help="confidence level (default: 0.95)")
    add("--csv", type=expanded, metavar="FILE", help="write all numbers to this file")
    add("--allow-mixed", action="store_true", help="compare even cells that are not comparable, and say so")
    add_json(parser)
    return parser


def _compare(options: argparse.Namespace) -> None:
    from runner.base.terminal import Console
    from runner.boards.inputs import read
    from runner.boards.rules import unit_of
    from runner.stats.pairs import compare

    inputs = read(options.folder)
    by = unit_of(inputs.cells, options.by, inputs.imported)
    found = []
    for part in _parts(inputs.cells, options.a, options.b):
        notices = _refused(part, inputs, by, options.allow_mixed)
        pick, level = options.study_pick, options.level
        found.append(
            (part, notices, compare(part.cells, options.a, options.b, by=by, pick=pick, level=level))
        )
    if options.csv:
        _write(options.csv, [(part.title, comparison) for part, _, comparison in found])
    if options.json:
        print_json([as_json(*one) for one in found])
        return
    console = Console(highlight=False)
    for part, notices, comparison in found:
        if len(found) > 1:
            console.print(f"On {part.title}", style="bold underline", markup=False)
        for line in notices:
            console.print(line, markup=False, soft_wrap=True)
        show(comparison, console)


def _parts(cells: pd.DataFrame, a: str, b: str) -> list[Part]:
    """The parts of the table (kinds of data, rulesets) in which both have cells."""
    from runner.stats.comparable import parts

    known = {str(label) for label in cells["label"]}
    for name in (a, b):
        if name not in known:
            raise UserError(f"no algorithm here is called {one_line(name)}: {nearest(name, known)}")
    if a == b:
        raise UserError(f"{one_line(a)} against itself: name two algorithms")
    rows = cells.loc[cells["label"].isin([a, b])]
    found = [part for part in parts(rows, together=True) if {a, b} <= set(part.cells["label"])]
    if not found:
        where = [f"{one_line(name)} is on {_titles(rows.loc[rows['label'] == name])}" for name in (a, b)]
        raise UserError(f"nothing to compare: {'; '.join(where)}")
    return found


def _titles(rows: pd.DataFrame) -> str:
    from runner.stats.comparable import parts

    return " and ".join(part.title for part in parts(rows, together=True))


def _refused(part: Part, inputs: Inputs, by: str, allowed: bool) -> list[str]:
    """Notices about cells that are not comparable; raises unless that is allowed."""
    from runner.stats.comparable import differences, twins

    for place, ids in twins(part.cells):
        raise UserError(f"{len(ids)} cells claim {place}: {' and '.join(ids)}; move one away")
    said = [one_line(str(difference)) for difference in differences(part.cells, by, inputs.sources)]
    if said and not allowed:
        hint = "" if by == "samples" else ", or by samples"
        raise UserError(f"not comparable: {'; '.join(said)} (--allow-mixed compares them anyway{hint})")
    return [f"mixed, on request: {line}" for line in said]


# -- writing and printing ----------------------------------------------------------------------------


def rows_of(comparison: Comparison) -> pd.DataFrame:
    """The comparison as one table: ``scope`` (overall, workload), ``workload``, ``a``, ``b``, all numbers."""
    import pandas as pd

    overall = pd.DataFrame([{"scope": "overall", "workload": "", **asdict(comparison.overall)}])
    frame = pd.concat([overall, comparison.workloads.assign(scope="workload")], ignore_index=True)
    facts = {"a": comparison.a, "b": comparison.b, "by": comparison.by, "level": comparison.level}
    for place, (name, value) in enumerate(facts.items(), start=2):
        frame.insert(place, name, value)
    return frame


def as_json(part: Part, notices: Sequence[str], comparison: Comparison) -> dict[str, Any]:
    """The comparison on one part of the table, for a program: what :class:`Comparison` holds."""
    facts = {"board": part.title, "notices": notices, **vars(comparison)}
    return facts | {"workloads": _records(comparison.workloads)}


def _write(path: Path, found: Iterable[tuple[str, Comparison]]) -> None:
    import pandas as pd

    from runner.base.files import write_text
    from runner.cells.tables import csv_text

    frame = pd.concat([rows_of(one).assign(board=title) for title, one in found], ignore_index=True)
    try:
        write_text(path, csv_text(frame))
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error


def show(comparison: Comparison, console: Console) -> None:
    """Print the overall result, then a table of the workloads."""
    for line in sentences(comparison):
        console.print(line, markup=False, soft_wrap=not console.is_terminal)
    if len(comparison.workloads):
        console.print(_table(comparison, console))
    for line in footnotes(comparison):
        console.print(line, markup=False, soft_wrap=not console.is_terminal)


def sentences(comparison: Comparison) -> list[str]:
    """The overall result in words."""
    one, a, b = comparison.overall, *(one_line(name, SHORT) for name in (comparison.a, comparison.b))
    lines = [f"A = {one_line(comparison.a)}, B = {one_line(comparison.b)}"]
    if math.isnan(one.ratio):
        lines += [f"no ratio of times: in none of {one.pairs} pairs did both hit"]
    else:
        spans = f"; {_percent(one.interval_level)} interval {_interval(asdict(one))}"
        lines += [
            f"{a} needs {_ratio(one.ratio)} x the {comparison.by} of {b} to reach the target where both hit",
            f"  ({one.both_hit} of {one.pairs} pairs{spans if one.interval_level else ''})",
        ]
    lines += [
        f"pairs: {one.only_a} only A hit, {one.only_b} only B, {one.neither} neither, {one.ties} ties; "
        f"hit rates: A {_percent(one.hit_rate_a)}, B {_percent(one.hit_rate_b)}"
    ]
    return lines + _verdict(comparison)


def _verdict(comparison: Comparison) -> list[str]:
    one, level = comparison.overall, _percent(comparison.level)
    if one.separable:
        return [f"separable at {level} (p = {one.p:.2g}): {one_line(one.faster, SHORT)} is faster"]
    more = "how many more studies would separate them is unknown"
    if one.more_studies == math.inf:
        more = "no difference observed: more studies are not expected to separate them"
    elif not math.isnan(one.more_studies):
        studies = (
            f"{_more(one.more_studies)} more {'study' if one.more_studies == 1 else 'studies'} per workload"
        )
        more = f"{studies} would be expected to separate them (power 80 %)"
    because = f": {one.reason}" if one.reason else ""
    return [f"not separable at {level} (p = {one.p:.2g}){because}", f"  {more}"]


def footnotes(comparison: Comparison) -> list[str]:
    """How to read the table."""
    lines = ["A / B: ratio of times, below 1 if A is faster; hit %: of the cells of A and of B"]
    lines += [f"faster: named if separable at {_percent(comparison.level)}"]
    lines += ["studies needed: further studies per workload expected to separate them (power 80 %)"]
    rows = _records(comparison.workloads)
    if any(0 < row["interval_level"] < comparison.level - 1e-9 for row in rows):
        lines += [f"* too few pairs for a {_percent(comparison.level)} interval: lowest to highest ratio"]
    if comparison.shared_points:
        lines += ["overall: a study uses the same trial points on all workloads, so it counts as one unit"]
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row["reason"]:
            reasons.setdefault(row["reason"], []).append(one_line(row["workload"], SHORT))
    return lines + [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]


def _table(comparison: Comparison, console: Console) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else box.ASCII2, pad_edge=False)
    table.add_column("workload", overflow="fold", min_width=8)
    for name in ("A / B", "interval", "hit %", "both hit", "faster", "studies\nneeded"):
        table.add_column(name, justify="right", overflow="fold", no_wrap=name == "interval")
    for row in _records(comparison.workloads):
        hits = f"{_share(row['hit_rate_a'])}, {_share(row['hit_rate_b'])}"
        both = f"{row['both_hit']}/{row['pairs']}"
        mark = "*" if 0 < row["interval_level"] < comparison.level - 1e-9 else ""
        faster = ("A" if row["faster"] == comparison.a else "B") if row["separable"] else "-"
        words = (_ratio(row["ratio"]), _interval(row) + mark, hits, both, faster, _more(row["more_studies"]))
        table.add_row(escape(one_line(row["workload"], 60)), *words)
    return table


def _records(frame: pd.DataFrame) -> list[Row]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def _ratio(value: float) -> str:
    if math.isnan(value):
        return "-"
    return "inf" if math.isinf(value) else f"{value:.3g}"


def _interval(row: Row) -> str:
    if math.isnan(row["low"]):
        return "-"
    return f"{_ratio(row['low'])} to {_ratio(row['high'])}"


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.{3 if share < 0.999 else 6}g} %"


def _share(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.0f}"


def _more(studies: float) -> str:
    if math.isnan(studies) or studies == 0:
        return "-"
    return f">{MANY}" if studies > MANY else f"{studies:.0f}"


if __name__ == "__main__":
    leave(main)

"""``python -m runner.score results/<name>``: the tables of an experiment, and a first leaderboard.

Of the finished cells of a workload and an algorithm (its label), each study counts with its fastest trial
that hit; a study without a hit is infinite, an absent study is absent. The median over studies (the mean of
the middle two where their number is even) is the algorithm's cost on the workload. Over workloads,
algorithms are ranked by the geometric mean of (cost ÷ the lowest cost of any algorithm on that workload);
missing one workload, or having no finished cell there, makes it infinite. A workload that nobody hits ranks
nobody. Among the infinite, those that hit more workloads come first. AlgoPerf's performance profile
(Dahl et al. 2023, arXiv 2306.07179) is not computed here.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from runner.errors import UserError
from runner.files import write_atomic
from runner.records import FINISHED
from runner.tables import load

UNITS = ("samples", "seconds", "steps")
Row = dict[str, Any]
PLACE = ("workload", "label", "study", "trial")
SHOWN = 6  # unfinished cells named under the board


# -- scoring: tables in, tables out ------------------------------------------------------------------


def leaderboard(cells: pd.DataFrame, by: str = "samples") -> pd.DataFrame:
    """One row for each workload and label, best algorithm first.

    Args:
        cells: the ``cells`` table; unfinished rows are left out.
        by: ``samples``, ``seconds`` or ``steps``: what the ranking compares.

    Returns:
        ``rank, label, score, workload``; ``samples``, ``seconds`` and ``steps`` to target (infinite for a
        miss); ``ratio`` to the lowest on the workload; ``hits``, ``finished``, ``hit_rate``, ``studies``,
        ``trials`` (the most in one study); ``best_metric`` (median over cells), ``metric``, ``target``,
        ``minimize``, ``open_division``, ``data``.

    Raises:
        UserError: when two cells claim one place, no cell is finished, or results cannot be compared.
    """
    rows = [row for row in records(cells) if row["status"] in FINISHED]
    if not rows:
        raise UserError(f"no finished cell to score: {tally(cells['status'])}")
    refuse_twins(rows)
    refuse_mixtures(rows, by)
    kinds = sorted({data_kind(row.get("data")) for row in rows})
    if len(kinds) > 1:
        raise UserError(f"results on {' and '.join(kinds)} data never share a board: pick one kind")
    entries = [_entry(group) for group in grouped(rows, "workload", "label").values()]
    for entries_of in grouped(entries, "workload").values():
        best = min(entry[by] for entry in entries_of)
        for entry in entries_of:
            entry["ratio"] = _ratio(entry[by], best)
    places = ranking(entries)
    board = [{**places[entry["label"]], **entry} for entry in entries]
    board.sort(key=lambda row: (row["rank"], row["label"], row["workload"]))
    front = ["rank", "label", "score", "workload"]
    return pd.DataFrame(board, columns=[*front, *(name for name in board[0] if name not in front)])


def data_kind(data: Any) -> str:
    """What a board is made of: ``embedded`` (what comes with the project, drawn or shipped), ``real``, …"""
    if _absent(data):
        return "unknown"
    return "embedded" if data == "synthetic" else str(data)


def by_data(cells: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The table in parts that may share a board: kind of data -> its cells."""
    if "data" not in cells:
        return {"unknown": cells}
    kinds = cells["data"].map(data_kind)
    return {kind: cells.loc[kinds == kind] for kind in sorted(set(kinds))}


def study_costs(rows: Iterable[Row], unit: str) -> dict[Any, float]:
    """Study -> cost of its fastest trial that hit, infinite where none did; of one workload and label."""
    costs: dict[Any, float] = {}
    for row in rows:
        cost = row[f"{unit}_to_target"]
        costs[row["study"]] = min(costs.get(row["study"], math.inf), math.inf if math.isnan(cost) else cost)
    return costs


def ranking(entries: Sequence[Row]) -> dict[str, Row]:
    """Label -> ``rank`` and ``score``, from one entry for each workload and label; equals share a rank."""
    contested = {entry["workload"] for entry in entries if math.isfinite(entry["ratio"])}
    merits: dict[str, tuple[int, float]] = {}
    for (label,), group in grouped(entries, "label").items():
        ratios = [entry["ratio"] for entry in group if math.isfinite(entry["ratio"])]
        mean = math.exp(statistics.fmean(map(math.log, ratios))) if ratios else math.inf
        merits[label] = (len(contested) - len(ratios), mean)
    order = sorted(merits.values())
    return {
        label: {"rank": order.index((missed, mean)) + 1, "score": math.inf if missed else mean}
        for label, (missed, mean) in merits.items()
    }


def refuse_twins(rows: Iterable[Row]) -> None:
    """Raise where two cell ids stand under one (workload, label, study, trial)."""
    for (workload, label, study, trial), group in grouped(rows, *PLACE).items():
        ids = sorted({row["id"] for row in group})
        if len(ids) > 1:
            raise UserError(
                f"{len(ids)} cells stand for {workload} · {label} · study {study} · trial {trial}: "
                f"{' and '.join(ids)}; their configs differ where the label does not say so: give one "
                "of them label=NAME, or move its folder away"
            )


def refuse_mixtures(rows: Iterable[Row], by: str) -> None:
    """Raise where cells of one workload had other targets, or seconds come from unequal machines."""
    machines = ("device", "hardware", "threads") if by == "seconds" else ()
    for (workload,), group in grouped(rows, "workload").items():
        for column in ("metric", "target", "targets", *machines):
            values = sorted({str(row[column]) for row in group if not _absent(row.get(column))})
            if len(values) > 1:
                hint = "; --by samples compares them" if column in machines else ""
                raise UserError(
                    f"cells of {workload} cannot share a board: {column} is {' and '.join(values)}{hint}"
                )


def grouped(rows: Iterable[Row], *keys: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by the values of ``keys``, in the order of the values."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return dict(sorted(groups.items()))


def records(table: pd.DataFrame) -> list[Row]:
    """The rows of a table as dicts."""
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def tally(words: Iterable[str]) -> str:
    """``2 failed, 1 running``."""
    return ", ".join(f"{n} {word}" for word, n in sorted(Counter(words).items()))


def _ratio(cost: float, best: float) -> float:
    if math.isinf(cost):
        return math.inf
    # A target that the initial weights reach costs nothing.
    return 1.0 if cost == best else cost / best if best > 0 else math.inf


def _absent(value: Any) -> bool:
    return value is None or value is pd.NA or value != value


def _entry(rows: Sequence[Row]) -> Row:
    """The finished cells of one workload and label as one row."""
    first, hits = rows[0], sum(row["hit"] is True for row in rows)
    trials = [len(group) for group in grouped(rows, "study").values()]
    best = [row["best_metric"] for row in rows if not math.isnan(row["best_metric"])]
    return {
        **{key: first[key] for key in ("workload", "label")},
        **{unit: statistics.median(study_costs(rows, unit).values()) for unit in UNITS},
        "hits": hits,
        "finished": len(rows),
        "hit_rate": hits / len(rows),
        "studies": len(trials),
        "trials": max(trials),
        "best_metric": statistics.median(best) if best else math.nan,
        **{key: first.get(key) for key in ("metric", "target", "minimize", "open_division")},
        "data": data_kind(first.get("data")),
    }


# -- writing and printing ----------------------------------------------------------------------------


def write_tables(folder: Path, cells: pd.DataFrame, evals: pd.DataFrame) -> None:
    """``cells.csv``, ``cells.parquet`` and ``evals.parquet`` into the experiment's folder."""
    write_csv(folder / "cells.csv", cells)
    write_atomic(folder / "cells.parquet", lambda file: cells.to_parquet(file, index=False))
    write_atomic(folder / "evals.parquet", lambda file: evals.to_parquet(file, index=False))


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """The frame as CSV, in one step."""
    text = frame.to_csv(index=False)
    write_atomic(path, lambda file: file.write(text.encode()))


def show(board: pd.DataFrame, by: str, console: Console) -> None:
    """Print the board: the ranking, then each workload, then what ranks nobody."""
    rows = records(board)
    workloads = grouped(rows, "workload")
    if len(workloads) > 1:
        console.print(_overall(rows, len(workloads), by, console))
    for group in workloads.values():
        console.print(_per_workload(group, by, console))
    for line in _unranked(workloads.values(), by):
        console.print(line, markup=False, soft_wrap=True)


def _overall(rows: Sequence[Row], workloads: int, by: str, console: Console) -> Table:
    table = _table(f"{workloads} workloads, by {by}", ["score", "hit"], console)
    for (rank, _), group in grouped(rows, "rank", "label").items():
        hits = sum(math.isfinite(row[by]) for row in group)
        place = str(rank) if hits else "—"
        table.add_row(place, _name(group[0]), number(group[0]["score"], "—"), f"{hits}/{workloads}")
    return table


def _per_workload(rows: Sequence[Row], by: str, console: Console) -> Table:
    first, goal = rows[0], "no target set"
    if not _absent(first["target"]):
        goal = f"{first['metric']} {'≤' if first['minimize'] else '≥'} {first['target']:g}"
    units = [by, *(unit for unit in UNITS if unit != by)]
    table = _table(f"{first['workload']}: {goal}", [*units, "hits", "studies", "best"], console)
    for row in sorted(rows, key=lambda row: (row[by], row["label"])):
        costs = [number(row[unit], "—" if _absent(row["target"]) else "miss") for unit in units]
        counts = [f"{row['hits']}/{row['finished']}", str(row["studies"])]
        place = str(1 + sum(other[by] < row[by] for other in rows)) if math.isfinite(row[by]) else "—"
        table.add_row(place, _name(row), *costs, *counts, number(row["best_metric"], "—"))
    return table


def _table(title: str, columns: Sequence[str], console: Console) -> Table:
    style = box.SIMPLE_HEAD if console.is_terminal else box.ASCII2
    table = Table(title=escape(title), title_justify="left", title_style="bold", box=style, pad_edge=False)
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("algorithm", overflow="fold", min_width=12)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _name(row: Row) -> str:
    return escape(row["label"]) + (" (open)" if row["open_division"] is True else "")


def number(value: float, missing: str = "miss") -> str:
    """Four significant digits, thousands separated; ``missing`` where infinite or not a number."""
    if not math.isfinite(value):
        return missing
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _unranked(workloads: Iterable[Sequence[Row]], by: str) -> list[str]:
    missed = [rows[0] for rows in workloads if not any(math.isfinite(row[by]) for row in rows)]
    without = [row["workload"] for row in missed if _absent(row["target"])]
    nobody = [row["workload"] for row in missed if not _absent(row["target"])]
    lines = [f"no target, so not ranked: {', '.join(without)}"] if without else []
    return lines + ([f"hit by nobody, so not ranked: {', '.join(nobody)}"] if nobody else [])


def _provisional(rows: Iterable[Row]) -> list[str]:
    names = dict.fromkeys(row["workload"] for row in rows if row.get("provisional") is True)
    if not names:
        return []
    return [f"provisional target, published and not reproduced here (conf/targets): {', '.join(names)}"]


def _unfinished(rows: Iterable[Row]) -> list[str]:
    """``not finished: 1 failed (digits · lion · study 0 · trial 1), …``; nothing where all is done."""
    parts = []
    for (status,), group in grouped((row for row in rows if row["status"] not in FINISHED), "status").items():
        names = ["{workload} · {label} · study {study} · trial {trial}".format(**row) for row in group]
        more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        parts.append(f"{len(names)} {status} ({', '.join(names[:SHOWN])}{more})")
    return [f"not finished: {', '.join(parts)}"] if parts else []


def main(argv: Sequence[str] | None = None) -> int:
    """Write the tables and print the board; 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m runner.score", description="The leaderboard of an experiment."
    )
    parser.add_argument("folder", type=Path, help="the experiment's folder, results/<name>")
    parser.add_argument("--by", choices=UNITS, default="samples", help="what the ranking compares")
    options = parser.parse_args(argv)
    warnings.showwarning = _warn
    try:
        _score(options.folder, options.by, Console(highlight=False))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _score(folder: Path, by: str, console: Console) -> None:
    cells, evals = load(folder)
    try:
        write_tables(folder, cells, evals)
        finished = cells.loc[cells["status"].isin(list(FINISHED))]
        parts = by_data(finished) if len(finished) else {"unknown": cells}
        boards = {kind: leaderboard(part, by) for kind, part in parts.items()}
        write_csv(folder / "leaderboard.csv", pd.concat(boards.values(), ignore_index=True))
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}") from error
    for kind, board in boards.items():
        if len(boards) > 1:
            console.print(f"\nOn {kind} data", style="bold underline")
        show(board, by, console)
    for line in (*_provisional(records(cells)), *_unfinished(records(cells))):
        console.print(line, markup=False, soft_wrap=True)


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

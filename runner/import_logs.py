"""``python -m runner.import_logs LOGS results/<name>``: AlgoPerf's run directories as our tables.

Writes ``cells.parquet``, ``cells.csv``, ``evals.parquet`` and ``imported.json``; no cell's folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.base.cli import leave
from runner.base.errors import UserError
from runner.base.files import write_atomic, write_json
from runner.base.paths import expanded
from runner.cells.tables import csv_text
from runner.importing import layout, logs, targets
from runner.importing.layout import Trial
from runner.importing.notices import Notices
from runner.importing.targets import Goal
from runner.provenance import git

if TYPE_CHECKING:
    import pandas as pd

WORDS = ("id", "workload", "label")
COMPACT = {"index": False, "use_dictionary": list(WORDS)}  # numbers that repeat are few
RECORD = "imported.json"


def load(
    source: Path,
    notices: Notices,
    targets_file: Path | None = None,
    variants: Sequence[str] = (),
    ruleset: str | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The logs as ``cells`` and ``evals``; times in seconds.

    Args:
        source: a folder or an archive with run directories anywhere in it.
        notices: told of everything odd.
        targets_file: targets as CSV; without it they come from the trials' metadata.
        variants: variants of AlgoPerf's workloads to keep, or ``all``; others are left out.
        ruleset: ``external_tuning`` or ``self_tuning`` alone.

    Raises:
        UserError: when there are no logs, or the targets file is not usable.
    """
    from runner.importing import build

    given = targets.from_file(targets_file) if targets_file else None
    found = layout.trials(logs.read(source, notices), notices)
    if not found:
        raise UserError(
            f"{source} holds no run directory: <submission>/study_<k>/<workload>_<framework>/trial_<i>"
        )
    kept = [trial for trial in found if ruleset in (None, trial.ruleset)]
    kept = [trial for trial in kept if _wanted(trial, given, variants, notices)]
    if not kept:
        raise UserError(f"{source} holds {len(found)} trials, none of which match the selection")
    goals = targets.from_metadata(kept, notices) if given is None else given
    for trial in kept:
        if not trial.evals:
            notices.add("trial without eval_measurements.csv: crashed", trial.folder)
    for workload in sorted({trial.workload for trial in kept} - goals.keys()):
        notices.add("workload without a target", workload)
    return build.tables(kept, goals, targets_file.stem if targets_file else "metadata", notices)


def _wanted(trial: Trial, given: dict[str, Goal] | None, variants: Sequence[str], notices: Notices) -> bool:
    if given is not None:
        if trial.workload not in given:
            notices.add(f"workload not in the targets file, left out: {trial.workload}", trial.folder)
        return trial.workload in given
    base = targets.base_of(trial.workload)
    if base == trial.workload or trial.workload in variants or "all" in variants:
        return True
    notices.add(f"variant of {base}, left out (--variants keeps it): {trial.workload}", trial.folder)
    return False


def save(folder: Path, cells: pd.DataFrame, evals: pd.DataFrame, record: dict[str, Any]) -> None:
    """The tables and their record into an experiment's folder that holds no cells of its own.

    Raises:
        UserError: when it holds cells, or cannot be written.
    """
    if (folder / "cells").exists():
        raise UserError(f"{folder} already holds trained cells: import into another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECORD).unlink(missing_ok=True)  # back when all is there
        write_atomic(folder / "cells.csv", lambda file: file.write(csv_text(cells).encode()))
        write_atomic(folder / "cells.parquet", lambda file: cells.to_parquet(file, index=False))
        write_atomic(folder / "evals.parquet", lambda file: evals.to_parquet(file, **COMPACT))
        write_json(folder / RECORD, record)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Import and say what came of it; 2 for bad input."""
    options = _parser().parse_args(argv)
    notices = Notices()
    try:
        cells, evals = load(options.logs, notices, options.targets, options.variants, options.ruleset)
        save(options.folder, cells, evals, _record(options, cells, evals, notices))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not options.quiet:
        for line in notices.lines():
            print(f"notice: {line}", file=sys.stderr)
    print(_said(cells, evals, options.folder))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runner.import_logs", description="Import AlgoPerf logs as an experiment's tables."
    )
    parser.add_argument("logs", type=expanded, metavar="LOGS", help="a folder, .tar.xz, .tar.gz or .zip")
    parser.add_argument("folder", type=expanded, help="the experiment's folder, results/<name>")
    parser.add_argument(
        "--targets", type=expanded, metavar="FILE", help="targets as CSV; default: the metadata's"
    )
    parser.add_argument("--ruleset", choices=layout.RULESETS, help="only trials of this ruleset")
    parser.add_argument(
        "--variants", nargs="+", default=[], metavar="NAME", help="workload variants to keep, or all"
    )
    parser.add_argument("--quiet", action="store_true", help="write notices only to imported.json")
    return parser


def _record(
    options: argparse.Namespace, cells: pd.DataFrame, evals: pd.DataFrame, notices: Notices
) -> dict[str, Any]:
    return {
        "format": "algoperf",
        "source": str(options.logs),
        "targets": str(options.targets) if options.targets else "metadata",
        "ruleset": options.ruleset,
        "variants": options.variants,
        "counts": _counts(cells, evals),
        "rulesets": sorted(cells["ruleset"].unique()),
        "logged_by": sorted(cells["commit"].dropna().unique()),
        "imported_by": git.facts(),
        "notices": notices.records(),
    }


def _counts(cells: pd.DataFrame, evals: pd.DataFrame) -> dict[str, int]:
    return {
        "trials": len(cells),
        "evaluations": len(evals),
        "submissions": len(set(zip(cells["ruleset"], cells["label"], strict=True))),
        "workloads": len(set(cells["workload"])),
        "hits": cells["hit"].tolist().count(True),
        "failed": cells["status"].tolist().count("failed"),
    }


def _said(cells: pd.DataFrame, evals: pd.DataFrame, folder: Path) -> str:
    words = (f"{count:,} {what}" for what, count in _counts(cells, evals).items())
    return f"{', '.join(words)} → {folder}"


if __name__ == "__main__":
    leave(main)

"""``python -m runner.report results/<name>``: the evidence on one page, ``report.html`` beside the tables."""

from __future__ import annotations

import argparse
import sys
import warnings
import webbrowser
from collections.abc import Sequence

from runner.base.cli import leave
from runner.base.errors import UserError
from runner.base.paths import expanded
from runner.compose.values import UNITS
from runner.report import write_folder


def main(argv: Sequence[str] | None = None) -> int:
    """Write the report and print where it is; 2 for bad input."""
    options = _parser().parse_args(argv)
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    try:
        path = write_folder(options.folder, options.by, options.allow_mixed)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(path)
    if options.open == "yes":
        webbrowser.open(path.resolve().as_uri())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runner.report",
        description="Write an experiment's report: one self-contained HTML page, with its figures as SVG.",
    )
    add = parser.add_argument
    add("folder", type=expanded, help="results/<name>, imported logs, or a published leaderboard")
    add("--by", choices=UNITS, help="unit of time to target (default: samples; seconds for imported logs)")
    add("--allow-mixed", action="store_true", help="rank cells that are not comparable; the report says so")
    add("--open", choices=("yes", "no"), default="no", help="open it in the browser (default: no)")
    return parser


if __name__ == "__main__":
    leave(main)

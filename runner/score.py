"""``python -m runner.score results/<name>``: an experiment's tables, its leaderboards, and missing cells.

The rules are AlgoPerf's (docs/scoring.md). Reads cells' folders, imported tables
(:mod:`runner.import_logs`) and published boards; writes ``leaderboard.csv``, ``leaderboard.md``,
``report.html``, ``cells.parquet``, ``cells.csv`` and ``evals.parquet`` into the experiment's folder.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from runner.base.cli import add_json, leave, print_json
from runner.base.errors import UserError, one_line
from runner.base.paths import expanded
from runner.compose.commands import command
from runner.compose.values import UNITS

if TYPE_CHECKING:
    from runner.boards.inputs import Inputs
    from runner.boards.rules import Rules


def main(argv: Sequence[str] | None = None) -> int:
    """Write the tables and print the leaderboards.

    Returns:
        0; 1 if ``--check`` finds that a published leaderboard is not reproduced; 2 for bad input.
    """
    options = _parser().parse_args(argv)
    warnings.showwarning = _warn
    try:
        return _check(options) if options.check else _score(options)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)  # labels hold line breaks, too
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runner.score",
        description="Compute an experiment's leaderboard by AlgoPerf's scoring rules, with intervals.",
    )
    add = parser.add_argument
    add("folder", type=expanded, help="results/<name>, imported logs, or a published leaderboard")
    add("--by", choices=UNITS, help="unit of time to target (default: samples; seconds for imported logs)")
    picks = "trial that represents a study: the fastest, or the smallest evaluation index as in AlgoPerf's "
    picks += "published scores (default: time)"
    add("--study-pick", choices=("time", "eval_index"), help=picks)
    integrals = "how the performance profile is integrated (default: exact)"
    add("--integral", choices=("exact", "trapezoid"), help=integrals)
    add("--tau-max", type=float, metavar="X", help="slower than X times the fastest is a miss (default: 4)")
    add("--compat", action="store_true", help="reproduce AlgoPerf's numbers: trapezoid, seconds, 4 decimals")
    add(
        "--baseline",
        metavar="LABEL",
        help="speed-ups are relative to this algorithm (default: adamw)",
    )
    add("--resamples", type=int, metavar="N", help="bootstrap resamples of studies (default: 1000)")
    add("--seed", type=int, metavar="N", help="seed of the bootstrap (default: 0)")
    add("--together", action="store_true", help="rank the open and the closed division together")
    add("--allow-mixed", action="store_true", help="rank cells that are not comparable; the output says so")
    add("--no-report", action="store_true", help="do not write report.html")
    add("--against", metavar="BOARD", help="rank these algorithms on a published leaderboard (embedded-v1)")
    add("--publish", action="store_true", help="freeze the leaderboard in results/leaderboards/<name>/")
    add("--as", dest="name", metavar="NAME", help="publish under this name (default: the experiment's)")
    add("--check", action="store_true", help="rescore a published leaderboard and compare every number")
    add_json(parser)
    return parser


def _score(options: argparse.Namespace) -> int:
    # pandas takes half a second, which a mistyped option need not cost.
    from runner.base.terminal import Console
    from runner.boards import board, publish, render
    from runner.boards.inputs import read, write_boards, write_tables

    inputs = read(options.folder)
    if options.against is not None:
        inputs = _against(inputs, options)
    rules = _rules(options, inputs)
    writable = inputs.kind != "experiment" or _written(write_tables, inputs)
    try:
        made = board.boards(inputs.cells, rules, inputs.sources, inputs.workloads)
    except UserError as error:
        raise UserError(f"{error}{_instead(inputs, error)}") from error
    top = inputs.headline
    if inputs.kind == "published":
        made, top = publish.marked(made, inputs.folder), [*top, *publish.disputes(inputs.folder)]
    else:
        writable = writable and _written(write_boards, inputs, made)
    if not options.json:
        render.show(made, top, inputs.missing, Console(highlight=False, emoji=False))
    messages = sys.stderr if options.json else sys.stdout
    if inputs.kind != "published" and writable and not options.no_report:
        from runner.report import write

        print(f"report: {write(inputs, made)}", file=messages)
    if options.publish or options.name:
        for line in publish.publish(inputs, made, options.name):
            print(line, file=messages)
    if options.json:
        print_json({"folder": inputs.folder, "notices": top, "missing": inputs.missing,
                    "boards": [board.as_json(one) for one in made]})  # fmt: skip
    return 0


def _against(inputs: Inputs, options: argparse.Namespace) -> Inputs:
    from runner.boards.against import against

    if options.publish or options.name:
        raise UserError("--against only displays a comparison and cannot be combined with --publish or --as")
    if inputs.kind == "published":
        raise UserError(
            f"{inputs.folder} is published: name the experiment to compare with {options.against}"
        )
    return against(inputs, options.against)


def _written(write: Callable[..., None], *args: Any) -> bool:
    """Write into the experiment's folder; if it is read-only, the leaderboard is still printed."""
    try:
        write(*args)
    except UserError as error:
        _warn(f"{one_line(str(error))}: the leaderboard is printed but not saved")
        return False
    return True


def _instead(inputs: Inputs, error: UserError) -> str:
    """What to do when there is no leaderboard."""
    from runner.boards.board import MixedError
    from runner.boards.gaps import stale_command
    from runner.contract.records import FINISHED

    if inputs.kind != "experiment":
        return ""
    if isinstance(error, MixedError):
        again = stale_command(inputs.missing)
        return f"; to train the stale cells again: {again}" if again else ""
    if not set(inputs.cells["status"]) & set(FINISHED):
        return f"; {inputs.missing[0]}" if inputs.missing else ""
    return f"; to see the results so far: {command('runner.report', inputs.folder)}"


def _rules(options: argparse.Namespace, inputs: Inputs) -> Rules:
    """The rules: those of a published board, else the defaults, changed by what was asked for."""
    from dataclasses import replace

    from runner.boards.rules import unit_of
    from runner.stats.times import place

    wanted = {
        "pick": options.study_pick, "integral": "trapezoid" if options.compat else options.integral,
        "tau_max": options.tau_max, "baseline": options.baseline, "resamples": options.resamples,
        "seed": options.seed, "together": options.together or None, "mixed": options.allow_mixed or None,
        "decimals": 4 if options.compat else None,
    }  # fmt: skip
    if options.compat and options.integral == "exact":
        raise UserError("--compat uses AlgoPerf's trapezoid integral: remove --integral exact")
    by = options.by or ("seconds" if options.compat else None)
    if inputs.rules is None or by is not None:
        wanted["by"] = unit_of(inputs.cells, by, inputs.imported)
    rules = replace(inputs.rules or inputs.defaults, **{k: v for k, v in wanted.items() if v is not None})
    for name in ("resamples", "seed"):
        if getattr(rules, name) < 0:
            raise UserError(f"--{name} {getattr(rules, name)}: must be 0 or more")
    if not 1 < rules.tau_max < float("inf"):
        raise UserError(f"--tau-max {rules.tau_max:g}: must be a number above 1")
    if options.baseline is not None:
        place(options.baseline, sorted(set(inputs.cells["label"])))
    return rules


def _check(options: argparse.Namespace) -> int:
    from runner.boards.publish import check

    wrong = check(options.folder)
    if options.json:
        print_json({"folder": options.folder, "holds": not wrong, "differences": wrong})
        return 1 if wrong else 0
    for line in wrong:
        print(line)
    if not wrong:
        print(f"{options.folder}: every number reproduced")
    return 1 if wrong else 0


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    leave(main)

"""``python -m runner.check algorithm=mine`` (or ``workload=mine``): is it well-behaved?"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence

from runner.base.cli import add_json, leave, print_json
from runner.base.errors import UserError, nearest
from runner.base.paths import expanded, own_folders

EPILOG = """\
examples:
  python -m runner.check algorithm=lion                     every check, on every small workload
  python -m runner.check algorithm=lion,adamw workload=digits
  python -m runner.check algorithm=adamw algorithm/loss=label_smoothing --only resume,cost
  python -m runner.check workload=mine                      every check of a workload
  python -m runner.check workload=digits,mnist --only reference,splits

exit code: 0 all hold, 1 one fails, 2 bad input
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks and print a line for each.

    Returns:
        0 when every check holds, 1 when one fails, 2 for bad input, 130 after Ctrl-C.
    """
    arguments = _parser().parse_intermixed_args(argv)
    try:
        return _listing(arguments.json) if arguments.list else _run(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runner.check",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "overrides", nargs="*", help="as for python -m runner: algorithm=… workload=… key=value"
    )
    parser.add_argument("--list", action="store_true", help="list the checks and leave")
    parser.add_argument("--only", metavar="NAMES", help="run these checks alone, names by commas")
    add_json(parser)
    parser.add_argument("--config-dir", "-cd", action="append", default=own_folders(), type=expanded,
                        help="a folder of your own presets, parts and workloads")  # fmt: skip
    return parser


def _listing(as_json: bool) -> int:
    from runner.check.families import ALGORITHMS, WORKLOADS
    from runner.check.suite import summary

    if as_json:
        print_json({family.name: {name: summary(check) for name, check in family.checks.items()}
                    for family in (ALGORITHMS, WORKLOADS)})  # fmt: skip
        return 0
    width = max(map(len, (*ALGORITHMS.checks, *WORKLOADS.checks)))
    for family in (ALGORITHMS, WORKLOADS):
        print(f"{family.title}:")
        for name, check in family.checks.items():
            print(f"  {name:<{width}}  {summary(check)}")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    from runner.check.families import family
    from runner.check.report import Collected, Report

    kind = family(arguments.overrides)
    names = arguments.only.split(",") if arguments.only else list(kind.checks)
    for name in names:
        if name not in kind.checks:
            raise UserError(f"unknown check {name!r}: {nearest(name, kind.checks)}")
    report = Collected() if arguments.json else Report()
    with contextlib.redirect_stdout(sys.stderr if arguments.json else sys.stdout):  # plugins may print
        found = kind.subjects(arguments.overrides, arguments.config_dir)
        _configure(found[0].device)
        for subject in found:
            report.add(subject.title, kind.run(subject, names))
    return report.close()


def _configure(device: str) -> None:
    """One thread, and on a GPU reproducible kernels: runs are compared bit for bit."""
    from runner.machine.machine import configure

    configure(threads=1, deterministic=device != "cpu")


if __name__ == "__main__":
    leave(main, tidies=True)

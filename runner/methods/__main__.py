"""``python -m runner.methods``: the methods there are; ``python -m runner.methods lion``: a card."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from runner.base.cli import add_json, leave, print_json
from runner.base.errors import UserError, nearest, one_line
from runner.base.paths import expanded, own_folders

if TYPE_CHECKING:
    from runner.methods.catalogue import Method

EPILOG = """\
examples:
  python -m runner.methods                        all methods: paper, cost
  python -m runner.methods --kind estimator       those of one kind
  python -m runner.methods lion                   its card, defaults and search space

exit code: 0, or 2 for bad input
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the list, cards, or the page; 2 for bad input."""
    options = _parser().parse_args(argv)
    try:
        _print(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runner.methods",
        description="List all methods with paper and cost, or print their cards.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="name", help="print the cards of these methods")
    parser.add_argument("--kind", help="only methods of this kind: optimizer, schedule, …")
    parser.add_argument("--markdown", action="store_true", help="print docs/methods.md")
    add_json(parser)
    parser.add_argument("--config-dir", "-cd", action="append", default=own_folders(), type=expanded,
                        help="folder with your own presets and parts")  # fmt: skip
    return parser


def _print(options: argparse.Namespace) -> None:
    if options.markdown and options.json:
        raise UserError("--markdown and --json exclude each other")
    found = _chosen(options)
    if options.markdown:
        from runner.methods.page import markdown

        print(markdown(found), end="")
        return
    if options.json:
        print_json([method.as_json() for method in found])
        return
    from runner.base.terminal import Console
    from runner.methods.listing import show_card, show_list

    console = Console(highlight=False, emoji=False)
    if not options.names:
        show_list(found, console)
    for place, method in enumerate(found if options.names else []):
        if place:
            console.print()
        show_card(method, console)


def _chosen(options: argparse.Namespace) -> list[Method]:
    """The methods that were asked for: all, those of a kind, those of some names in their order."""
    from runner.methods.catalogue import methods

    for folder in options.config_dir:
        if not folder.is_dir():
            raise UserError(f"--config-dir {folder}: no such folder")
    found = methods(options.config_dir)
    if options.kind is not None:
        _known("kind", options.kind, [method.kind for method in found])
        found = [method for method in found if method.kind == options.kind]
    for name in options.names:
        _known("method", name, [method.name for method in found])
    if not options.names:
        return found
    return [method for name in dict.fromkeys(options.names) for method in found if method.name == name]


def _known(what: str, name: str, names: Iterable[str]) -> None:
    if name not in (known := set(names)):
        raise UserError(f"unknown {what} {one_line(name, 80)!r}: {nearest(name, known)}")


if __name__ == "__main__":
    leave(main)

"""Claims and what became of them: ``python -m scripts.claims [NAME …] [--keep FOLDER] [--write]``.

Without options prints the sections of docs/claims.md from the kept evidence. ``--keep`` makes the evidence
of one claim from the folder of its experiment; ``--write`` writes docs/claims.md. Exit code 2: bad input.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from runner.base.cli import leave
from runner.base.errors import UserError
from runner.base.files import write_text
from runner.base.paths import ROOT, expanded
from scripts.claims._claim import by_name, known

PAGE = ROOT / "docs" / "claims.md"
HEAD = """# Claims

Claims that papers make about their methods, tested as experiments of this project, with the results,
including those that were not reproduced. Each section is generated from the rows in
[results/claims](../results/claims) by `python -m scripts.claims --write`, and a test regenerates it. The
experiments are `+experiment=claims/<name>`; each takes at most 90 minutes on two cores. Other jobs ran at
the same time, so do not read the times as measurements. A commit with a + had uncommitted changes.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """See the module."""
    arguments = _parser().parse_args(argv)
    try:
        claims = [by_name(name) for name in arguments.names] or list(known().values())
        if arguments.keep is not None:
            if len(arguments.names) != 1:
                raise UserError("--keep takes the folder of one experiment: name its claim")
            claims[0].keep(arguments.keep)
        if arguments.write:
            write_text(PAGE, page())
        else:
            print("\n".join(claim.section() for claim in claims))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def page() -> str:
    """docs/claims.md: every claim whose evidence is kept."""
    return "\n".join([HEAD, *(claim.section() for claim in known().values() if claim.rows.exists())])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.claims",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="claims; all where none is named")
    parser.add_argument(
        "--keep", type=expanded, metavar="FOLDER", help="make the evidence from this experiment"
    )
    parser.add_argument("--write", action="store_true", help="write docs/claims.md")
    return parser


if __name__ == "__main__":
    leave(main)

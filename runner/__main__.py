"""``python -m runner``: train an algorithm on a workload. See ``--help``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from runner import commandline
from runner.cli import leave
from runner.display import Display
from runner.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; a user's mistake is one line and exit code 2.

    Returns:
        0 when every cell is done or diverged, 1 when one failed, 2 for bad input, 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    sys.argv = ["python -m runner", *arguments]  # a launch records it
    try:
        return commandline.run(commandline.read(arguments))
    except UserError as error:
        Display.error(str(error))
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    leave(main, tidies=True)

"""``python -m runner``: train an algorithm on a workload. See ``--help``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from runner.base.cli import leave
from runner.base.errors import UserError
from runner.base.imports import lasting
from runner.launch import ahead


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; a user's mistake is one line and exit code 2.

    Returns:
        0 when every cell is done or diverged, 1 when one failed, 2 for bad input, 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    sys.argv = ["python -m runner", *arguments]  # a launch records it
    try:
        from runner.compose import commandline

        return commandline.run(commandline.read(arguments))
    except UserError as error:
        from runner.launch.display import Display

        Display.error(str(error))
        return 2
    except KeyboardInterrupt:
        return 130


def command() -> int:
    """What a person starts: the first worker imports while this process does."""
    with ahead.started(sys.argv[1:]):
        with lasting():
            importlib.import_module("runner.compose.commandline")
        return main()


if __name__ == "__main__":
    leave(command, tidies=True)

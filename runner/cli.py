"""How a command ends: Ctrl-C, and a reader that has gone (``| head``), without a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

INTERRUPTED = 130  # what a shell reports for a process that Ctrl-C ended


def leave(main: Callable[[], int]) -> NoReturn:
    """Leave the process with ``main``'s exit code; 130 after Ctrl-C, 0 where nobody reads on."""
    try:
        code = main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        # What Python still holds for the pipe must go somewhere when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    raise SystemExit(code)

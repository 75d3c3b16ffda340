"""Importing much at once."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def lasting() -> Iterator[None]:
    """Import without looking for garbage, during or after it: what modules hold stays until the process ends.

    Of torch with its compiler that saves a quarter of the CPU time: Python would go through all of it again
    and again, and once more at the end.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()

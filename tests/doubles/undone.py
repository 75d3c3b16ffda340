"""What :mod:`tests.doubles.leavers` has to undo behind a test in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

FUNCTIONS: list[Callable[[], Any]] = []

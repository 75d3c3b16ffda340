"""Libraries of the extra ``dev`` that a test needs."""

from __future__ import annotations

from importlib.util import find_spec

import pytest


def needs(package: str) -> None:
    """Skip the test where the package is missing; importing it is left to the runner."""
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed: make install-dev")

"""A complete card for test doubles, so that no check fails for want of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T", bound=type)

TEXT = """{summary}

Paper: none.
Update: see the code.
Defaults: none.
State: see the code.
Cost: {cost}.
Pitfalls: a test double.
Deviations: none.
"""


def card(cost: str = "1 forward, 1 backward") -> Callable[[T], T]:
    """Turn a class's one-line docstring into a complete card."""

    def dress(cls: T) -> T:
        cls.__doc__ = TEXT.format(summary=cls.__doc__, cost=cost)
        return cls

    return dress

"""What was asked of the pretended device that costs time there: waits, and copies to and from it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from runner.check.origin import frames, is_check, is_library, place

OURS = str(Path(__file__).parent)


class Event(NamedTuple):
    """One wait for the device, or one copy that has the host wait."""

    what: str
    where: str

    def __str__(self) -> str:
        return f"{self.what} at {self.where}"


EVENTS: list[Event] = []


def note(what: str) -> None:
    """Keep it, with the line of the project that asked for it."""
    EVENTS.append(Event(what, asked_from(frames(sys._getframe(1)))))


def asked_from(innermost_first: Iterable[FrameType]) -> str:
    """The innermost line that is neither a library's, nor the checks', nor the pretended device's."""
    files = ((frame, frame.f_code.co_filename) for frame in innermost_first if not is_check(frame))
    return place(next((f for f, file in files if not is_library(file) and not file.startswith(OURS)), None))

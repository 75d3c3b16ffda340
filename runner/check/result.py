"""What a check answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Result:
    """The answer of one check.

    Attributes:
        status: ``"ok"``, ``"failed"`` or ``"skipped"`` (not applicable).
        message: what is wrong, or why the check does not apply; one clear sentence. May be a remark when ok.
    """

    status: Literal["ok", "failed", "skipped"]
    message: str = ""


def ok(remark: str = "") -> Result:
    """The check holds."""
    return Result("ok", remark)


def failed(message: str) -> Result:
    """The check does not hold: what was found, and what to do."""
    return Result("failed", message)


def not_applicable(reason: str) -> Result:
    """The check says nothing about this algorithm."""
    return Result("skipped", reason)


def verdict(fault: str | None) -> Result:
    """Failed with ``fault``, or ok where there is none."""
    return ok() if fault is None else failed(fault)

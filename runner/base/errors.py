"""Errors that are the user's to mend: printed as one line, exit code 2, never a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input. The message says what was wrong, what was found, and what to do."""


class Diverged(Exception):  # noqa: N818 - an outcome, not a fault
    """Raised by a part that can tell that training has diverged; the cell ends as ``diverged``."""


class Complete(Exception):  # noqa: N818 - an outcome, not a fault
    """Raised by a step in place of training: the algorithm is at its end, before the budget is."""


def text_of(error: BaseException) -> str:
    """What an exception says of itself, up to 10,000 characters, or that it cannot."""
    try:
        return str(error)[:10_000]
    except BaseException:
        return f"{type(error).__name__}, whose message cannot be printed"


def described(error: BaseException) -> str:
    """``ValueError: no such thing``."""
    text, name = text_of(error), type(error).__name__
    return text if text.startswith(f"{name}, whose message") else f"{name}: {text}"


def nearest(name: str, known: Iterable[str], n: int = 3) -> str:
    """``"; nearest: a, b"`` for the known names closest to ``name``, or a list of all when there are few."""
    known = sorted(set(known))
    lower = {k.lower(): k for k in known}
    close = [lower[k] for k in difflib.get_close_matches(name.lower(), lower, n=n, cutoff=0.5)]
    if close:
        return f"did you mean {', '.join(close)}?"
    shown = ", ".join(known[:12])
    return f"known: {shown}{', …' if len(known) > 12 else ''}"


def one_line(text: str, limit: int = 300) -> str:
    """The text on one line, cut to ``limit`` characters; half characters, which no file takes, as escapes."""
    flat = " ".join(str(text)[: 100 * limit].encode(errors="backslashreplace").decode().split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"

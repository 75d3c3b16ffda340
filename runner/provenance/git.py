"""The commit that a number was made with, and what had been changed since."""

from __future__ import annotations

import functools
import hashlib
import subprocess

from runner import __version__
from runner.base.paths import ROOT


@functools.lru_cache(maxsize=1)
def facts() -> dict[str, str | bool]:
    """The project's ``version``; in a checkout also ``commit``, ``dirty`` and a hash of the difference."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {"version": __version__}
    diff = _git("diff", "HEAD") or ""
    changed = {"diff": hashlib.sha256(diff.encode()).hexdigest()[:16]} if diff else {}
    return {"version": __version__, "commit": commit.strip(), "dirty": bool(diff), **changed}


def _git(*args: str) -> str | None:
    if not (ROOT / ".git").exists():  # an installed package, perhaps below somebody else's checkout
        return None
    command = ["git", "-C", str(ROOT), *args]
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout

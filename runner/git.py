"""The commit that a number was made with, and what had been changed since."""

from __future__ import annotations

import functools
import hashlib
import subprocess

from runner.paths import ROOT


@functools.lru_cache(maxsize=1)
def facts() -> dict[str, str | bool]:
    """``commit``, ``dirty`` and a hash of the difference; empty outside a git checkout."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {}
    diff = _git("diff", "HEAD") or ""
    changed = {"diff": hashlib.sha256(diff.encode()).hexdigest()[:16]} if diff else {}
    return {"commit": commit.strip(), "dirty": bool(diff), **changed}


def _git(*args: str) -> str | None:
    command = ["git", "-C", str(ROOT), *args]
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout

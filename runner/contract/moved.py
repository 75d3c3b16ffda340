"""Where classes were before they moved: stored configs go by those names, and so do the ids of cells."""

from __future__ import annotations

from typing import Any

MOVED = {"runner.composed.Composed": "runner.parts.composed.Composed"}
_BEFORE = {now: before for before, now in MOVED.items()}


def present(target: Any) -> Any:
    """What a ``_target_`` of any version is called by now."""
    return MOVED.get(target, target) if isinstance(target, str) else target


def as_ever(tree: Any) -> Any:
    """A config with every ``_target_`` by the name that it has always had."""
    if isinstance(tree, dict):
        return {k: _BEFORE.get(v, v) if _names(k, v) else as_ever(v) for k, v in tree.items()}
    return [as_ever(value) for value in tree] if isinstance(tree, list) else tree


def _names(key: str, value: Any) -> bool:
    return key == "_target_" and isinstance(value, str)

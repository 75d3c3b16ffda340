"""Trial points: a seeded, scrambled Halton sequence over an algorithm's search space.

Point k is computed alone, anywhere, and studies never share points: each reads its own stretch of one
sequence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from runner.errors import UserError
from runner.seeding import derive

STUDY_STRIDE = 1000  # trials a study may have
SCRAMBLE = derive("search") % 2**32


def spaces(algorithm: Mapping[str, Any], prefix: str = "") -> dict[str, dict[str, Any]]:
    """Hyperparameter path (``optimizer.lr``) -> its range, collected from every part."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in algorithm.items():
        if key == "search_space" and isinstance(value, Mapping):
            # null: a preset takes out what a part would search.
            found |= {f"{prefix}{name}": dict(entry) for name, entry in value.items() if entry is not None}
        elif isinstance(value, Mapping):
            found |= spaces(value, f"{prefix}{key}.")
    return found


def point(space: Mapping[str, Mapping[str, Any]], study: int, trial: int) -> dict[str, Any]:
    """Hyperparameters of ``trial`` ≥ 1 of ``study``, by path.

    Raises:
        UserError: without a search space, or for a trial beyond 999.
    """
    if not space:
        raise UserError(f"trial={trial}: this algorithm has no search space; use trial=0, its defaults")
    if not 1 <= trial < STUDY_STRIDE:
        raise UserError(f"trial: got {trial}, wants an integer from 0 to {STUDY_STRIDE - 1}")
    from scipy.stats.qmc import Halton

    sequence = Halton(len(space), scramble=True, rng=SCRAMBLE)
    sequence.fast_forward(study * STUDY_STRIDE + trial)
    unit = sequence.random(1)[0]
    return {
        name: _scaled(name, entry, float(u)) for (name, entry), u in zip(space.items(), unit, strict=True)
    }


def put(algorithm: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Set hyperparameters by path, in place."""
    for path, value in values.items():
        *parents, last = path.split(".")
        tree = algorithm
        for parent in parents:
            tree = tree[parent]
        tree[last] = value


def _scaled(name: str, entry: Mapping[str, Any], u: float) -> Any:
    if "choices" in entry:
        return entry["choices"][min(int(u * len(entry["choices"])), len(entry["choices"]) - 1)]
    try:
        low, high, scale = float(entry["min"]), float(entry["max"]), entry.get("scale", "linear")
    except KeyError as error:
        raise UserError(f"search_space.{name}: wants min and max, or choices; {error} is missing") from None
    if scale == "log":
        return low * math.exp(u * math.log(high / low))
    if scale != "linear":
        raise UserError(f"search_space.{name}.scale: got {scale!r}, wants linear or log")
    return low + u * (high - low)

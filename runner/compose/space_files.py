"""Search spaces in AlgoPerf's files: ``algorithm.search_space=tuning_search_space.json``.

Such a file holds a range for each hyperparameter, ``{"min": …, "max": …, "scaling": "log"}`` or
``{"feasible_points": […]}``, or a list of points, which trials 1, 2, … take in turn. It has no defaults, so
trial 0 gets the middle of each range, or what is listed first.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from runner.base.errors import UserError, one_line
from runner.base.paths import found

KEY = "search_space"
OPEN = "hyperparameters"  # the mapping of an algorithm that takes whatever names it is given
SCALINGS = ("linear", "log")
Space = dict[str, dict[str, Any]]


def take_in(config: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    """Read the file that ``config`` names as its search space, if any; it takes the place of all others.

    Returns:
        ``default``, with the same space and hyperparameters: what a file brings is no change of a setting.

    Raises:
        UserError: for a file that is not there, or holds no search space.
    """
    file = config["algorithm"].get(KEY)
    if not isinstance(file, str):
        return default
    own, plain = _without_spaces(config["algorithm"]), _without_spaces(default["algorithm"])
    space = _read(file)
    brought = {name: _middle(entry) for name, entry in space.items() if OPEN in own and name not in own}
    held = {KEY: {f"{OPEN}.{name}" if name in brought else name: entry for name, entry in space.items()}}
    for tree in (own, plain):
        tree |= held | ({OPEN: brought | tree[OPEN]} if OPEN in tree else {})
    config["algorithm"] = own
    return {**default, "algorithm": plain}


def _without_spaces(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_spaces(value) if isinstance(value, Mapping) else value
        for key, value in tree.items()
        if key != KEY
    }


def _read(file: str) -> Space:
    path = found(file)
    if path is None:
        raise UserError(f"algorithm.search_space: no such file: {file}")
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"algorithm.search_space: {file}: {one_line(str(error), 120)}") from error
    if isinstance(held, list):
        return _listed(file, held)
    if not isinstance(held, Mapping) or not held:
        raise UserError(f"algorithm.search_space: {file} contains neither named ranges nor a list of points")
    return {name: _entry(f"algorithm.search_space: {file}: {name}", entry) for name, entry in held.items()}


def _listed(file: str, points: list[Any]) -> Space:
    alike = points and all(isinstance(one, Mapping) and one.keys() == points[0].keys() for one in points)
    if not alike or not points[0]:
        raise UserError(f"algorithm.search_space: {file}: every point of the list must have the same names")
    return {name: {"points": [one[name] for one in points]} for name in points[0]}


def _entry(where: str, entry: Any) -> dict[str, Any]:
    if isinstance(entry, Mapping) and entry.keys() == {"feasible_points"} and entry["feasible_points"]:
        return {"choices": list(entry["feasible_points"])}
    if not isinstance(entry, Mapping) or not {"min", "max"} <= entry.keys() <= {"min", "max", "scaling"}:
        raise UserError(f"{where}: expected min, max and scaling, or feasible_points")
    scaling = entry.get("scaling", SCALINGS[0])
    if scaling not in SCALINGS:
        raise UserError(f"{where}: scaling: got {scaling!r}, expected {' or '.join(SCALINGS)}")
    return {"min": entry["min"], "max": entry["max"], "scale": scaling}


def _middle(entry: Mapping[str, Any]) -> Any:
    listed = entry.get("points") or entry.get("choices")
    if listed:
        return listed[0]
    low, high = entry["min"], entry["max"]
    try:
        return math.sqrt(low * high) if entry["scale"] == "log" else (low + high) / 2
    except (TypeError, ValueError):  # what is wrong with the ends is said where all ranges are checked
        return low

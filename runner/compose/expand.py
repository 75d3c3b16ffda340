"""What one override list stands for: times the sub-grids of ``grid:``, the ruleset's studies and its trials.

Works on override lists alone; cells are composed by who runs them. docs/grids.md says what users may write.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from runner.base.errors import UserError, nearest
from runner.compose import values
from runner.compose.composer import Composer
from runner.compose.config import GRID_KEYS, explained, hydra_ready, unknown_key
from runner.compose.overrides import MOST, assignment, cell_overrides, name_of

Overrides = list[str]
NOT_LINKED = (*GRID_KEYS, "experiment", "ruleset", "hydra")  # they belong to the whole grid
WANTS = "a list of mappings from keys to values"


def expand(overrides: Sequence[str], config_dirs: Sequence[Path] = ()) -> Iterator[Overrides]:
    """The override lists of the cells that one job stands for, each once, as a stream.

    ``study=`` and ``trial=`` among ``overrides`` win over the ruleset, other keys over the same key of a
    sub-grid.

    Raises:
        UserError: for a ``grid`` or a ruleset that is none, or an unknown key in them.
    """
    return expand_all([overrides], config_dirs)


def expand_all(jobs: Iterable[Sequence[str]], config_dirs: Sequence[Path] = ()) -> Iterator[Overrides]:
    """:func:`expand` of one job after the other; what two of them share comes once."""
    seen = set()
    for job in jobs:
        for overrides in _expanded(list(job), config_dirs):
            if tuple(overrides) not in seen:
                seen.add(tuple(overrides))
                yield overrides


def _expanded(job: Overrides, config_dirs: Sequence[Path]) -> Iterator[Overrides]:
    with explained(config_dirs, job), hydra_ready(config_dirs) as using:
        groups, grid, ruleset = _read(job, using)
        mappings = _selected(grid, job, using)
    for index, mapping in mappings:
        with explained(config_dirs, job), hydra_ready(config_dirs) as using:
            _check_keys(f"grid[{index}]", mapping, groups, using, config_dirs)
        for entry in _product(mapping, job):
            given = [*job, *entry]
            for counts in _counts(ruleset, {name_of(o) for o in given}):
                yield [*given, *counts]


def _read(job: Overrides, using: Composer) -> tuple[tuple[str, ...], Any, Mapping[str, Any]]:
    """The job's choice of files, its ``grid`` and its ruleset; keys of the cells play no part in them."""
    groups, keys = using.split(cell_overrides(job))
    shaping = tuple(key for key in keys if name_of(key).partition(".")[0] in ("grid", "ruleset"))
    config = using.plain(groups, shaping)
    values.check_ruleset(config.get("ruleset"))
    return groups, config.get("grid"), config.get("ruleset", {})


# -- sub-grids ---------------------------------------------------------------------------------------


def _selected(grid: Any, job: Overrides, using: Composer) -> list[tuple[int, dict[str, Any]]]:
    """The sub-grids by place. A file that the user picks selects those that list it, where any does."""
    mappings = [(i, _mapping(i, entry)) for i, entry in enumerate(_entries(grid))]
    for override in cell_overrides(job):
        name = name_of(override)
        if using.is_group(name):
            listed = [
                (i, m) for i, m in mappings if name not in m or override in map(_assigned(name), m[name])
            ]
            mappings = listed or mappings
    return mappings


def _entries(grid: Any) -> list[Any]:
    if grid is None:
        return [{}]
    if not isinstance(grid, list) or not grid:
        raise UserError(f"grid: got {grid!r}, expected {WANTS}")
    return grid


def _mapping(index: int, entry: Any) -> dict[str, list[Any]]:
    """One sub-grid, every value a list."""
    if not isinstance(entry, Mapping):
        raise UserError(f"grid[{index}]: got {entry!r}, expected a mapping from keys to values")
    for key, value in entry.items():
        if not isinstance(key, str) or key.lstrip("+").partition(".")[0] in NOT_LINKED:
            raise UserError(f"grid[{index}].{key}: belongs next to grid, not inside a sub-grid")
        if value == []:
            raise UserError(f"grid[{index}].{key}: got [], expected a value or a list of values")
    return {str(key): value if isinstance(value, list) else [value] for key, value in entry.items()}


def _product(mapping: Mapping[str, list[Any]], job: Overrides) -> Iterator[Overrides]:
    given = {name_of(o) for o in job}
    free = {key: value for key, value in mapping.items() if name_of(key) not in given}
    axes = [map(_assigned(key), value) for key, value in free.items()]
    return (list(entry) for entry in itertools.product(*axes))


def _assigned(key: str) -> Any:
    return lambda value: assignment(key, value)


def _check_keys(
    place: str,
    mapping: Mapping[str, list[Any]],
    groups: Sequence[str],
    using: Composer,
    config_dirs: Sequence[Path],
) -> None:
    """Hold a sub-grid's keys against the config of the first files that it picks."""
    picked = {key: value for key, value in mapping.items() if using.is_group(name_of(key))}
    for group, names in picked.items():
        _check_names(place, name_of(group), names, using, config_dirs)
    first = {name_of(key): assignment(key, value[0]) for key, value in picked.items()}
    files = tuple((first | {name_of(o): o for o in groups}).values())
    keys = [key for key in mapping if key not in picked and not key.startswith("+")]
    config = using.plain(files, ()) if keys else {}
    for key in keys:
        if not _holds(config, key.split(".")):
            raise UserError(f"{place}: {unknown_key(key, files, config_dirs)}")


def _check_names(
    place: str, group: str, names: Sequence[Any], using: Composer, config_dirs: Sequence[Path]
) -> None:
    options = using.options(group)
    if not options:
        raise UserError(f"{place}: {unknown_key(group, (), config_dirs)}")
    for name in itertools.chain.from_iterable(n if isinstance(n, list) else [n] for n in names):
        if name is not None and name not in options:
            raise UserError(f"{place}: unknown {group} {name!r}: {nearest(str(name), options)}")


def _holds(tree: Any, path: Sequence[str]) -> bool:
    for name in path:
        if not isinstance(tree, Mapping) or name not in tree:
            return False
        tree = tree[name]
    return True


# -- rulesets ----------------------------------------------------------------------------------------


def _counts(ruleset: Mapping[str, Any], given: set[str]) -> Iterator[Overrides]:
    """``study=`` and ``trial=`` of every cell that the ruleset asks for, but for those given."""
    axes: dict[str, range] = {}
    if ruleset and "study" not in given:
        axes["study"] = range(ruleset["studies"])
    if ruleset and "trial" not in given:
        axes["trial"] = range(ruleset["first_trial"], ruleset["first_trial"] + ruleset["trials"])
    if math.prod(axis.stop - axis.start for axis in axes.values()) > MOST:
        asked = ", ".join(f"{key}={ruleset[key]}" for key in ("studies", "trials"))
        raise UserError(f"ruleset: {asked}: a grid has at most {MOST:,} cells")
    places = itertools.product(*axes.values())
    return ([f"{key}={number}" for key, number in zip(axes, place, strict=True)] for place in places)

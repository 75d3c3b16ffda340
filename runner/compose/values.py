"""Is a value of the right type and in the right range? Names are the field's, so their ranges are known."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from runner.base.errors import UserError, nearest
from runner.compose import search
from runner.contract.instantiate import NO_TARGET
from runner.contract.placeholders import left_open
from runner.contract.precisions import PRECISIONS
from runner.provenance import definitions

Range = tuple[float, float, str]  # low, high (both allowed), how to say it

INF = math.inf
BELOW_ONE = math.nextafter(1.0, 0.0)
LARGEST = 2**63 - 1  # what a column of integers holds
POSITIVE = math.nextafter(0.0, 1.0)
TOP: dict[str, tuple[tuple[type, ...], Range | None, str]] = {
    "name": ((str,), None, "a folder name"),
    "results_dir": ((str,), None, "a folder"),
    "data_dir": ((str,), None, "a folder"),
    "study": ((int,), (0, LARGEST, ""), f"an integer from 0 to {LARGEST}; several: -m study=0,1,2"),
    "trial": ((int,), (0, LARGEST, ""), f"an integer from 0 to {LARGEST}; several: -m trial=1,2,3"),
    "label": ((str, type(None)), None, "text, or null"),
    "stop_at_target": ((bool,), None, "true or false"),
    "max_seconds": ((int, float, type(None)), (POSITIVE, INF, ""), "seconds above 0, or null"),
    "checkpoint_every": ((int, float), (POSITIVE, INF, ""), "seconds above 0"),
    "keep_checkpoint": ((bool,), None, "true or false"),
    "warmup_steps": ((int,), (0, INF, ""), "an integer of at least 0"),
    "threads": ((int, type(None)), (1, INF, ""), "an integer of at least 1, or null"),
    "dry_run": ((bool,), None, "true or false"),
    "workers": ((int, type(None)), (1, INF, ""), "an integer of at least 1, or null"),
    "per_gpu": ((int,), (1, INF, ""), "an integer of at least 1"),
    "cells_per_task": ((int, type(None)), (1, INF, ""), "an integer of at least 1, or null"),
    "minutes_per_task": ((int, float), (POSITIVE, INF, ""), "minutes above 0"),
    "wait": ((bool,), None, "true or false"),
}
RULESET: dict[str, tuple[tuple[type, ...], Range | None, str]] = {
    "studies": ((int,), (1, INF, ""), "an integer of at least 1"),
    "trials": ((int,), (1, INF, ""), "an integer of at least 1"),
    "first_trial": ((int,), (0, INF, ""), "an integer of at least 0"),
    "budget_factor": ((int, float), (POSITIVE, INF, ""), "a number above 0"),
}
WORKLOAD: dict[str, tuple[tuple[type, ...], Range | None, str]] = {  # what no class of a workload takes
    "data": ((str,), None, "text"),
    "deterministic": ((bool,), None, "true or false"),
}
EXACT = 2**53  # up to here a float holds every integer
UNITS = ("samples", "seconds", "steps")  # that boards compare
FOLLOW_UPS = ("score", None)
DEVICES = ("auto", "cpu", "cuda")

# Conventional hyperparameters, wherever they stand in an algorithm or a workload.
RANGES: dict[str, Range] = {
    "lr": (0, INF, "a number of at least 0"),
    "weight_decay": (0, INF, "a number of at least 0"),
    "eps": (0, INF, "a number of at least 0"),
    "momentum": (0, BELOW_ONE, "a number in [0, 1)"),
    "betas": (0, BELOW_ONE, "numbers in [0, 1)"),
    "warmup": (0, BELOW_ONE, "a share of the budget in [0, 1)"),
    "rho": (0, INF, "a number of at least 0"),
    "label_noise": (0, BELOW_ONE, "a share of the labels in [0, 1)"),
    "clean": (0, INF, "a number of rows, or a share below 1"),
    "holdout": (0, INF, "a number of rows, or a share below 1"),
    "target": (-INF, INF, "a number, or null"),
    "batch_size": (1, INF, "an integer of at least 1"),
    "eval_batch_size": (1, INF, "an integer of at least 1"),
    "budget_samples": (1, INF, "an integer of at least 1"),
    "eval_every": (1, INF, "an integer of at least 1"),
}


def check(config: Mapping[str, Any], default: Mapping[str, Any]) -> None:
    """Hold every value of ``config`` against its default's type and its name's range.

    Raises:
        UserError: which key, what it got, what it wants.
    """
    _check_top(config)
    check_ruleset(config.get("ruleset"))
    known, flat = flatten(default), flatten(config)
    for key in filter(_bound, flat):
        _check_bounds(key, flat)
    for key in filter(_setting, flat):
        if (wants := _wanted(key, flat[key], known, flat)) is not None:
            raise _bad(key, flat[key], wants)


def keep_text(tree: dict[str, Any], default: Mapping[str, Any]) -> None:
    """Make a whole number text again, in place, where the default is text: ``workload.file=2024``."""
    for key, value in tree.items():
        known = default.get(key)
        if isinstance(value, dict) and isinstance(known, Mapping):
            keep_text(value, known)
        elif isinstance(known, str) and type(value) is int and not left_open(known):
            tree[key] = str(value)


def keep_numbers(tree: dict[str, Any], default: Mapping[str, Any]) -> None:
    """Give numbers, in place, the type of their default: ``lr=1`` and ``lr=1.0`` are one setting."""
    for key, value in tree.items():
        known = default.get(key)
        if isinstance(value, dict) and isinstance(known, Mapping):
            keep_numbers(value, known)
        else:
            tree[key] = _number_like(value, known)


def _number_like(value: Any, known: Any) -> Any:
    if isinstance(value, list) and isinstance(known, list) and len(value) == len(known):
        return [_number_like(*pair) for pair in zip(value, known, strict=True)]
    if bool in (type(value), type(known)) or not isinstance(value, (int, float)):
        return value
    exact = abs(value) <= EXACT and value == int(value)
    return type(known)(value) if isinstance(known, (int, float)) and exact else value


def check_spaces(config: Mapping[str, Any], default: Mapping[str, Any]) -> None:
    """Hold what the search spaces of ``config`` can draw against what may be typed.

    Raises:
        UserError: which space: it searches a setting that is none, or draws a value that would be refused.
    """
    known, flat = flatten(default), flatten(config)
    for name, entry in search.spaces(config["algorithm"]).items():
        key = f"algorithm.{name}"
        _check_known(f"search_space.{name}", key, flat)
        for value in search.samples(entry):
            if (wants := _wanted(key, value, known, flat)) is not None:
                raise UserError(f"search_space.{name}: may draw {_shown(value)}; {key} takes {wants}")


def check_targets(config: Mapping[str, Any], choices: Mapping[str, str]) -> None:
    """Every file that was chosen names a class.

    Raises:
        UserError: which one does not.
    """
    for group, choice in choices.items():
        kind, _, part = group.partition("/")
        spec = config[kind].get(part) if part and kind == "algorithm" else config.get(kind)
        if kind not in ("algorithm", "workload") or choice == "None" or spec is None:
            continue
        several = part and "_target_" not in spec and all(isinstance(one, dict) for one in spec.values())
        if not all("_target_" in one for one in (spec.values() if several else [spec])):
            raise UserError(f"{group}={choice}: {NO_TARGET}")


def limits(algorithm: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Path -> the smallest and the largest value that a number may have, infinite where nothing says."""
    flat = flatten(algorithm, "algorithm.")
    ranges = {key: _range(key, flat) for key in filter(_setting, flat) if _numbers(flat[key])}
    return {key.removeprefix("algorithm."): found[:2] for key, found in ranges.items() if found is not None}


def _numbers(value: Any) -> bool:
    entries = value if isinstance(value, list) else [value]
    return all(isinstance(entry, (int, float)) and not isinstance(entry, bool) for entry in entries)


def check_ruleset(ruleset: Mapping[str, Any] | None) -> None:
    """Hold a ruleset's values against what they may be.

    Raises:
        UserError: which key, what it got, what it wants.
    """
    if ruleset is None:
        return
    if not isinstance(ruleset, Mapping):
        raise _bad("ruleset", ruleset, "the name of a file in conf/ruleset")
    _check_each(ruleset, RULESET, "ruleset.")
    if ruleset.get("sequence") not in search.SEQUENCES:
        raise _bad("ruleset.sequence", ruleset.get("sequence"), f"one of {', '.join(search.SEQUENCES)}")


def changed(config: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of algorithm and workload whose value is not the default one."""
    known = flatten(default)
    return {
        key: value
        for key, value in flatten(config).items()
        if key.startswith(("algorithm.", "workload.")) and (key not in known or known[key] != value)
    }


def removed(config: Mapping[str, Any], default: Mapping[str, Any]) -> list[str]:
    """Keys of algorithm and workload that the default has and the config has not; not those below them."""
    return [key for part in ("algorithm", "workload") for key in _removed(config[part], default[part], part)]


def _removed(own: Mapping[str, Any], default: Mapping[str, Any], path: str) -> Iterator[str]:
    for key, value in default.items():
        if key not in own:
            yield f"{path}.{key}"
        elif isinstance(value, Mapping) and isinstance(own[key], Mapping):
            yield from _removed(own[key], value, f"{path}.{key}")


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted path -> leaf value; lists are leaves."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict):
            flat.update(flatten(value, f"{path}."))
        else:
            flat[path] = value
    return flat


def _check_top(config: Mapping[str, Any]) -> None:
    _check_each(config, TOP)
    if config.get("then") not in FOLLOW_UPS:
        raise _bad("then", config["then"], "score, or null")
    if config["device"] not in DEVICES:
        raise _bad("device", config["device"], f"one of {', '.join(DEVICES)}")
    workload = config["workload"]
    _check_each(workload, {key: row for key, row in WORKLOAD.items() if key in workload}, "workload.")
    precision = workload.get("precision", PRECISIONS[0])
    if precision not in PRECISIONS:
        raise _bad("workload.precision", precision, f"one of {', '.join(PRECISIONS)}")
    name = config["name"]
    if not name or name.startswith((".", "/")) or ".." in name.split("/"):
        raise _bad("name", name, "a folder name that stays under results_dir")


def _check_each(
    config: Mapping[str, Any],
    wanted: Mapping[str, tuple[tuple[type, ...], Range | None, str]],
    prefix: str = "",
) -> None:
    for key, (types, limits, wants) in wanted.items():
        value = config.get(key)
        right = isinstance(value, types) and (bool in types or not isinstance(value, bool))
        if not right or (limits and value is not None and not limits[0] <= value <= limits[1]):
            raise _bad(f"{prefix}{key}", value, wants)


def _wanted(key: str, value: Any, known: Mapping[str, Any], flat: Mapping[str, Any]) -> str | None:
    """What ``key`` wants in place of ``value``, or None where it may be that."""
    if left_open(value):  # what stands for it is held against nothing but its class
        return None
    if value is None:
        part, _, name = key.rpartition(".")
        target = flat.get(f"{part}._target_")
        allowed = known.get(key) is None or (isinstance(target, str) and definitions.takes_null(target, name))
        return None if allowed else _type(known[key])
    if key in known and not left_open(known[key]) and (wants := _wanted_type(value, known[key])) is not None:
        return wants
    limits = _range(key, flat)
    return limits[2] if limits is not None and not _within(value, limits) else None


def _wanted_type(value: Any, default: Any) -> str | None:
    if isinstance(default, bool):
        right = isinstance(value, bool)
    elif isinstance(default, int) and isinstance(value, (int, float)):
        # A float in place of an int is refused for counts, allowed for numbers that merely look like one.
        fraction = isinstance(value, bool) or (isinstance(value, float) and value % 1 != 0)
        right = not fraction or default <= 1
    elif isinstance(default, (int, float)):
        right = isinstance(value, (int, float)) and not isinstance(value, bool)
    else:
        right = not isinstance(default, (str, list)) or isinstance(value, type(default))
    return None if right else _type(default)


def _type(default: Any) -> str:
    """How to say what a setting with this default is."""
    if isinstance(default, list):
        return f"a list such as {default}"
    words = {bool: "true or false", int: "an integer", float: "a number", str: "text"}
    return words.get(type(default), "a value")


def _check_known(where: str, key: str, flat: Mapping[str, Any]) -> None:
    """``key`` is a setting of its part: the YAML has it, or the class takes it."""
    part, _, name = key.rpartition(".")
    target = flat.get(f"{part}._target_")
    if key not in flat and not (isinstance(target, str) and definitions.takes(target, name)):
        others = [k.removeprefix(f"{part}.") for k in filter(_setting, flat) if k.startswith(f"{part}.")]
        raise UserError(
            f"{where}: no such hyperparameter: {nearest(name, [k for k in others if k != '_target_'])}"
        )


def _check_bounds(key: str, flat: Mapping[str, Any]) -> None:
    ends = flat[key]
    if not isinstance(ends, list) or not _numbers(ends) or len(ends) != 2 or not ends[0] <= ends[1]:
        raise _bad(key, ends, "the smallest and the largest value, as in [0, 1]")
    _check_known(key, key.replace(".bounds.", "."), flat)


def _bound(key: str) -> bool:
    return key.startswith(("algorithm.", "workload.")) and ".bounds." in key


def _setting(key: str) -> bool:
    """Whether a key sets something of an algorithm or a workload, rather than what it may be."""
    mine = key.startswith(("algorithm.", "workload."))
    return mine and ".search_space." not in key and ".bounds." not in key


def _range(key: str, flat: Mapping[str, Any]) -> Range | None:
    part, _, name = key.rpartition(".")
    own = flat.get(f"{part}.bounds.{name}")
    if own is not None:
        return own[0], own[1], f"a number from {own[0]} to {own[1]}"
    return RANGES.get(name)


def _within(value: Any, limits: Range) -> bool:
    entries = value if isinstance(value, list) else [value]
    return _numbers(value) and all(limits[0] <= entry <= limits[1] for entry in entries)


def _bad(key: str, value: Any, wants: str) -> UserError:
    return UserError(f"{key}: got {_shown(value)}, expected {wants}")


def _shown(value: Any) -> str:
    return "null" if value is None else repr(value)

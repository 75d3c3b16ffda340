"""Is a value of the right type and in the right range? Names are the field's, so their ranges are known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from runner.errors import UserError

Range = tuple[float, float, str]  # low, high (both allowed), how to say it

INF = math.inf
BELOW_ONE = math.nextafter(1.0, 0.0)
POSITIVE = math.nextafter(0.0, 1.0)
TOP: dict[str, tuple[tuple[type, ...], Range | None, str]] = {
    "name": ((str,), None, "a folder name"),
    "results_dir": ((str,), None, "a folder"),
    "study": ((int,), (0, INF, ""), "an integer of at least 0"),
    "trial": ((int,), (0, INF, ""), "an integer of at least 0"),
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
UNITS = ("samples", "seconds", "steps")  # that boards compare
SEQUENCES = ("scrambled", "algoperf")  # runner.search knows them
FOLLOW_UPS = ("score", None)
DEVICES = ("auto", "cpu", "cuda")
NULLABLE = ("target",)  # may be taken away where the default has one

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
    for key, value in flat.items():
        if not key.startswith(("algorithm.", "workload.")) or ".search_space." in key or ".bounds." in key:
            continue
        if key in known:
            _check_type(key, value, known[key])
        _check_range(key, value, _range(key, flat))


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
    if ruleset.get("sequence") not in SEQUENCES:
        raise _bad("ruleset.sequence", ruleset.get("sequence"), f"one of {', '.join(SEQUENCES)}")


def changed(config: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of algorithm and workload whose value is not the default one."""
    known = flatten(default)
    return {
        key: value
        for key, value in flatten(config).items()
        if key.startswith(("algorithm.", "workload.")) and (key not in known or known[key] != value)
    }


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


def _check_type(key: str, value: Any, default: Any) -> None:
    wants = None
    if value is None and key.rpartition(".")[2] in NULLABLE:
        return
    if isinstance(default, bool):
        wants = None if isinstance(value, bool) else "true or false"
    elif isinstance(default, int) and not isinstance(value, (int, float)):
        wants = "an integer"
    elif isinstance(default, int) and (isinstance(value, bool) or (isinstance(value, float) and value % 1)):
        # A float in place of an int is refused for counts, allowed for numbers that merely look like one.
        wants = "an integer" if default > 1 else None
    elif isinstance(default, float) and (isinstance(value, bool) or not isinstance(value, (int, float))):
        wants = "a number"
    elif isinstance(default, str) and value is not None and not isinstance(value, str):
        wants = "text"
    elif isinstance(default, list) and not isinstance(value, list):
        wants = f"a list such as {default}"
    if wants is not None:
        raise _bad(key, value, wants)


def _range(key: str, flat: Mapping[str, Any]) -> Range | None:
    part, _, name = key.rpartition(".")
    own = flat.get(f"{part}.bounds.{name}")
    if own is not None:
        return own[0], own[1], f"a number from {own[0]} to {own[1]}"
    return RANGES.get(name)


def _check_range(key: str, value: Any, limits: Range | None) -> None:
    if limits is None or value is None:
        return
    entries = value if isinstance(value, list) else [value]
    for entry in entries:
        number = isinstance(entry, (int, float)) and not isinstance(entry, bool)
        if not number or not limits[0] <= entry <= limits[1]:
            raise _bad(key, value, limits[2])


def _bad(key: str, value: Any, wants: str) -> UserError:
    shown = "null" if value is None else repr(value)
    return UserError(f"{key}: got {shown}, wants {wants}")

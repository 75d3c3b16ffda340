"""What a cell needs: minutes, memory, cores, GPUs. Never part of its identity.

Defaults of the workload, for its full budget, times the ``time_factor`` of the algorithm's parts; refined by
the cells of an experiment that have ended.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from runner.base.errors import UserError
from runner.base.files import read_json
from runner.contract.records import FINISHED, CellFolder

FACTOR = "time_factor"
POSITIVE = math.nextafter(0.0, 1.0), math.inf
WANTED: dict[str, tuple[tuple[type, ...], tuple[float, float], str]] = {
    "minutes": ((int, float), POSITIVE, "a number above 0"),
    "memory_gb": ((int, float), POSITIVE, "a number above 0"),
    "cores": ((int, type(None)), (1, math.inf), "an integer of at least 1, or null for one per thread"),
    "gpus": ((int, type(None)), (0, 1), "0, 1 (a cell uses at most one), or null for one on cuda"),
    "gpu_memory_gb": ((int, float), (0, math.inf), "a number of at least 0"),
}  # fmt: skip
DEVICES = ("cpu", "cuda", None)
DEFAULTS = {
    "minutes": 60.0, "memory_gb": 4.0, "cores": None, "gpus": None, "gpu_memory_gb": 2.0, "device": None,
}  # fmt: skip


class Resources(NamedTuple):
    """What one cell needs.

    Attributes:
        minutes: of wall time, from the worker's taking it up to its end.
        memory_gb: of host memory.
        cores: CPU cores.
        gpus: GPUs.
    """

    minutes: float
    memory_gb: float
    cores: int
    gpus: int


class Recorded(NamedTuple):
    """Cells that have ended: their median wall time in seconds, and the time factor of their algorithm."""

    seconds: float
    factor: float


def take(config: dict[str, Any]) -> dict[str, Any]:
    """Take what says how much a cell needs out of a composed config, checked.

    Its ``device`` is what ``auto`` means for the workload, null where that is any GPU that there is.

    Args:
        config: is changed.

    Raises:
        UserError: for a bad value.
    """
    given = config["workload"].pop("resources", None) or {}
    for key, wanted in WANTED.items():
        _check(f"workload.resources.{key}", given.get(key, DEFAULTS[key]), *wanted)
    if (device := given.get("device")) not in DEVICES:
        raise UserError(f"workload.resources.device: got {device!r}, expected cpu, cuda, or null (either)")
    factors = dict(_factors(config["algorithm"]))
    for key, value in factors.items():
        _check(key, value, *WANTED["minutes"])
    config["algorithm"] = _without_factor(config["algorithm"])
    return DEFAULTS | given | {FACTOR: math.prod(factors.values())}


def share(config: Mapping[str, Any], default: Mapping[str, Any]) -> float:
    """How much of its usual budget a config gives its workload."""
    full = default["workload"].get("budget_samples")
    return config["workload"]["budget_samples"] / full if full else 1.0


def is_need(key: str) -> bool:
    """Whether a dotted key of a config says how much a cell needs."""
    return key.startswith("workload.resources") or key.rpartition(".")[2] == FACTOR


def completed(needs: Mapping[str, Any], config: Mapping[str, Any], budget_factor: float) -> dict[str, Any]:
    """The ``resources`` of a config: for its own budget, threads and device."""
    minutes = needs["minutes"] * needs[FACTOR] * needs["share"] * budget_factor
    cuda = str(config["device"]).startswith("cuda")
    return {
        "minutes": round(minutes, 3),
        "memory_gb": needs["memory_gb"],
        "cores": needs["cores"] or config["threads"],
        "gpus": int(cuda) if needs["gpus"] is None else needs["gpus"],
        "gpu_memory_gb": needs["gpu_memory_gb"] if cuda else 0.0,
        FACTOR: needs[FACTOR],
    }


def estimate(config: Mapping[str, Any], recorded: Mapping[tuple[str, str], Recorded]) -> Resources:
    """What the cell of a composed config needs.

    The minutes are those of cells that have ended: of the same algorithm, else of the workload's others by
    their time factors, else what the workload's file says.

    Args:
        config: as :func:`runner.compose.config.compose` returns it.
        recorded: from :func:`recorded_minutes`.
    """
    needs = config["resources"]
    minutes = _recorded_minutes(config["workload_label"], config["label"], needs.get(FACTOR, 1), recorded)
    return Resources(
        minutes=needs["minutes"] if minutes is None else minutes,
        memory_gb=needs["memory_gb"],
        cores=needs["cores"],
        gpus=needs["gpus"],
    )


def _recorded_minutes(
    workload: str, label: str, factor: float, recorded: Mapping[tuple[str, str], Recorded]
) -> float | None:
    own = recorded.get((workload, label))
    if own is not None:
        return own.seconds / 60
    others = [r.seconds / r.factor for (other, _), r in recorded.items() if other == workload]
    return statistics.median(others) * factor / 60 if others else None


def recorded_minutes(experiment: Path) -> dict[tuple[str, str], Recorded]:
    """(workload label, label) -> wall time of the cells of an experiment that have ended.

    Of every cell two small files are read, of every group one config.
    """
    seconds: dict[tuple[str, str], list[float]] = {}
    an_example: dict[tuple[str, str], CellFolder] = {}
    for folder in map(CellFolder, _subfolders(experiment / "cells")):
        wall = _wall_seconds(folder.status())
        card = None if wall is None else read_json(folder.path / "cell.json")
        if wall is not None and card is not None:
            group = card["workload_label"], card["label"]
            seconds.setdefault(group, []).append(wall)
            an_example.setdefault(group, folder)
    return {
        group: Recorded(statistics.median(times), _factor(an_example[group]))
        for group, times in seconds.items()
    }


def _subfolders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    with os.scandir(path) as entries:
        return [Path(entry.path) for entry in entries if entry.is_dir()]


def _wall_seconds(status: Mapping[str, Any]) -> float | None:
    finished = status["status"] in FINISHED
    return (status.get("summary") or {}).get("wall_seconds") if finished else None


def _factor(folder: CellFolder) -> float:
    try:
        return (folder.config().get("resources") or {}).get(FACTOR, 1)
    except OSError:
        return 1


def _check(key: str, value: Any, types: tuple[type, ...], ends: tuple[float, float], wants: str) -> None:
    right = isinstance(value, types) and not isinstance(value, bool)
    if not right or (value is not None and not (ends[0] <= value <= ends[1] and value < math.inf)):
        raise UserError(f"{key}: got {'null' if value is None else repr(value)}, expected {wants}")


def _factors(tree: Mapping[str, Any], path: str = "algorithm") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if key == FACTOR:
            yield f"{path}.{key}", value
        elif isinstance(value, Mapping):
            yield from _factors(value, f"{path}.{key}")


def _without_factor(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {k: _without_factor(v) for k, v in tree.items() if k != FACTOR}
    return tree

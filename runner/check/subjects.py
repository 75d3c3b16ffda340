"""From overrides to subjects: one for each algorithm and each small workload, or for each workload alone."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from runner.base.errors import UserError
from runner.check.subject import Subject
from runner.check.workload_subject import WorkloadSubject
from runner.compose import presets
from runner.compose.config import compose, hydra_ready, limits

WHICH = (
    "which algorithm, or which workload? try: python -m runner.check algorithm=adamw, "
    "or: python -m runner.check workload=digits"
)
SMALL = tuple(presets.embedded())  # always there, and fast enough to run every check on


def subjects(overrides: Sequence[str], config_dirs: Sequence[Path] = ()) -> list[Subject]:
    """What ``overrides`` name: ``workload=`` none means all small ones; several by commas.

    Raises:
        UserError: without an ``algorithm=``, or for what :func:`runner.compose.config.compose` refuses.
    """
    algorithms, rest = _split(overrides, "algorithm")
    workloads, rest = _split(rest, "workload")
    if not algorithms:
        raise UserError(WHICH)
    small = tuple(small_workload(name) for name in SMALL)
    with hydra_ready(config_dirs):
        chosen = [
            [f"algorithm={algorithm}", f"workload={workload}", *rest]
            for workload in workloads or SMALL
            for algorithm in algorithms
        ]
        return [
            replace(
                subject(compose(overrides, config_dirs), small),
                limits=limits(overrides, config_dirs),
                config_dirs=tuple(config_dirs),
            )
            for overrides in chosen
        ]


def subject(config: dict[str, Any], small: Sequence[dict[str, Any]]) -> Subject:
    """The subject of a resolved config."""
    device, data_dir = config["device"], Path(config["data_dir"])
    return Subject(config["algorithm"], config["workload"], config["label"], small, device, data_dir)


def workload_subjects(overrides: Sequence[str], config_dirs: Sequence[Path] = ()) -> list[WorkloadSubject]:
    """The workloads that ``overrides`` name, several by commas, where they name no algorithm.

    Raises:
        UserError: without a ``workload=``, or for what :func:`runner.compose.config.compose` refuses.
    """
    workloads, rest = _split(overrides, "workload")
    if not workloads:
        raise UserError(WHICH)
    summaries = presets.workloads(config_dirs)
    with hydra_ready(config_dirs):
        configs = {name: compose([f"workload={name}", *rest], config_dirs) for name in workloads}
    return [workload_subject(config, summaries.get(name)) for name, config in configs.items()]


def workload_subject(config: dict[str, Any], summary: str | None = None) -> WorkloadSubject:
    """The subject of a resolved config."""
    device, data_dir = config["device"], Path(config["data_dir"])
    return WorkloadSubject(config["workload"], config["workload_label"], summary, device, data_dir)


@functools.cache
def small_workload(name: str) -> dict[str, Any]:
    """The config of a workload as it stands."""
    return compose([f"workload={name}"])["workload"]


def _split(overrides: Sequence[str], key: str) -> tuple[list[str], list[str]]:
    chosen = [o.partition("=")[2].split(",") for o in overrides if o.startswith(f"{key}=")]
    return (chosen[-1] if chosen else []), [o for o in overrides if not o.startswith(f"{key}=")]

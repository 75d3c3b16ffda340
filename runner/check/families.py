"""What can be checked: an algorithm, or a workload."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.check.subjects import subjects, workload_subjects
from runner.check.suite import CHECKS, run_checks
from runner.check.workload_suite import WORKLOAD_CHECKS, run_workload_checks


@dataclass(frozen=True)
class Family:
    """The checks of one kind of thing.

    Attributes:
        name: how ``--list --json`` calls it.
        title: how ``--list`` does.
        checks: name -> check.
        subjects: (overrides, config_dirs) -> what they name.
        run: (subject, names) -> (name, result) of each check.
    """

    name: str
    title: str
    checks: Mapping[str, Callable[..., Any]]
    subjects: Callable[..., list[Any]]
    run: Callable[..., Any]


ALGORITHMS = Family("algorithm", "checks of an algorithm (algorithm=mine)", CHECKS, subjects, run_checks)
WORKLOADS = Family(
    "workload",
    "checks of a workload (workload=mine, and no algorithm)",
    WORKLOAD_CHECKS,
    workload_subjects,
    run_workload_checks,
)


def family(overrides: Sequence[str]) -> Family:
    """What ``overrides`` are about: an algorithm where they name one, else a workload."""
    return ALGORITHMS if any(o.startswith("algorithm=") for o in overrides) else WORKLOADS

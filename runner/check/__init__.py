"""Conformance: is an algorithm, or a workload, well-behaved?

``python -m runner.check algorithm=mine``, ``python -m runner.check workload=mine``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runner.check.families import family
from runner.check.result import Result
from runner.check.subject import Subject
from runner.check.suite import CHECKS, run_check, run_checks
from runner.check.workload_subject import WorkloadSubject
from runner.check.workload_suite import WORKLOAD_CHECKS, run_workload_check, run_workload_checks

__all__ = [
    "CHECKS",
    "WORKLOAD_CHECKS",
    "Result",
    "Subject",
    "WorkloadSubject",
    "failures",
    "run_check",
    "run_checks",
    "run_workload_check",
    "run_workload_checks",
]


def failures(overrides: Sequence[str], config_dirs: Sequence[Path] = ()) -> list[str]:
    """One line for every check that does not hold: of an algorithm, or of a workload where none is named.

    An algorithm is checked on every small workload, or on ``workload=``'s.

    Raises:
        UserError: for bad input.
    """
    kind = family(overrides)
    return [
        f"{subject.title}: {name}: {result.message}"
        for subject in kind.subjects(overrides, config_dirs)
        for name, result in kind.run(subject, kind.checks)
        if result.status == "failed"
    ]

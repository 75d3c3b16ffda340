"""Conformance: is an algorithm well-behaved? ``python -m runner.check algorithm=mine``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runner.check.result import Result
from runner.check.subject import Subject
from runner.check.subjects import subjects
from runner.check.suite import CHECKS, run_check, run_checks

__all__ = ["CHECKS", "Result", "Subject", "failures", "run_check", "run_checks"]


def failures(overrides: Sequence[str], config_dirs: Sequence[Path] = ()) -> list[str]:
    """One line for every check that does not hold, on every small workload (or on ``workload=``'s).

    Raises:
        UserError: for bad input.
    """
    return [
        f"{subject.label} on {subject.workload['name']}: {name}: {result.message}"
        for subject in subjects(overrides, config_dirs)
        for name, result in run_checks(subject)
        if result.status == "failed"
    ]

"""Conformance: is an algorithm well-behaved? ``python -m runner.check algorithm=mine``."""

from runner.check.result import Result
from runner.check.subject import Subject
from runner.check.suite import CHECKS, run_check, run_checks

__all__ = ["CHECKS", "Result", "Subject", "run_check", "run_checks"]

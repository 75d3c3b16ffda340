"""Every algorithm on every small workload keeps the rules: one test a pair, one line for each broken rule."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from runner.check import Subject, run_checks
from runner.check.subjects import SMALL, small_workload
from runner.compose.config import algorithm_names, compose, limits

QUICK = ("breast_cancer",)  # the others are minutes long, all methods together
WORKLOADS = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SMALL]


@functools.cache
def algorithm(name: str) -> dict[str, Any]:
    return compose([f"algorithm={name}"])["algorithm"]


@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize("name", algorithm_names())
def test_conforms(name: str, workload: str) -> None:
    small = [small_workload(other) for other in SMALL]
    one = Subject(
        algorithm(name), small_workload(workload), name, small, limits=limits([f"algorithm={name}"])
    )
    results = run_checks(one)
    broken = [f"{check}: {result.message}" for check, result in results if result.status == "failed"]
    assert not broken, "\n".join([f"{name} on {workload}", *broken])

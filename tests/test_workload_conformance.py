"""Every embedded workload keeps the rules: one test each, one line for each broken rule."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.base.errors import UserError
from runner.check import WORKLOAD_CHECKS, WorkloadSubject, run_workload_checks
from runner.check.subjects import workload_subjects
from runner.check.workload_repeat import differing
from runner.check.workload_trace import elsewhere, trace
from runner.compose import presets
from tests.conftest import ROOT

QUICK = [name for name in WORKLOAD_CHECKS if name != "process"]  # that one is for all of them at once, below
REAL = sorted(set(presets.workloads()) - set(presets.embedded()))


def broken(subject: WorkloadSubject, names: list[str]) -> list[str]:
    results = run_workload_checks(subject, names)
    return [f"{name}: {result.message}" for name, result in results if result.status == "failed"]


@pytest.mark.parametrize("name", presets.embedded())
def test_conforms(name: str) -> None:
    (subject,) = workload_subjects([f"workload={name}"])
    assert not broken(subject, QUICK), "\n".join([name, *broken(subject, QUICK)])


def test_another_process_has_the_same_workloads() -> None:
    subjects = workload_subjects([f"workload={','.join(presets.embedded())}"])
    there = elsewhere(subjects)
    for subject, found in zip(subjects, there, strict=True):
        assert differing(trace(subject.build()), found) == [], subject.title


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_conforms_with_its_files(name: str) -> None:
    data_dir = Path(os.environ.get("BENCH_DATA", ROOT / "data"))
    (subject,) = workload_subjects([f"workload={name}", f"data_dir={data_dir}", *_offline(name)])
    try:
        subject.prepared()
    except UserError as error:
        pytest.skip(str(error))
    assert not (lines := broken(subject, list(WORKLOAD_CHECKS))), "\n".join([name, *lines])


def _offline(name: str) -> list[str]:
    known = (ROOT / "conf" / "workload" / f"{name}.yaml").read_text()
    return ["workload.download=false"] if "\ndownload:" in known else []

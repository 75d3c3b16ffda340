"""Every check catches the bug it exists for, and lets a well-behaved algorithm pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from runner.check import CHECKS, Subject, run_checks
from runner.check.subjects import SMALL, small_workload
from runner.check.suite import run_check

CLEAN = {
    "_target_": "runner.parts.composed.Composed",
    "optimizer": {"_target_": "tests.doubles.clean.Momentum"},
    "schedule": {"_target_": "algorithms.schedules.cosine.Cosine"},
    "average": {"_target_": "tests.doubles.clean.Average"},
    "sampler": {"_target_": "tests.doubles.clean.WithReplacement"},
    "reweighting": {"_target_": "tests.doubles.clean.Soft"},
    "estimator": {"_target_": "tests.doubles.clean.Peek"},
    "transform": {"clip": {"_target_": "tests.doubles.clean.Clip"}},
}
PLAIN = {key: CLEAN[key] for key in ("_target_", "optimizer", "schedule")}

# kind of part, the planted bug, the check it is for, other checks that it trips as well
PLANTED = [
    ("optimizer", "Cardless", "card", ""),
    ("transform", "Refuses", "compatible", ""),
    ("transform", "Mumbles", "compatible", ""),
    ("estimator", "Attached", "step", ""),
    ("estimator", "Overwrites", "step", "resume"),
    ("estimator", "Freezes", "step", ""),
    ("optimizer", "Backwards", "learns", ""),
    ("optimizer", "ReadsDefaults", "still", ""),
    ("schedule", "Divides", "bounds", ""),
    ("sampler", "Entropy", "repeat", "resume warmup randomness inert splits"),
    ("optimizer", "Forgetful", "resume", ""),
    ("optimizer", "Pickles", "resume", ""),
    ("transform", "Remembers", "warmup", "resume"),
    ("transform", "Counts", "warmup", "repeat resume"),
    ("sampler", "GlobalSampler", "randomness", ""),
    ("average", "Leaks", "inert", ""),
    ("average", "Refreshes", "inert", ""),
    ("average", "Promises", "promise", ""),
    ("average", "StaysAveraged", "swap", ""),
    ("average", "SwapsModel", "swap", ""),
    ("average", "MovesMemory", "swap", ""),
    ("optimizer", "Fragile", "bf16", ""),
    ("estimator", "ReadsLoss", "syncs", ""),
    ("estimator", "Peeks", "cost", ""),
    ("sampler", "Hoards", "budget", ""),
    ("sampler", "Stretches", "budget", ""),
    ("transform", "Digs", "splits", ""),
    ("transform", "Spies", "splits", ""),
    ("transform", "Watches", "clock", ""),
    ("transform", "Waits", "clock", ""),
    ("transform", "Rarely", "clock", ""),
    ("transform", "Borrows", "clock", ""),
    ("transform", "Dates", "clock", ""),
]

SETTINGS = {"Divides": {"warmup": 0.05}}


def subject(algorithm: dict[str, Any], workload: str = "breast_cancer") -> Subject:
    small = [small_workload(name) for name in SMALL]
    return Subject(algorithm, small_workload(workload), small=small)


def faults(subject: Subject) -> dict[str, str]:
    return {name: result.message for name, result in run_checks(subject) if result.status == "failed"}


@pytest.mark.parametrize("workload", SMALL)
def test_a_clean_algorithm_passes_everything(workload: str) -> None:
    answers = dict(run_checks(subject(CLEAN, workload)))
    assert list(answers) == list(CHECKS)
    assert {name: (r.status, r.message) for name, r in answers.items() if r.status != "ok"} == {}


@pytest.mark.parametrize(("kind", "bug", "check", "others"), PLANTED, ids=[row[1] for row in PLANTED])
def test_a_planted_bug_is_caught_by_its_check(kind: str, bug: str, check: str, others: str) -> None:
    module = "planted_clocks" if check == "clock" else "planted"
    part = {"_target_": f"tests.doubles.{module}.{bug}", **SETTINGS.get(bug, {})}
    found = faults(subject(PLAIN | {kind: part}))
    assert check in found, found
    assert set(found) == {check, *others.split()}, found


def test_a_declared_wait_is_allowed() -> None:
    declared = {"estimator": {"_target_": "tests.doubles.clean.Declared"}}
    answers = dict(run_checks(subject(PLAIN | declared)))
    assert {name for name, result in answers.items() if result.status != "ok"} == set()
    assert answers["syncs"].message == "declares syncs_every=1"


@pytest.mark.parametrize(
    ("target", "status"),
    [("algorithms.estimators.ef.EF", "ok"), ("tests.doubles.planted.TakesAnyNumber", "failed")],
)
def test_a_bound_that_is_refused_is_not_set_up(target: str, status: str) -> None:
    too_many = 10**12  # each worker has a memory as large as the model: no machine holds them
    ends = {"estimator.workers": (1, too_many)}
    one = replace(subject(PLAIN | {"estimator": {"_target_": target, "workers": 2}}), limits=ends)
    assert run_check("bounds", one).status == status


def test_what_steers_by_metrics_may_do_so() -> None:
    plateau = {"transform": {"_target_": "tests.doubles.clean.Plateau"}}
    answers = dict(run_checks(subject(PLAIN | plateau)))
    assert {name for name, result in answers.items() if result.status == "failed"} == set()
    assert {name for name, result in answers.items() if result.status == "skipped"} == {"inert", "splits"}


def test_dropout_may_draw_from_the_global_generator_and_still_resumes() -> None:
    drops = {"surgery": {"_target_": "tests.doubles.clean.Drops"}}
    answers = dict(run_checks(subject(PLAIN | drops)))
    assert {name: result.message for name, result in answers.items() if result.status == "failed"} == {}
    assert {name for name, result in answers.items() if result.status == "skipped"} == {"randomness"}


def test_a_crash_fails_the_checks_that_meet_it_and_names_its_place() -> None:
    found = faults(subject(PLAIN | {"optimizer": {"_target_": "tests.doubles.faults.Raises"}}))
    assert found["learns"].startswith("ZeroDivisionError: the plugin's own mistake (faults.py:")
    assert "compatible" not in found


def test_every_check_has_a_planted_bug() -> None:
    assert {check for _, _, check, _ in PLANTED} == set(CHECKS)


FROM_ELSEWHERE = [
    ("syncs", "torch.optim.LBFGS", {}, "failed", "at lbfgs.py:"),
    ("syncs", "pytorch_optimizer.AdaShift", {}, "ok", ""),
    ("syncs", "pytorch_optimizer.Prodigy", {}, "failed", "at prodigy.py:"),
    ("randomness", "pytorch_optimizer.Kron", {}, "ok", "draws from global generators, which the cell seeds"),
    ("randomness", "tests.doubles.foreign.Random", {}, "failed", "use task.rng(name)"),
    ("repeat", "pytorch_optimizer.ScalableShampoo", {}, "ok", ""),
    ("resume", "pytorch_optimizer.ScalableShampoo", {}, "failed", "--allow pytorch_optimizer"),
    ("still", "tests.doubles.foreign.NoRate", {"schedule": None}, "skipped", "it has no lr"),
]


@pytest.mark.parametrize(
    ("check", "target", "parts", "status", "says"), FROM_ELSEWHERE, ids=lambda value: str(value)[:40]
)
def test_parts_from_elsewhere(check: str, target: str, parts: dict[str, Any], status: str, says: str) -> None:
    given = {**PLAIN, "optimizer": {"_target_": target}, **parts}
    result = run_check(check, subject({key: value for key, value in given.items() if value is not None}))
    assert result.status == status and says in result.message, result


def test_lr_0_stands_still_under_a_schedule_from_elsewhere() -> None:
    step = {"_target_": "torch.optim.lr_scheduler.OneCycleLR", "max_lr": 0.3, "total_steps": "${setup:steps}"}
    assert run_check("still", subject({**PLAIN, "schedule": step})).status == "ok"

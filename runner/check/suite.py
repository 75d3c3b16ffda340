"""All checks, by name and in order."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from runner.base.errors import one_line
from runner.check import bounds, budget, cards, costs, evaluation, fairness, fit, learning, syncs, trajectory
from runner.check.result import Result, failed, not_applicable
from runner.check.subject import Subject

Check = Callable[[Subject], Result]

CHECKS: dict[str, Check] = {
    "card": cards.check_card,
    "compatible": fit.check_compatible,
    "step": learning.check_step,
    "learns": learning.check_learns,
    "still": learning.check_still,
    "bounds": bounds.check_bounds,
    "repeat": trajectory.check_repeat,
    "resume": trajectory.check_resume,
    "warmup": trajectory.check_warmup,
    "randomness": trajectory.check_randomness,
    "inert": evaluation.check_inert,
    "swap": evaluation.check_swap,
    "promise": evaluation.check_promise,
    "bf16": learning.check_bf16,
    "syncs": syncs.check_syncs,
    "cost": costs.check_cost,
    "budget": budget.check_budget,
    "splits": fairness.check_splits,
    "clock": fairness.check_clock,
}
ALWAYS = ("card", "compatible")  # of the checks, those that need no run


def run_checks(subject: Subject, names: Iterable[str] = CHECKS) -> Iterator[tuple[str, Result]]:
    """Run the checks of those names on ``subject``, one by one; only a few where it refuses the workload."""
    refusal, left_out = _refusal(subject), False
    for name in names:
        if name in ALWAYS or refusal is None:
            yield name, run_check(name, subject)
        else:
            left_out = True
    if left_out:
        yield "the others", not_applicable(f"not for this workload: {refusal}")


def run_check(name: str, subject: Subject) -> Result:
    """One check; an algorithm that breaks while it is looked at has failed it."""

    def check(subject: Subject) -> Result:
        if name not in ALWAYS and subject.refusal is not None:
            return not_applicable(f"not for this workload: {subject.refusal}")
        return CHECKS[name](subject)

    return answer(check, subject)


S = TypeVar("S")


def answer(check: Callable[[S], Result], subject: S) -> Result:
    """What a check answers; to break while it looks is to fail it."""
    try:
        return check(subject)
    except Exception as error:
        return failed(one_line(f"{type(error).__name__}: {error} ({_place(error)})"))


def _refusal(subject: Subject) -> str | None:
    try:
        return subject.refusal
    except Exception:  # then the checks themselves say so
        return None


def summary(check: Callable[[Any], Result]) -> str:
    """The first line of a check's docstring."""
    return (check.__doc__ or "").strip().split("\n", 1)[0]


def _place(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{last.filename.rpartition('/')[2]}:{last.lineno}"

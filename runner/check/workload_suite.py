"""All checks of workloads, by name and in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from runner.check import (
    workload_evaluation,
    workload_info,
    workload_loss,
    workload_options,
    workload_repeat,
    workload_splits,
    workload_stream,
)
from runner.check.result import Result, failed
from runner.check.suite import answer
from runner.check.workload_rows import access_fault
from runner.check.workload_subject import WorkloadSubject

WorkloadCheck = Callable[[WorkloadSubject], Result]

WORKLOAD_CHECKS: dict[str, WorkloadCheck] = {
    "info": workload_info.check_info,
    "init": workload_loss.check_init,
    "reference": workload_loss.check_reference,
    "batch": workload_evaluation.check_batch,
    "inert": workload_evaluation.check_inert,
    "splits": workload_splits.check_splits,
    "reach": workload_splits.check_reach,
    "stream": workload_stream.check_stream,
    "repeat": workload_repeat.check_repeat,
    "process": workload_repeat.check_process,
    "options": workload_options.check_options,
}


def run_workload_checks(
    subject: WorkloadSubject, names: Iterable[str] = WORKLOAD_CHECKS
) -> Iterator[tuple[str, Result]]:
    """Run the checks of those names on ``subject``, one by one.

    Raises:
        UserError: for missing data, or arguments that the workload refuses.
    """
    subject.prepared()
    for name in names:
        yield name, run_workload_check(name, subject)


def run_workload_check(name: str, subject: WorkloadSubject) -> Result:
    """One check; a workload that breaks while it is looked at has failed it."""

    def check(subject: WorkloadSubject) -> Result:
        fault = access_fault(subject.build().evaluate)
        return WORKLOAD_CHECKS[name](subject) if fault is None else failed(fault)

    return answer(check, subject)

"""Does the algorithm say where it fits?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from runner.check.result import Result, failed, ok
from runner.check.subject import Subject
from runner.contract.batch import Info


def check_compatible(subject: Subject) -> Result:
    """compatible() answers every kind of workload with None or a reason, and fits one of the small ones."""
    algorithm = subject.build_algorithm()
    infos = [subject.info, *(subject.info_of(workload) for workload in subject.small)]
    for info in (*infos, *others(infos[0])):
        reason = algorithm.compatible(info)
        if reason is not None and not _says_why(reason):
            return failed(f"compatible() answers {reason!r} to a {info.task} task: expected None or a reason")
    reasons = [algorithm.compatible(info) for info in infos]
    if all(reason is not None for reason in reasons):
        return failed(f"it fits none of the small workloads: {reasons[0]}")
    return ok("" if reasons[0] is None else f"not for this workload: {reasons[0]}")


def _says_why(reason: object) -> bool:
    """Whether there is text, beyond the part's name that a composed algorithm puts in front."""
    return isinstance(reason, str) and not reason.strip().endswith(":") and bool(reason.strip())


def others(info: Info) -> Iterator[Info]:
    """Kinds of workloads that the small ones are not."""
    yield replace(info, task="binary", num_classes=2, metric="loss", minimize=True)
    yield replace(info, task="multiclass", num_classes=100, has_batchnorm=True, model="resnet")
    yield replace(info, task="lm", model="transformer", num_classes=256, input_shape=(64,), input_range=None,
                  metric="loss", minimize=True)  # fmt: skip
    yield replace(info, task="multiclass", num_classes=3, model="mlp", input_shape=(13,), input_range=None)
    yield replace(info, task="regression", num_classes=0, metric="loss", minimize=True)

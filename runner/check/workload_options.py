"""Options that every workload has: precision, label noise, rows set aside. Do they do what they say?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from runner.base.errors import UserError, one_line
from runner.check.result import Result, not_applicable, ok
from runner.check.same import difference
from runner.check.workload_hashes import row_hashes, share_known
from runner.check.workload_rows import cut, evaluated, outputs
from runner.check.workload_subject import SPLITS, Built, WorkloadSubject, first_fault

NOISE = 0.2
ASIDE = 20  # rows for each auxiliary stream, at most a tenth of the training rows
ROWS = 16
LR = 1e-3


def check_options(subject: WorkloadSubject) -> Result:
    """bf16 is finite, label noise is in training labels alone, rows set aside leave the training split."""
    checks: dict[str, Callable[[WorkloadSubject], Iterator[str | None]]] = {
        "precision": _bf16_faults,
        "label_noise": _noise_faults,
        "aux": _aux_faults,
    }
    here = [key for key in checks if key in subject.workload]
    if not here:
        return not_applicable(f"its config has none of {', '.join(checks)}")
    remarks = [f"no {key} in its config" for key in checks if key not in here]
    for key in here:
        try:
            result = first_fault(checks[key](subject))
        except UserError as error:
            remarks.append(f"it refuses {key}: {one_line(str(error), 120)}")
            continue
        if result is not None:
            return result
    return ok("; ".join(remarks))


# -- precision ---------------------------------------------------------------------------------------


def _bf16_faults(subject: WorkloadSubject) -> Iterator[str | None]:
    built = subject.build(precision="bf16")
    task, few = built.task, cut(built.evaluate, ROWS)
    found = outputs(built, few.splits["validation"].x)
    if found.dtype != torch.float32:
        yield f"with precision=bf16 the model's outputs are {found.dtype}: losses take float32"
    task.model.train()
    loss = task.backward(task.data.next(ROWS))
    yield _finite("the first loss", [loss])
    yield _finite("a gradient", [p.grad for p in task.params if p.grad is not None])
    with torch.no_grad():
        torch._foreach_add_(
            task.params, [p.grad if p.grad is not None else p * 0 for p in task.params], alpha=-LR
        )
    for split in SPLITS:
        metrics = evaluated(built, few, split).metrics
        odd = [name for name, value in metrics.items() if not math.isfinite(value)]
        yield f"with precision=bf16 {split} {odd[0]} is not finite after a step" if odd else None


def _finite(what: str, tensors: list[Tensor]) -> str | None:
    if all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
        return None
    return f"with precision=bf16 {what} is not finite"


# -- label noise -------------------------------------------------------------------------------------


def _noise_faults(subject: WorkloadSubject) -> Iterator[str | None]:
    clean, noisy, other = subject.build(), _noisy(subject), _noisy(subject, 1)
    before, after = clean.task.data, noisy.task.data
    if len(before.y) != len(after.y) or difference(before.x, after.x) is not None:
        yield f"label_noise={NOISE} changes training inputs, not labels alone"
    share = (before.y != after.y).double().mean().item()
    # Replaced by another class, or by any class, which may be the right one.
    classes, slack = clean.task.info.num_classes, 3 * math.sqrt(NOISE / before.y.numel())
    if not NOISE * (1 - 1 / classes) - slack <= share <= NOISE + slack:
        yield f"label_noise={NOISE} changes {share:.1%} of the training labels"
    if not bool(((after.y >= 0) & (after.y < classes)).all()):
        yield f"label_noise={NOISE} gives labels that are no class"
    yield from _scored_faults(f"label_noise={NOISE}", clean, noisy)
    fault = difference(after.y, other.task.data.y)
    yield (
        fault
        and f"label_noise={NOISE} gives other labels with another seed: they must be the same in every cell"
    )


def _noisy(subject: WorkloadSubject, study: int = 0) -> Built:
    return subject.build(study, label_noise=NOISE)


def _scored_faults(change: str, before: Built, after: Built) -> Iterator[str | None]:
    for name in SPLITS:
        a, b = before.evaluate.splits[name], after.evaluate.splits[name]
        if difference([a.x, a.y], [b.x, b.y]) is not None:
            yield f"{change} changes {name}: scored rows are never touched"


# -- rows set aside ----------------------------------------------------------------------------------


def _aux_faults(subject: WorkloadSubject) -> Iterator[str | None]:
    plain = subject.build()
    rows = max(1, min(ASIDE, plain.task.data.n // 10))
    aux = {"clean": rows, "holdout": rows}
    wrong = "label_noise" in subject.workload and plain.kind != "regression"  # numbers are never relabelled
    noise: dict[str, Any] = {"label_noise": NOISE} if wrong else {}
    before, after = subject.build(**noise), subject.build(aux=aux, **noise)
    change, task = f"aux={{clean: {rows}, holdout: {rows}}}", after.task
    for name in aux:
        found = task.aux[name].n if name in task.aux else "no"
        if found != rows:
            yield f"{change}: task.aux[{name!r}] has {found} rows"
    if task.info.num_train != task.data.n or sorted(task.info.aux) != sorted(task.aux):
        yield f"{change}: info has num_train={task.info.num_train} and aux={task.info.aux}, which is not so"
    yield _partition_fault(change, before.task.data, [task.data, *task.aux.values()])
    yield from _scored_faults(change, plain, after)
    yield _label_fault(change, "training", task.data, before.task.data)
    yield _label_fault(change, "holdout", task.aux["holdout"], before.task.data)
    yield _label_fault(f"{change} with label noise", "clean", task.aux["clean"], plain.task.data)


def _partition_fault(change: str, whole: Any, streams: list[Any]) -> str | None:
    """Whether the streams together hold the training inputs, each in one of them."""
    before = Counter(row_hashes(whole.x).tolist())
    after = Counter(torch.cat([row_hashes(stream.x) for stream in streams]).tolist())
    many, few = (after - before).total(), (before - after).total()
    if not many and not few:
        return None
    return f"{change}: streams are no partition of the training split ({many} rows too many, {few} too few)"


def _label_fault(change: str, name: str, stream: Any, whole: Any) -> str | None:
    known = share_known(row_hashes(stream.x, stream.y), row_hashes(whole.x, whole.y))
    return (
        None
        if known == 1
        else f"{change}: {1 - known:.1%} of the {name} rows have other labels than they should"
    )

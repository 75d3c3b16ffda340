"""Is a cell a function of its seed alone, in this process and in the next?"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from runner.check.result import Result, failed, ok
from runner.check.workload_rows import own_dice
from runner.check.workload_subject import Built, WorkloadSubject
from runner.check.workload_trace import DATA, elsewhere, trace

ORDER, WEIGHTS = "the first batches", "the initial weights"


def check_repeat(subject: WorkloadSubject) -> Result:
    """One seed gives the same data, weights, batches and metrics twice; another others, but for the data."""
    first = trace(subject.build())
    odd = differing(first, trace(_apart(subject, dice=1)))
    if odd:
        return failed(
            f"two builds from one seed differ in {odd[0]}: draw it from a seed of the workload's own, "
            "not from a global generator"
        )
    other = subject.build(study=1)
    return _other_seed(differing(first, trace(other)), other)


def _apart(subject: WorkloadSubject, dice: int) -> Built:
    """Built as in a process that has drawn other numbers before."""
    with _global_dice(dice, torch.device(subject.device)):
        return subject.build(workload=subject.afresh())


@contextmanager
def _global_dice(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, all global generators are at another place."""
    python, numpy = random.getstate(), np.random.get_state()
    with own_dice(device):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def differing(a: dict[str, str], b: dict[str, str]) -> list[str]:
    """What two traces have that is not the same."""
    return [what for what in a if a[what] != b.get(what)]


def _other_seed(odd: list[str], other: Built) -> Result:
    """What may differ in the cell of another seed, and what must."""
    data = [what for what in DATA if what in odd]
    if data:
        rows = data[0].removeprefix("the ")
        return failed(f"another seed gives other {rows}: they must be the same in every cell")
    if ORDER not in odd:
        return failed("another seed gives the same batches: the order of the rows must follow the seed")
    if WEIGHTS in odd:
        return ok()
    if all(bool((p == p.flatten()[0]).all()) for p in other.task.params):
        return ok("the initial weights are constants, whatever the seed")
    return failed("another seed gives the same initial weights: draw them from torch's global generator")


def check_process(subject: WorkloadSubject) -> Result:
    """Another process, whose strings hash differently, has the same data, weights, batches and metrics."""
    odd = differing(trace(subject.build()), elsewhere([subject])[0])
    if not odd:
        return ok()
    return failed(
        f"another process has other {odd[0].removeprefix('the ')}: no set of strings, no hash() and no "
        "unsorted folder may say in which order data comes"
    )

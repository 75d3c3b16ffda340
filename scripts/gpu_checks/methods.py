"""Methods on small workloads, as :mod:`runner.check` trains them, on the device that is checked."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from runner.check.subject import Subject
from runner.check.subjects import subjects
from scripts.gpu_checks.unit import NotRunHere, Place

# Without augmentation, which draws from the device's own generators: convolutions, attention, one product.
SMALL = (
    ("workload=cifar10_synthetic", "workload.augment=none"),
    ("workload=tiny_lm_pydocs",),
    ("workload=breast_cancer",),
)


def on(place: Place, algorithm: str, *workload: str) -> Subject:
    """A method on the workload that overrides name.

    Raises:
        NotRunHere: where the method refuses it.
    """
    (found,) = subjects([f"algorithm={algorithm}", f"device={place.device}", *workload])
    if found.refusal is not None:
        raise NotRunHere(f"{algorithm} does not fit {found.workload['name']}: {found.refusal}")
    return found


def on_a_small_one(place: Place, algorithm: str) -> Subject:
    """A method on the first of the small workloads that it fits.

    Raises:
        NotRunHere: where it refuses them all.
    """
    for workload in SMALL:
        with contextlib.suppress(NotRunHere):
            return on(place, algorithm, *workload)
    raise NotRunHere(f"{algorithm} fits no small workload")


def on_the_cpu(subject: Subject) -> Subject:
    """The same, elsewhere."""
    return replace(subject, device="cpu")

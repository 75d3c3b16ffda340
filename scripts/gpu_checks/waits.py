"""Does a step wait for the device? torch itself says so, in its debug mode for synchronisation."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import torch

from runner.check.trial import Pieces
from runner.compose.config import algorithm_names
from runner.machine import machine
from scripts.gpu_checks.methods import on_a_small_one
from scripts.gpu_checks.unit import Broken, Facts, Place, Unit

LAZY = 3  # steps in which what is made on first use may be made
STEPS = 20


def units() -> Mapping[str, Unit]:
    """One for each preset."""
    return {name: partial(announced, name) for name in algorithm_names()}


def announced(algorithm: str, place: Place) -> Facts:
    """No step waits but those that ``syncs_every`` declares."""
    place.needs_gpu("torch's debug mode for synchronisation is CUDA's; runner.check syncs looks on a CPU")
    machine.configure(1, deterministic=False)
    subject = on_a_small_one(place, algorithm)
    waits: dict[int, str] = {}
    trial = subject.train(STEPS, warmup=LAZY, around=noting(waits))
    declared = trial.pieces.algorithm.syncs_every
    allowed = -(-len(trial.steps) // declared) if declared else 0
    if len(waits) > allowed:
        step, said = next(iter(waits.items()))
        raise Broken(f"{len(waits)} of {len(trial.steps)} steps wait, {allowed} may; step {step}: {said}")
    return {"workload": subject.workload["name"], "steps": len(trial.steps), "waiting": len(waits)}


def noting(waits: dict[int, str]) -> Callable[[Pieces], AbstractContextManager[None]]:
    """Keeps, by step, what torch warns of."""

    @contextmanager
    def around(pieces: Pieces) -> Iterator[None]:
        step = pieces.task.cost.steps
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield
            finally:
                torch.cuda.set_sync_debug_mode("default")
        said = [str(each.message) for each in found if "synchronizing CUDA" in str(each.message)]
        if said and step >= LAZY:
            waits[step] = said[0]

    return around

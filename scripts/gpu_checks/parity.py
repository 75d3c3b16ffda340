"""The first steps of every preset on the device against those on the CPU, TF32 off."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

from runner.check.trial import Trial
from runner.compose.config import algorithm_names
from runner.machine import machine
from scripts.gpu_checks.methods import on_a_small_one, on_the_cpu
from scripts.gpu_checks.unit import Broken, Facts, Place, Unit

STEPS = 6
CLOSE = 2e-3  # relative, of a loss: sums in another order, and signs of what is nearly 0


def units() -> Mapping[str, Unit]:
    """One for each preset."""
    return {name: partial(same_losses, name) for name in algorithm_names()}


def same_losses(algorithm: str, place: Place) -> Facts:
    """The losses; of a method that draws numbers on the device, whose generators are others, finite ones."""
    machine.configure(1, deterministic=False)
    subject = on_a_small_one(place, algorithm)
    here, there = subject.train(STEPS), on_the_cpu(subject).train(STEPS)
    mine, theirs = losses(here), losses(there)
    draws = _draws(here)
    worst = max((abs(a - b) / max(abs(b), 1.0) for a, b in zip(mine, theirs, strict=False)), default=0.0)
    if not all(map(math.isfinite, mine)):
        raise Broken(f"losses on the device are not finite: {mine}")
    if not draws and (len(mine) != len(theirs) or worst > CLOSE):
        raise Broken(f"losses differ by {worst:.1e}: {mine} instead of {theirs}")
    return {"workload": subject.workload["name"], "worst": worst, "draws_on_the_device": draws}


def losses(trial: Trial) -> list[float]:
    """Of each step."""
    return [float(loss) for loss in trial.losses if loss is not None]


def _draws(trial: Trial) -> bool:
    task = trial.pieces.task
    return bool(task.state_dict()["generators"]) or task.data.generator is not None

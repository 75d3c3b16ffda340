"""Bit for bit, with ``deterministic``: repeated, resumed, behind a warm-up, evaluated more often."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial

from runner.check import run_checks
from runner.machine import machine
from scripts.gpu_checks.methods import on
from scripts.gpu_checks.unit import Broken, Facts, NotRunHere, Place, Unit

METHODS = ("adamw", "sam", "muon", "schedule_free_adamw", "ema", "rho_loss", "wgsef")
MODELS = {"cnn": "digits", "resnet": "cifar10_synthetic", "lm": "tiny_lm_pydocs"}
CHECKS = ("repeat", "resume", "warmup", "inert")


def units() -> Mapping[str, Unit]:
    """One for each method and kind of model."""
    return {
        f"{method}-{model}": partial(same_bits, method, workload)
        for model, workload in MODELS.items()
        for method in METHODS
    }


def same_bits(method: str, workload: str, place: Place) -> Facts:
    """The checks of :mod:`runner.check`, on the device."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    machine.configure(1, deterministic=True)
    try:
        found = dict(run_checks(on(place, method, f"workload={workload}"), CHECKS))
    finally:
        machine.configure(1, deterministic=False)
    broken = [f"{name}: {result.message}" for name, result in found.items() if result.status == "failed"]
    if broken:
        raise Broken("; ".join(broken))
    left_out = [f"{name}: {result.message}" for name, result in found.items() if result.status == "skipped"]
    if len(left_out) == len(found):
        raise NotRunHere("; ".join(left_out))
    return {"checks": [name for name, result in found.items() if result.status == "ok"], "left_out": left_out}

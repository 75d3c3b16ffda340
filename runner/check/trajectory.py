"""Checks that hold one run against another, bit for bit."""

from __future__ import annotations

import pickle
import random
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from runner.check.result import Result, failed, not_applicable, ok, verdict
from runner.check.same import difference
from runner.check.subject import Subject
from runner.check.trial import Pieces, Trial
from runner.contract.generators import torch_rng

ALL = ("losses", "rows", "progress", "task", "algorithm", "cost", "rng")
WITHOUT_GLOBAL_RNG = tuple(key for key in ALL if key != "rng")


def check_repeat(subject: Subject) -> Result:
    """Two runs in one process agree bit for bit: losses, evaluations, weights, state, generators, meters."""
    first, second = subject.twice
    fault = departure(first, second)
    return verdict(fault and f"a second run of the same seed differs: {fault}")


def check_resume(subject: Subject) -> Result:
    """A run that is killed and goes on from its checkpoint in a new process ends as if it had not been."""
    middle = max(1, len(subject.short.steps) // 2 - 1)  # within an epoch, between two evaluations
    killed = subject.train(interrupt_after=middle)
    if not killed.saved:
        return failed(f"the run ended ({killed.ended}) before step {middle}: nothing to resume")
    try:
        resumed = subject.train(resume=killed.saved)
    except pickle.UnpicklingError as error:
        return failed(
            f"state_dict() holds {_odd(error)}; only tensors, numbers, strings, lists and dicts can be "
            f"loaded, and objects of a package that is allowed{_by_option(error)}"
        )
    resumed.steps, resumed.rows = killed.steps + resumed.steps, killed.rows + resumed.rows
    fault = departure(subject.short, resumed)
    return verdict(fault and f"resumed at step {middle}, the run differs: {fault}")


def check_warmup(subject: Subject) -> Result:
    """Nothing learnt in the warm-up on noise survives: with and without it, the same run bit for bit."""
    fault = departure(subject.short, subject.train(warmup=3))
    return verdict(fault and f"warm-up leaves a trace (on a class, in a module?): {fault}")


def check_randomness(subject: Subject) -> Result:
    """Global generators (torch, numpy, random) neither steer the steps nor are drawn from by them."""
    if _drops_out(subject):
        return not_applicable("the model has dropout, which draws from torch's global generator")
    drawn_from: set[str] = set()

    @contextmanager
    def perturbed(pieces: Pieces) -> Iterator[None]:
        seed = 1000 + pieces.task.cost.steps
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        before = _generators(pieces)
        yield
        drawn_from.update(name for name, state in _generators(pieces).items()
                          if difference(before[name], state) is not None)  # fmt: skip

    fault = departure(subject.short, subject.train(around=perturbed), WITHOUT_GLOBAL_RNG)
    if (drawn_from or fault) and (library := subject.library) is not None:
        return ok(f"{library} draws from global generators, which the cell seeds and checkpoints keep")
    if drawn_from:
        return failed(f"a step draws from the global generator of {' and '.join(sorted(drawn_from))}; "
                      "use task.rng(name)")  # fmt: skip
    return verdict(fault and f"global generators steer the steps: {fault}; use task.rng(name)")


def departure(a: Trial, b: Trial, keys: tuple[str, ...] = ALL) -> str | None:
    """Where two runs part: the first differing loss, else the first differing piece of what they left."""
    pairs = zip(a.losses, b.losses, strict=False)
    steps = (step for step, (x, y) in enumerate(pairs, start=1) if difference(x, y) is not None)
    first = next(steps, None)
    if first is not None and "losses" in keys:
        return f"the loss of step {first}"
    return difference(_left(a, keys), _left(b, keys))


def _odd(error: pickle.UnpicklingError) -> str:
    found = re.search(r"GLOBAL (\S+)", str(error))
    return f"a {found[1]}" if found else "what weights_only=True refuses"


def _by_option(error: pickle.UnpicklingError) -> str:
    found = re.search(r"GLOBAL (\w+)", str(error))
    return f": --allow {found[1]}" if found and found[1] not in sys.stdlib_module_names else ""


def _left(trial: Trial, keys: tuple[str, ...]) -> dict[str, Any]:
    left = {"ended": trial.ended, "losses": trial.losses, "rows": trial.rows, **trial.state}
    return {key: left[key] for key in ("ended", *keys)}


def _generators(pieces: Pieces) -> dict[str, Any]:
    device = pieces.task.data.x.device
    numpy: Any = np.random.get_state(legacy=False)
    return {
        "torch": torch_rng(device),
        "numpy": [numpy["state"]["key"].tobytes(), numpy["state"]["pos"]],
        "random": random.getstate(),
    }


def _drops_out(subject: Subject) -> bool:
    modules = subject.short.pieces.task.model.modules()
    return any(isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0 for module in modules)

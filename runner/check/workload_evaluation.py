"""Checks of evaluations: the batch size leaves no trace in the numbers, and the call none in training."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from runner.check.result import Result, ok
from runner.check.same import copied, difference
from runner.check.workload_rows import cut, evaluated, stirred
from runner.check.workload_subject import SPLITS, Built, WorkloadSubject, first_fault
from runner.contract.generators import torch_rng

ROWS = 31
SIZES = (1, 7, 16, 29, 30)  # of batches, against all rows in one; both splits have a ragged last batch
TOLERANCE = 1e-5  # of a loss; rounding in float32 depends on the batch


def check_batch(subject: WorkloadSubject) -> Result:
    """Metrics do not depend on the evaluation batch size, and every row counts once, the last ones too."""
    built = subject.build()
    return first_fault(_batch_faults(built)) or ok()


def _batch_faults(built: Built) -> Iterator[str | None]:
    whole = cut(built.evaluate, ROWS)
    with stirred(built, whole.splits["validation"].x):
        for split in SPLITS:
            first = evaluated(built, whole, split)
            yield first.fault(len(whole.splits[split].y), split)
            for size in SIZES:
                other = evaluated(built, cut(built.evaluate, ROWS, size), split)
                yield other.fault(len(whole.splits[split].y), split)
                yield _gap(split, first.metrics, other.metrics, size)
    yield from (_coverage_fault(built, split) for split in SPLITS)


def _gap(split: str, whole: dict[str, float], parts: dict[str, float], size: int) -> str | None:
    for name, value in whole.items():
        if abs(parts[name] - value) > TOLERANCE * max(abs(value), 1e-2):
            return (
                f"{split} {name} is {value:.7g} with all rows in one batch and {parts[name]:.7g} in batches "
                f"of {size}: add up over rows and divide once, by their number"
            )
    return None


def _coverage_fault(built: Built, split: str) -> str | None:
    """Whether every row of the whole split is passed; by a stand-in for the model, which is quick."""
    stand_in, rows = StandIn(built), len(built.evaluate.splits[split].y)
    built.evaluate(stand_in.eval(), split, None)
    if stand_in.passed == rows:
        return None
    return f"the evaluation passes {stand_in.passed} of the {rows} rows of {split}: the last batch counts too"


class StandIn(nn.Module):
    """Outputs of the right shape, and a count of rows."""

    def __init__(self, built: Built) -> None:
        super().__init__()
        self.kind, self.classes, self.passed = built.kind, built.task.info.num_classes, 0

    def forward(self, x: Tensor) -> Tensor:
        """Zeros: logits, (B,), (B, C) or (B, T, V), or numbers, (B,)."""
        self.passed += len(x)
        shape = {"binary": x.shape[:1], "regression": x.shape[:1], "lm": (*x.shape, self.classes)}
        return torch.zeros(shape.get(self.kind, (len(x), self.classes)), device=x.device)


# -- inert -------------------------------------------------------------------------------------------


def check_inert(subject: WorkloadSubject) -> Result:
    """An evaluation changes no rows, weights, buffers, modes, generators, and answers the same twice."""
    built = subject.build()
    built.task.backward(built.task.data.next())  # gradients, and generators that have moved
    return first_fault(_inert_faults(built)) or ok()


def _inert_faults(built: Built) -> Iterator[str | None]:
    model, few = built.task.model, cut(built.evaluate, ROWS, batch_size=8)
    model.eval()
    before = copied(_state(built, few))
    for split in SPLITS:
        first, modes = evaluated(built, few, split), [module.training for module in model.modules()]
        yield f"evaluating {split} leaves the model in training mode" if any(modes) else None
        yield _changed(built, few, before, split)
        if first.graphs:
            yield f"evaluating {split} builds graphs for gradients: put it under torch.no_grad()"
        again = evaluated(built, few, split)
        fault = difference(first.metrics, again.metrics)
        yield fault and f"evaluating {split} twice gives two answers: {fault}"


def _changed(built: Built, few: Any, before: dict[str, Any], split: str) -> str | None:
    for what, state in _state(built, few).items():
        fault = difference(before[what], state)
        if fault is not None:
            return f"evaluating {split} changes {what}: {fault}"
    return None


def _state(built: Built, few: Any) -> dict[str, Any]:
    task, numpy_state = built.task, np.random.get_state(legacy=False)
    assert isinstance(numpy_state, dict)
    streams = {"data": task.data, **task.aux}
    return {
        "training rows": {name: [stream.x, stream.y] for name, stream in streams.items()},
        "scored rows": {name: [rows.x, rows.y] for name, rows in few.splits.items()},
        "weights or buffers": task.model.state_dict(),
        "gradients": {name: p.grad for name, p in task.model.named_parameters()},
        "what is trainable": {name: p.requires_grad for name, p in task.model.named_parameters()},
        "the task's state": {k: v for k, v in task.state_dict().items() if k != "model"},
        "torch's global generator": torch_rng(task.data.x.device),
        "numpy's global generator": [numpy_state["state"]["key"].tobytes(), numpy_state["state"]["pos"]],
        "random's global generator": list(random.getstate()),
    }

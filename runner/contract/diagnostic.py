"""What is measured beside the metric at every evaluation: off the clock, without a trace in training.

A diagnostic is a file and a YAML under ``conf/diagnostics/``; its numbers become columns ``diag/<key>`` of
the evaluations. The harness puts weights, buffers, modes and global generators back afterwards, bit for bit.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from runner.base.errors import described
from runner.contract.algorithm import Algorithm
from runner.contract.batch import Batch
from runner.contract.cost import Cost
from runner.contract.generators import global_rng, set_global_rng
from runner.contract.task import Task

Rebuild = Callable[[], tuple[Task, Algorithm]]


@dataclass(frozen=True)
class Step:
    """The step that comes next, one tensor per parameter.

    Attributes:
        gradient: of the workload's mean loss on the stream's next batch, in training mode.
        update: what the step adds to the weights, without the weight decay of this step.
    """

    gradient: list[Tensor]
    update: list[Tensor]


class Probe:
    """What a diagnostic may look at: the weights that are being trained, and always the same training rows.

    Args:
        task: the cell's task.
        algorithm: what trains it.
        rebuild: task and algorithm of this cell afresh, set up, as before a resume.

    Attributes:
        task: the cell's task, its meters paused.
        batch: rows of the training split, drawn once from a stream of their own.
    """

    def __init__(
        self, task: Task, algorithm: Algorithm | None = None, rebuild: Rebuild | None = None
    ) -> None:
        self._stream = task.data.clone("diagnostics")
        self._stream.cost = Cost()
        self._batches: list[Batch] = []
        self._algorithm, self._rebuild = algorithm, rebuild
        self.task = task
        self.batch = self.batches(1)[0]

    @property
    def params(self) -> list[Tensor]:
        """The trainable parameters."""
        return self.task.params

    @property
    def steps(self) -> int:
        """Steps so far."""
        return self.task.cost.steps

    def batches(self, count: int) -> list[Batch]:
        """The first ``count`` batches of those rows; :attr:`batch` is the first of them."""
        self._batches += [self._stream.next() for _ in range(count - len(self._batches))]
        return self._batches[:count]

    def loss(self, batch: Batch | None = None) -> Tensor:
        """The workload's own mean loss over the rows, (); whatever loss the algorithm trains on."""
        return _loss(self.task, batch or self.batch)

    def gradient(self) -> list[Tensor]:
        """Gradient of :meth:`loss`, one tensor per parameter, shaped like it; zero where none flows."""
        return _gradient(self.task, self.batch)

    def next_step(self) -> Step:
        """The step that training makes next: a second cell, at the state of this one, makes it and is gone.

        At the end of the budget: the last one once more. Weight decay that is not a ``weight_decay`` of the
        optimizer's groups stays in.

        Raises:
            TypeError: where there is no algorithm to ask.
        """
        if self._algorithm is None or self._rebuild is None:
            raise TypeError("the next step needs the cell's algorithm")
        state = copy.deepcopy((self.task.state_dict(), self._algorithm.state_dict()))  # steps write to it
        cost, device = self.task.cost.state_dict(), self.task.data.x.device
        rng = global_rng(device)
        task, algorithm = self._rebuild()

        def rewind() -> None:
            task.load_state_dict(state[0])
            task.cost.load_state_dict(cost)
            task.cost.drawn = min(task.cost.drawn, max(0, task.info.budget_samples - task.info.batch_size))
            set_global_rng(rng, device)

        rewind()
        algorithm.load_state_dict(state[1])
        _without_decay(algorithm)
        gradient = _gradient(task, task.data.next())
        rewind()
        before = [p.detach().clone() for p in task.params]
        algorithm.step(task)
        return Step(gradient, list(torch._foreach_sub([p.detach() for p in task.params], before)))


class Diagnostic:
    """A measurement. Constructors take their options as keywords."""

    def measure(self, probe: Probe) -> Mapping[str, float | Tensor]:
        """Numbers by column, device scalars or floats; called in training mode, with gradients enabled."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """What it remembers between evaluations; loadable with ``weights_only=True``."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""


@dataclass
class Diagnostics:
    """All diagnostics of a cell.

    Attributes:
        parts: by name.
        algorithm: what trains the cell; for those that ask for the next step.
        rebuild: task and algorithm afresh, as before a resume; for the same.
    """

    parts: Mapping[str, Diagnostic] = field(default_factory=dict)
    algorithm: Algorithm | None = None
    rebuild: Rebuild | None = None
    _probe: Probe | None = None
    _failed: set[str] = field(default_factory=set)

    def measure(self, task: Task, restore: Callable[[], None] = lambda: None) -> dict[str, float]:
        """Columns ``diag/<key>``; what is not finite is left out, as is a part that fails, with a warning.

        Args:
            task: the cell's task.
            restore: puts weights, buffers, modes and global generators back; called in front of each part,
                so that its numbers do not hang on the others. Behind the last one the caller does it.
        """
        if self._probe is None:
            self._probe = Probe(task, self.algorithm, self.rebuild)
        found: dict[str, float | Tensor] = {}
        with torch.enable_grad(), task.cost.paused():
            for name, part in self.parts.items():
                restore()
                task.model.train()
                found |= self._measured(name, part, self._probe)
        values = _read(found)
        return {f"diag/{key}": value for key, value in values.items() if math.isfinite(value)}

    def _measured(self, name: str, part: Diagnostic, probe: Probe) -> Mapping[str, float | Tensor]:
        if name in self._failed:
            return {}
        try:
            return part.measure(probe)
        except Exception as error:  # a measurement beside the point costs no cell its result
            self._failed.add(name)
            print(f"warning: diagnostic {name}: {described(error)}", file=sys.stderr, flush=True)
            return {}

    def state_dict(self) -> dict[str, Any]:
        """What the parts remember."""
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken; a part that was not there starts afresh."""
        for name, part in self.parts.items():
            if name in state:
                part.load_state_dict(state[name])


def _read(values: Mapping[str, float | Tensor]) -> dict[str, float]:
    """As floats, with one transfer from the device."""
    tensors = {key: value for key, value in values.items() if isinstance(value, Tensor)}
    read = torch.stack([t.detach().double() for t in tensors.values()]).tolist() if tensors else []
    return {key: float(value) for key, value in values.items() if key not in tensors} | dict(
        zip(tensors, read, strict=True)
    )


def _loss(task: Task, batch: Batch) -> Tensor:
    return task.kind.rows(task.outputs(batch), batch.y, task.own_loss).mean()


def _gradient(task: Task, batch: Batch) -> list[Tensor]:
    return list(torch.autograd.grad(_loss(task, batch), task.params, materialize_grads=True))


def _without_decay(algorithm: Algorithm) -> None:
    """Set ``weight_decay`` to 0 in the groups of every optimizer of ``algorithm``, and of those inside it."""
    for part in vars(algorithm).values():
        if isinstance(part, Algorithm):
            _without_decay(part)
        for group in getattr(part, "param_groups", ()):
            if "weight_decay" in group:
                group["weight_decay"] = 0.0

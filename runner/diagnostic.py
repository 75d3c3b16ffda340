"""What is measured beside the metric at every evaluation: off the clock, without a trace in training.

A diagnostic is a file and a YAML under ``conf/diagnostics/``; its numbers become columns ``diag/<key>`` of
the evaluations. The harness puts weights, buffers, modes and global generators back afterwards, bit for bit.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from runner.batch import Batch
from runner.cost import Cost
from runner.task import Task


class Probe:
    """What a diagnostic may look at: the weights that are being trained, and always the same training rows.

    Attributes:
        task: the cell's task, its meters paused.
        batch: rows of the training split, drawn once from a stream of their own.
    """

    def __init__(self, task: Task) -> None:
        stream = task.data.clone("diagnostics")
        stream.cost = Cost()
        self.task, self.batch = task, stream.next()

    @property
    def params(self) -> list[Tensor]:
        """The trainable parameters."""
        return self.task.params

    @property
    def steps(self) -> int:
        """Steps so far."""
        return self.task.cost.steps

    def loss(self, batch: Batch | None = None) -> Tensor:
        """The workload's own mean loss over the rows, (); whatever loss the algorithm trains on."""
        batch, task = batch or self.batch, self.task
        return task.kind.rows(task.outputs(batch), batch.y, task.own_loss).mean()

    def gradient(self) -> list[Tensor]:
        """Gradient of :meth:`loss`, one tensor a parameter, shaped like it; zero where none flows."""
        return list(torch.autograd.grad(self.loss(), self.params, materialize_grads=True))


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
    """

    parts: Mapping[str, Diagnostic] = field(default_factory=dict)
    _probe: Probe | None = None
    _failed: set[str] = field(default_factory=set)

    def measure(self, task: Task) -> dict[str, float]:
        """Columns ``diag/<key>``; what is not finite is left out, as is a part that fails, with a warning.

        Moves buffers and global generators: the caller puts them back.
        """
        if self._probe is None:
            self._probe = Probe(task)
        found: dict[str, float | Tensor] = {}
        task.model.train()
        with torch.enable_grad(), task.cost.paused():
            for name, part in self.parts.items():
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
            print(f"warning: diagnostic {name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
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

"""No weight decay on biases and norms."""

from __future__ import annotations

from typing import Any

from runner.contract.task import Task


class NoDecay1d:
    """Two parameter groups: tensors of two or more dimensions decay, the others do not.

    Paper: a convention of the field; no source of its own.
    Update: weight_decay = 0 for parameters with ndim ≤ 1 (biases, norm gains).
    Defaults: none.
    State: none.
    Cost: 1 forward, 1 backward.
    Pitfalls: embeddings are 2-D and do decay.
    Deviations: none.
    """

    def __call__(self, task: Task) -> list[dict[str, Any]]:
        """The groups that are not empty."""
        matrices = [p for p in task.params if p.ndim > 1]
        vectors = [p for p in task.params if p.ndim <= 1]
        groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
        return [group for group in groups if group["params"]]

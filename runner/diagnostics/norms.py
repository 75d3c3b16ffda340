"""Gradient norm, update size and weight norm: is it moving, and is it blowing up?

``grad_norm``: Euclidean norm of the gradient of the workload's mean loss on a fixed batch of training rows,
at the weights being trained, in training mode. ``update_rms``: root mean square over the weights of their
change since the last evaluation, divided by the steps in between: of at most 65,536 weights, evenly spaced,
so that a checkpoint does not hold a second copy of a large model. ``weight_norm``: Euclidean norm of all of
them. One forward and one backward pass of a batch at each evaluation, off the clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from runner.contract.diagnostic import Diagnostic, Probe

SAMPLED = 65_536  # weights that are remembered from one evaluation to the next


class Norms(Diagnostic):
    """The three of them; ``update_rms`` from the second evaluation on."""

    def __init__(self) -> None:
        self._before: Tensor | None = None
        self._steps = 0

    def measure(self, probe: Probe) -> Mapping[str, float | Tensor]:
        """``grad_norm, weight_norm`` and, where there was training in between, ``update_rms``."""
        weights = [p.detach() for p in probe.params]
        found: dict[str, float | Tensor] = {
            "grad_norm": _norm(probe.gradient()),
            "weight_norm": _norm(weights),
        }
        sample, steps = sampled(weights), probe.steps - self._steps
        if self._before is not None and steps > 0:
            found["update_rms"] = (sample - self._before).square().mean().sqrt() / steps
        self._before, self._steps = sample, probe.steps
        return found

    def state_dict(self) -> dict[str, Any]:
        """The weights at the last evaluation."""
        return {"before": self._before, "steps": self._steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._before, self._steps = state["before"], state["steps"]


def sampled(tensors: list[Tensor], limit: int = SAMPLED) -> Tensor:
    """Every k-th element of all of them laid end to end, (≤ limit,), in double precision; a copy."""
    total = sum(t.numel() for t in tensors)
    stride, start, parts = -(-total // limit) or 1, 0, []
    for tensor in tensors:
        parts.append(tensor.reshape(-1)[start::stride].double())
        start = (start - tensor.numel()) % stride
    return torch.cat(parts).clone() if parts else torch.zeros(0)


def _norm(tensors: list[Tensor]) -> Tensor:
    if not tensors:
        return torch.zeros(())
    return torch.linalg.vector_norm(torch.stack([t.double() for t in torch._foreach_norm(tensors)]))

"""Learning rate and weight decay of hidden matrices as functions of the model's width."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from runner.contract.task import Task


class AdamWMupWd:
    """AdamW tuned on a narrow model, for a wide one: hidden matrices have lr ∝ 1/width and decay ∝ √width.

    Paper: Robust Layerwise Scaling Rules by Proper Weight Decay Tuning (2025, arXiv 2510.15262).
    Update: with r = d / d₀, width over base width, of a hidden matrix: lr ← lr / r and λ ← λ·√r; all other
        parameters (biases, norms, embeddings, the head) keep lr and have λ = 0. AdamW's decay is lr·λ.
    Defaults: width_ratio null: each matrix's own, as the workload states it, and 1 where it states none.
    State: none.
    Cost: 1 forward, 1 backward.
    Pitfalls: for optimizers whose decay is lr·λ, as torch's AdamW; one that takes λ alone off the weights
        wants λ / √r. Betas, batch size and schedule stay as they are over the widths. lr and λ on the
        command line are those of the base width. Where r is 1 this only takes the decay from embeddings
        and head.
    Deviations: the rest of μP (initial variance 1/fan_in, an output multiplier of 1/d, attention scaled by
        1/d_head; from memory, unverified) belongs to the model and is not touched.

    Args:
        width_ratio: r of all hidden matrices; None for the workload's.

    Raises:
        ValueError: for a ratio that is not positive.
    """

    def __init__(self, width_ratio: float | None = None) -> None:
        if width_ratio is not None and not width_ratio > 0:
            raise ValueError(f"width_ratio must be greater than 0, got {width_ratio}")
        self.width_ratio = width_ratio

    def __call__(self, task: Task) -> list[dict[str, Any]]:
        """A group for each ratio, and one for the other parameters."""
        matrices: dict[float, list[Tensor]] = {}
        others: list[Tensor] = []
        for name, p in task.model.named_parameters():
            if not p.requires_grad:
                continue
            if p.ndim > 1 and task.info.param_kind.get(name) == "hidden":
                matrices.setdefault(self._ratio(task, name), []).append(p)
            else:
                others.append(p)
        hidden = [
            {"params": params, "lr_scale": 1 / ratio, "weight_decay_scale": math.sqrt(ratio)}
            for ratio, params in sorted(matrices.items())
        ]
        return hidden + ([{"params": others, "weight_decay": 0.0}] if others else [])

    def _ratio(self, task: Task, name: str) -> float:
        if self.width_ratio is not None:
            return float(self.width_ratio)
        width, base = task.info.width.get(name, (1, 1))
        return width / base

"""LARS: momentum whose step in each layer is in proportion to the layer's weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from algorithms.optimizers._base import Blockwise
from algorithms.optimizers._common import ParamsT, non_negative, norms

VARIANTS = ("2017", "paper")


class Lars(Blockwise):
    """LARS: SGD with momentum, each tensor's step in proportion to the tensor's own norm; two variants.

    Paper: Large Batch Training of Convolutional Networks (You et al. 2017, arXiv 1708.03888), variant
        "2017"; Large Batch Optimization for Deep Learning (You et al. 2020, arXiv 1904.00962, Algorithm 1),
        variant "paper".
    Update: 2017: r = κ·‖x‖ / (‖g‖ + λ·‖x‖) per tensor, 1 where a norm is 0; m ← μ·m + lr·r·(g + λ·x);
        x ← x − m. paper: m ← μ·m + (1 − μ)·(g + λ·x); x ← x − lr·(‖x‖ / ‖m‖)·m, the ratio 1 as
        above.
    Defaults: variant "2017", the form that libraries have; momentum 0.9; lr 0.1, trust 0.05, weight_decay
        5e-4 (ours; the authors' trust is 1e-3, with an lr of 1 and more).
    State: 1 tensor per parameter (m).
    Cost: 1 forward, 1 backward.
    Pitfalls: lr is relative: 2017's moves a tensor by about lr·κ / (1 − μ) of its norm in a step, paper's by
        lr. Say which variant a result is of. With attention the authors found that it falls behind LAMB.
        For large batches lr goes with √B and the warm-up gets longer.
    Deviations: tensors of at most one dimension (biases, norm gains) have the ratio 1 unless ``adapt_1d``;
        their decay is up to the groups. φ is the identity. The formula of "paper", and λ in the denominator
        of "2017", are from memory, unverified.

    Args:
        params: parameters or parameter groups.
        lr: step size.
        momentum: decay rate μ (β₁ in "paper"), in [0, 1).
        weight_decay: weight decay λ, inside the ratio.
        variant: "2017" or "paper".
        trust: trust coefficient κ of "2017"; "paper" has none.
        adapt_1d: whether tensors of at most one dimension have a ratio too.

    Raises:
        ValueError: for a hyperparameter outside its range.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        variant: str = "2017",
        trust: float = 0.05,
        adapt_1d: bool = False,
    ) -> None:
        non_negative(lr=lr, weight_decay=weight_decay, trust=trust)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {momentum}")
        if variant not in VARIANTS:
            raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {variant}")
        own = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, own | {"variant": variant, "trust": trust, "adapt_1d": adapt_1d})

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        rule = _step_2017 if group["variant"] == "2017" else _step_paper
        rule(group, params, grads, [self._momentum(p) for p in params])

    def step_size(self, group: dict[str, Any]) -> float:
        """lr, in "2017" times κ: the share of its norm that a tensor moves, less the momentum."""
        return group["lr"] * (group["trust"] if group["variant"] == "2017" else 1.0)

    def _momentum(self, p: Tensor) -> Tensor:
        state = self.state[p]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(p)
        return state["momentum_buffer"]


Tensors = list[Tensor]


def _step_2017(group: dict[str, Any], params: Tensors, grads: Tensors, momenta: Tensors) -> None:
    decay, trust = group["weight_decay"], group["trust"]
    pulls = _decayed(group, params, grads)
    layers = _layers(group, params)
    if layers:
        x, g = norms([params[i] for i in layers]), norms([grads[i] for i in layers])
        ratios = torch.where((x > 0) & (g > 0), trust * x / (g + decay * x), 1.0)
        pulls = _stretched(pulls, layers, ratios)
    torch._foreach_mul_(momenta, group["momentum"])
    torch._foreach_add_(momenta, pulls, alpha=group["lr"])
    torch._foreach_sub_(params, momenta)


def _step_paper(group: dict[str, Any], params: Tensors, grads: Tensors, momenta: Tensors) -> None:
    torch._foreach_lerp_(momenta, _decayed(group, params, grads), 1 - group["momentum"])
    layers = _layers(group, params)
    updates = momenta
    if layers:
        x, m = norms([params[i] for i in layers]), norms([momenta[i] for i in layers])
        ratios = torch.where((x > 0) & (m > 0), x / m, 1.0)
        updates = _stretched(momenta, layers, ratios)
    torch._foreach_add_(params, updates, alpha=-group["lr"])


def _decayed(group: dict[str, Any], params: Tensors, grads: Tensors) -> Tensors:
    decay = group["weight_decay"]
    return list(torch._foreach_add(grads, params, alpha=decay)) if decay != 0 else grads


def _layers(group: dict[str, Any], params: Tensors) -> list[int]:
    """Positions of the tensors that have a ratio."""
    return [i for i, p in enumerate(params) if group["adapt_1d"] or p.ndim > 1]


def _stretched(tensors: Tensors, layers: list[int], ratios: Tensor) -> Tensors:
    """The tensors, those of ``layers`` times their ratio."""
    stretched = list(tensors)
    scaled = torch._foreach_mul([tensors[i] for i in layers], list(ratios.unbind()))
    for i, t in zip(layers, scaled, strict=True):
        stretched[i] = t
    return stretched

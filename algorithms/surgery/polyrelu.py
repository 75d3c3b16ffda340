"""A learned cubic of the ReLU in the place of each activation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from algorithms.surgery._activations import calls, replace
from runner.contract.batch import Info
from runner.contract.task import Task


class PolyReLUSurgery:
    """PolyReLU: every activation becomes a polynomial of degree 3 of the ReLU, with coefficients to learn.

    Paper: Polynomial Composition Activations: Unleashing the Dynamics of Large Language Models (2024, arXiv
        2411.03884), and the authors' code (BryceZhuo/PolyCom).
    Update: x₊ = max(0, x); a₀ x₊³ + a₁ x₊² + a₂ x₊ + b, one (a, b) for each activation of the model.
    Defaults: a = (⅓, ⅓, ⅓), b = 0 at the start (authors' code, where a₀ is the cubic's, too).
    State: none; 4 parameters an activation.
    Cost: 1 forward, 1 backward. Set-up passes one row forward.
    Pitfalls: cubes blow up unless a norm stands in front: made for pre-norm transformers. The slope at 0 is
        ⅓, not a ReLU's 1. Weights that were drawn for the old activation stay. The coefficients are
        one-dimensional and so not decayed by the default groups; do not decay them.
    Deviations: none for a feed-forward layer with one activation; of a gated one the gate stays. Under
        autocast the cubic is computed in float32.

    Open division: the model computes something else. Parameters keep their names and identity; new ones are
    called ``polyrelu.<k>.weight`` and ``polyrelu.<k>.bias``, in a sequence ``0.polyrelu.<k>…``.
    """

    def compatible(self, info: Info) -> str | None:
        """Needs activations with bounded inputs."""
        if info.model == "linear":
            return "a linear model has no activation"
        if info.model == "resnet" or info.has_batchnorm:  # networks with batch norms are residual ones
            return "sums of residual blocks reach activations without a norm in front: their cubes blow up"
        return None

    def __call__(self, model: nn.Module, task: Task) -> nn.Module:
        """The same model, its activations replaced.

        Raises:
            UserError: when there is no activation.
        """
        like = next(model.parameters())
        found = [PolyReLU().to(device=like.device, dtype=like.dtype) for _ in calls(model, task)]
        return replace(model, "polyrelu", found)


class PolyReLU(nn.Module):
    """a₀ x₊³ + a₁ x₊² + a₂ x₊ + b, elementwise."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((3,), 1 / 3))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape and type of ``x``."""
        with torch.autocast(x.device.type, enabled=False):
            r = F.relu(x).to(torch.promote_types(x.dtype, self.weight.dtype))
            a = self.weight
            return (((a[0] * r + a[1]) * r + a[2]) * r + self.bias).to(x.dtype)

"""Sorted pairs in the place of each activation, and orthonormal layers to go with them."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from algorithms.surgery._activations import calls, replace
from runner.base.errors import UserError
from runner.contract.batch import Info
from runner.contract.task import Task

BETA, ROUNDS = 0.5, 20  # of Björck's iteration


class MaxMin:
    """MaxMin: every activation becomes the sorting of features in groups, which keeps the gradient's norm.

    Paper: Sorting out Lipschitz function approximation (Anil, Lucas & Grosse 2019, arXiv 1811.05381; title
        from memory), and the authors' code (cemanil/LNets).
    Update: features in groups of ``group``, in the order they come in, ascending within each: for 2,
        (min, max) of each pair. With ``bjorck`` the weight of each linear layer is orthonormalised in the
        forward pass: W / √(m n), then 20 times W ← 1.5 W − 0.5 W Wᵀ W.
    Defaults: group 2 (authors' code); bjorck false (ours).
    State: none.
    Cost: 1 forward, 1 backward. Set-up passes one row forward.
    Pitfalls: the network is no longer smooth across the places where features tie, and has no bias towards
        sparse features. Residual sums, norms and attention are not 1-Lipschitz, whatever stands between. With
        bjorck the network's slope is at most 1 (up to its convolutions): logits stay small, so cross-entropy
        stays high.
    Deviations: sorted features stay within their group, as for any group size; the authors' MaxMin puts all
        maxima in front of all minima, which the next layer's weights undo. Convolutions are not
        orthonormalised. Of images the channels are the features.

    Open division: the model computes something else. Parameters keep their names and identity.

    Args:
        group: features in a group, at least 2.
        bjorck: whether linear layers are orthonormal.

    Raises:
        ValueError: for groups of fewer than two.
    """

    def __init__(self, group: int = 2, bjorck: bool = False) -> None:
        if not group >= 2 or group != int(group):
            raise ValueError(f"group must be an integer of at least 2, got {group}")
        self.group, self.bjorck = int(group), bjorck

    def compatible(self, info: Info) -> str | None:
        """Needs an activation."""
        return "a linear model has no activation" if info.model == "linear" else None

    def __call__(self, model: nn.Module, task: Task) -> nn.Module:
        """The same model, its activations replaced.

        Raises:
            UserError: when there is no activation, or one whose features do not come in whole groups.
        """
        shapes = calls(model, task)
        for shape in shapes:
            if shape[features(len(shape))] % self.group:
                raise UserError(
                    f"surgery maxmin: an activation has {shape[features(len(shape))]} features, which are no "
                    f"whole groups of {self.group}"
                )
        if self.bjorck:
            for layer in model.modules():
                if type(layer) is nn.Linear:
                    layer.__class__ = BjorckLinear
        return replace(model, "maxmin", [GroupSort(self.group) for _ in shapes])


class GroupSort(nn.Module):
    """Features in ascending order within each group."""

    def __init__(self, group: int = 2) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of ``x``: (B, F), (B, C, H, W) or (B, T, F)."""
        at = features(x.dim())
        grouped = x.unflatten(at, (-1, self.group))
        inner = at + 1 if at >= 0 else -1
        if self.group == 2:  # faster than sorting
            low, high = grouped.amin(inner), grouped.amax(inner)
            return torch.stack((low, high), inner).flatten(inner - 1, inner)
        return grouped.sort(inner).values.flatten(inner - 1, inner)


class BjorckLinear(nn.Linear):
    """A linear layer that uses its weight orthonormalised."""

    def forward(self, input: Tensor) -> Tensor:
        """As :class:`torch.nn.Linear`, (..., n) -> (..., m)."""
        weight = self.weight
        return F.linear(input, bjorck(weight / cast(int, weight.numel()) ** 0.5), self.bias)


def bjorck(w: Tensor, rounds: int = ROUNDS) -> Tensor:
    """The orthonormal matrix next to ``w``, (m, n), whose largest singular value must be below √3."""
    wide = w.shape[0] < w.shape[1]
    for _ in range(rounds):
        step = (w @ w.T) @ w if wide else w @ (w.T @ w)
        w = (1 + BETA) * w - BETA * step
    return w


def features(dims: int) -> int:
    """The dimension of the features: channels of images, else the last."""
    return 1 if dims == 4 else -1

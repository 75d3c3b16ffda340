"""WGSEF: a proximal step behind any optimizer's that leaves k groups of weights in each layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from algorithms.optimizers._common import Closure, non_negative
from algorithms.wrappers._base import Wrapped
from runner.contract.batch import Info
from runner.contract.task import Task

SCOPES = ("layer", "global")


class Layer(NamedTuple):
    """What belongs to the rows of one matrix: the matrix, its bias, the gain and bias of its batch norm.

    Attributes:
        members: tensors whose first dimension counts groups; the matrix first.
        group: number of the optimizer's parameter group that the matrix is in.
    """

    members: list[Tensor]
    group: int

    @property
    def weight(self) -> float:
        """Numbers in a group."""
        return sum(m.numel() for m in self.members) / len(self.members[0])


class Stack(NamedTuple):
    """Blocks of layers, each with k groups of its own, that share a strength; as rows of one matrix.

    Attributes:
        blocks: number of the block -> its layers.
        there: where a row's entries are among the groups in a row, those past its end at the last, (B·n,).
        back: where the groups are in the matrix.
        weights: d, 0 past the end of a row, (B, n).
        k: groups that may stay, (B, 1).
    """

    blocks: dict[int, list[Layer]]
    there: Tensor
    back: Tensor
    weights: Tensor
    k: Tensor

    @property
    def layers(self) -> list[Layer]:
        """Of all blocks."""
        return [layer for block in self.blocks.values() for layer in block]


class WGSEF(Wrapped):
    """WGSEF: the proximal step of the convex envelope of "at most k groups are not zero, plus ½‖θ‖²".

    Paper: Learning k-Level Structured Sparse Neural Networks Using Group Envelope Regularization (arXiv
        2212.12921). Its text was not at hand: the operator is derived from the definition of the envelope,
        S_k(θ) = min {½ Σⱼ dⱼ‖θⱼ‖²/uⱼ : 0 ≤ uⱼ ≤ 1, Σ uⱼ ≤ k}.
    Update: behind the optimizer's step, with t the norms of the groups and λ' = λ times that step's size (lr;
        of an optimizer that finds its own, what it has found: d·lr of Prodigy's): u = 1 where at most k of
        them are above 0, else uⱼ = clip(α·√dⱼ·tⱼ − λ'·dⱼ, 0, 1), α such that Σ uⱼ = k;
        θⱼ ← θⱼ·uⱼ/(uⱼ + λ'·dⱼ).
        A group is a row of a hidden matrix (a filter, a neuron) with its bias and batch norm.
    Defaults: keep 0.5 (k as a share of the groups), strength λ 0.1, ramp 0.3 of the budget from 0 to λ,
        project_at 0.5, by_size false (dⱼ = 1, not the group's size), scope layer (all ours).
    State: none, but for a mask of the groups after the projection.
    Cost: 1 forward, 1 backward.
    Pitfalls: where λ' is small beside the norms, groups only shrink, faster the smaller they are: it takes
        steps, or the projection, until they are 0. Groups that stay shrink by 1/(1 + λ') a step, as under
        weight decay. Adaptive optimizers' steps do not know of it: λ' has their scalar lr. Under an average
        the groups that are 0 in training are left out at evaluations.
    Deviations: none known. At ``project_at`` all but the k largest groups become 0 and stay so. The first
        hidden matrix is left alone, unless an embedding is in front of it, and so is the head. The rows of
        layers that residual connections add up are not tied.

    Args:
        optimizer: the base optimizer.
        keep: share of the groups that may stay, in (0, 1].
        strength: λ, at least 0.
        ramp: share of the budget over which λ climbs from 0, in [0, 1].
        project_at: share of the budget from which on k groups are left, in [0, 1]; None for never.
        by_size: weigh groups by their size.
        scope: k of each layer, or of all together ("global").

    Raises:
        ValueError: for a hyperparameter outside its range.
    """

    settings = ("keep", "strength", "ramp", "project_at", "by_size", "scope")

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        keep: float = 0.5,
        strength: float = 0.1,
        ramp: float = 0.3,
        project_at: float | None = 0.5,
        by_size: bool = False,
        scope: str = "layer",
    ) -> None:
        non_negative(strength=strength)
        if not 0 < keep <= 1:
            raise ValueError(f"keep must lie in (0, 1], got {keep}")
        for name, value in {"ramp": ramp, "project_at": 1.0 if project_at is None else project_at}.items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {value}")
        if scope not in SCOPES:
            raise ValueError(f"scope must be one of {', '.join(SCOPES)}, got {scope}")
        super().__init__(optimizer)
        self.keep, self.strength, self.ramp, self.by_size, self.scope = keep, strength, ramp, by_size, scope
        self.project_at = math.inf if project_at is None else project_at
        self._layers: list[Layer] = []
        self._stacks: dict[int, Stack] = {}  # by parameter group

    @staticmethod
    def compatible(info: Info) -> str | None:
        """Needs a hidden matrix behind the first layer."""
        return None if grouped(info) else "needs a hidden matrix behind the first layer, this model has none"

    def setup(self, task: Task) -> None:
        """Find the groups; and set the base up."""
        if hasattr(self.base, "setup"):
            self.base.setup(task)  # pyright: ignore[reportAttributeAccessIssue]
        of = {id(p): i for i, group in enumerate(self.param_groups) for p in group["params"]}
        self._layers = [
            Layer(m, of[id(m[0])]) for m in rows(task.model, grouped(task.info)) if id(m[0]) in of
        ]
        self._arrange()

    def _arrange(self) -> None:
        layers = self._layers
        blocks = ([layers] if layers else []) if self.scope == "global" else [[layer] for layer in layers]
        alike: dict[int, dict[int, list[Layer]]] = {}
        for number, block in enumerate(blocks):
            alike.setdefault(block[0].group, {})[number] = block
        self._stacks = {group: self._stack(of) for group, of in alike.items()}

    def _unpack(self, state: dict[str, Any]) -> None:
        super()._unpack(state)
        self._arrange()

    def step(self, closure: Closure | None = None, **given: Any) -> Any:
        """The base's step, which gets all that is given."""
        return self.base.step(**given) if closure is None else self.base.step(closure, **given)

    @torch.no_grad()
    def after_step(self, task: Task) -> None:
        """The base's, then the proximal step, or what the projection has left."""
        if hasattr(self.base, "after_step"):
            self.base.after_step(task)  # pyright: ignore[reportAttributeAccessIssue]
        climb = 1.0 if self.ramp == 0 else min(1.0, task.progress / self.ramp)
        for group, stack in self._stacks.items():
            if task.progress >= self.project_at:
                self._shrink(stack.layers, torch.cat([self._mask(*item) for item in stack.blocks.items()]))
                continue
            strength = self.strength * climb * self.outermost.step_size(self.param_groups[group])
            if isinstance(strength, Tensor) or strength > 0:  # a tensor is not read: that would be a wait
                self._shrink(stack.layers, self._factors(stack, strength))

    def map_evaluated(self, task: Task, trained: list[Tensor]) -> None:
        """Leave out of an average what is 0 in training."""
        for stack in self._stacks.values():
            _scale(stack.layers, self._alive(stack.layers, task, trained).double())

    def broken_promise(self, task: Task, trained: list[Tensor]) -> str | None:
        """What is 0 in training is 0 when evaluated; from the projection on, all but k groups of a block."""
        for number, block in (item for stack in self._stacks.values() for item in stack.blocks.items()):
            alive = _norms(block) > 0
            left, allowed = int(alive.sum()), self._left(len(alive))
            if bool((alive & ~self._alive(block, task, trained)).any()):
                return "groups that are 0 in training are evaluated"
            if f"mask {number}" in self.shared and left > allowed:
                return f"{left} of {len(alive)} groups are not 0, {allowed} may be"
        return None

    def report(self) -> dict[str, float]:
        """The base's scalars, and the share of groups that are 0."""
        scalars: dict[str, float] = getattr(self.base, "report", dict)()
        if not self._stacks:
            return scalars
        norms = torch.cat([_norms(stack.layers) for stack in self._stacks.values()])
        return scalars | {"zero_groups": float((norms == 0).double().mean())}

    def _factors(self, stack: Stack, strength: float | Tensor) -> Tensor:
        """What the proximal step of strength λ' multiplies the groups by, (n,)."""
        norms = _norms(stack.layers)
        padded = torch.cat([norms, norms.new_zeros(1)])[stack.there].view_as(stack.weights)
        u = shares(padded, stack.weights, stack.k, strength)
        factors = (u / (u + strength * stack.weights)).flatten()[stack.back]
        return torch.where(strength > 0, factors, 1.0) if isinstance(strength, Tensor) else factors

    def _shrink(self, layers: list[Layer], factors: Tensor) -> None:
        """Multiply the groups, and what optimizers compute them from, by their factors."""
        self.outermost.rescale(*_scale(layers, factors))

    @staticmethod
    def _alive(layers: list[Layer], task: Task, trained: list[Tensor]) -> Tensor:
        """Which groups are not 0 in the training weights, (n,)."""
        return _norms(layers, {id(p): weights for p, weights in zip(task.params, trained, strict=True)}) > 0

    def _mask(self, number: int, block: list[Layer]) -> Tensor:
        key = f"mask {number}"
        if key not in self.shared:
            norms = _norms(block)
            largest = norms.topk(self._left(len(norms))).indices
            self.shared[key] = torch.zeros_like(norms).index_fill(0, largest, 1.0)
        return self.shared[key]

    def _left(self, groups: int) -> int:
        return max(1, round(self.keep * groups))

    def _stack(self, blocks: dict[int, list[Layer]]) -> Stack:
        sizes = [sum(len(layer.members[0]) for layer in block) for block in blocks.values()]
        total, longest = sum(sizes), max(sizes)
        there = torch.full((len(sizes), longest), total)
        weights = torch.zeros(len(sizes), longest, dtype=torch.float64)
        start = 0
        for row, (size, block) in enumerate(zip(sizes, blocks.values(), strict=True)):
            there[row, :size] = torch.arange(start, start + size)
            of = [
                w for layer in block for w in [layer.weight if self.by_size else 1.0] * len(layer.members[0])
            ]
            weights[row, :size] = torch.tensor(of, dtype=torch.float64)
            start += size
        back = (there.flatten() < total).nonzero().flatten()
        k = torch.tensor([[float(self._left(size))] for size in sizes], dtype=torch.float64)
        device = next(iter(blocks.values()))[0].members[0].device
        return Stack(blocks, *(t.to(device) for t in (there.flatten(), back, weights, k)))


def shares(norms: Tensor, weights: Tensor, k: int | Tensor, strength: float | Tensor) -> Tensor:
    """u of the groups, (…, n): 1 where at most ``k`` norms are above 0, else what adds up to ``k``.

    Args:
        norms: t ≥ 0, (…, n) float64.
        weights: d > 0, (…, n); 0 for what is no group, its norm 0 too.
        k: groups, at least 1; one for all, or float64, (…, 1).
        strength: λ' > 0, a number or 0-d.
    """
    wanted = k if isinstance(k, Tensor) else norms.new_full((*norms.shape[:-1], 1), float(k))
    slopes, offset = weights.sqrt() * norms, strength * weights
    # Σ clip(α·slope − offset, 0, 1) is piecewise linear in α: walk along its corners to where it is k.
    safe = torch.where(slopes > 0, slopes, 1.0)
    corners, order = torch.cat([offset / safe, (1 + offset) / safe], -1).sort(-1)
    incline = torch.cat([slopes, -slopes], -1).gather(-1, order)
    incline = running_sums(incline)[..., :-1]
    climbed = running_sums(incline * corners.diff())
    values = torch.cat([torch.zeros_like(wanted), climbed], -1)
    at = torch.searchsorted(values, wanted).clamp(1, values.shape[-1] - 1)
    slope = incline.gather(-1, at - 1).clamp_min(torch.finfo(values.dtype).tiny)
    alpha = corners.gather(-1, at) - (values.gather(-1, at) - wanted) / slope
    u = (alpha * slopes - offset).clamp(0, 1)
    return torch.where((norms > 0).sum(-1, keepdim=True) <= wanted, 1.0, u)


def running_sums(x: Tensor) -> Tensor:
    """Sums up to each entry along the last dimension, in float64 as ``cumsum``, shaped like ``x``."""
    if not (x.is_cuda and torch.are_deterministic_algorithms_enabled()):
        return x.cumsum(-1)
    return doubled_sums(x)  # torch's kernel for GPUs adds up in another order each time


def doubled_sums(x: Tensor) -> Tensor:
    """The same, in log₂ n additions of the whole to itself, shifted by 1, 2, 4, …"""
    shift = 1
    while shift < x.shape[-1]:
        x = torch.cat([x[..., :shift], x[..., shift:] + x[..., :-shift]], -1)
        shift *= 2
    return x


def grouped(info: Info) -> list[str]:
    """Names of the matrices whose rows are groups."""
    hidden = [name for name, kind in info.param_kind.items() if kind == "hidden"]
    return hidden if "embedding" in info.param_kind.values() else hidden[1:]


def rows(model: nn.Module, names: Sequence[str]) -> list[list[Tensor]]:
    """Each named matrix with its bias, and with the batch norm that is registered next and fits."""
    found: list[list[Tensor]] = []
    last: list[Tensor] | None = None
    for prefix, module in model.named_modules():
        weight: Any = getattr(module, "weight", None)
        if isinstance(module, _BatchNorm) and last is not None and module.num_features == len(last[0]):
            last += [p for p in (module.weight, module.bias) if p is not None]
            last = None
        elif isinstance(weight, nn.Parameter):
            last = None
            if weight.ndim > 1 and (f"{prefix}.weight" if prefix else "weight") in names:
                bias: Any = getattr(module, "bias", None)
                last = [weight] if bias is None else [weight, bias]
                found.append(last)
    return found


def _norms(layers: list[Layer], of: Mapping[int, Tensor] | None = None) -> Tensor:
    """Norms of all groups, (n,) float64; ``of``: of other weights, by the id of the parameter."""
    return torch.cat([
        torch.linalg.vector_norm(torch.cat([_rows(m if of is None else of[id(m)]) for m in layer.members], 1),
                                 dim=1, dtype=torch.float64)
        for layer in layers
    ])  # fmt: skip


def _rows(m: Tensor) -> Tensor:
    return m.detach().flatten(1) if m.ndim > 1 else m.detach()[:, None]


def _scale(layers: list[Layer], factors: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Multiply the groups by their ``factors``, (n,); returns the tensors and what each was multiplied by."""
    pieces = factors.to(layers[0].members[0].dtype).split([len(layer.members[0]) for layer in layers])
    pairs = [(m, f) for layer, f in zip(layers, pieces, strict=True) for m in layer.members]
    members = [m for m, _ in pairs]
    shaped = [f.to(m.dtype).view(-1, *[1] * (m.ndim - 1)) for m, f in pairs]
    torch._foreach_mul_(members, shaped)
    return members, shaped

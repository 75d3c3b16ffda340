"""What optimizers share whose step size belongs to all parameters together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from algorithms.optimizers._common import in_blocks


class Part(NamedTuple):
    """The parameters of one group, or of a block of it, that have a gradient, and their gradients."""

    group: dict[str, Any]
    params: list[Tensor]
    grads: list[Tensor]

    def decayed(self) -> Part:
        """With the group's coupled weight decay in new gradients."""
        decay = self.group["weight_decay"]
        if decay == 0:
            return self
        return self._replace(grads=list(torch._foreach_add(self.grads, self.params, alpha=decay)))


class Joint(torch.optim.Optimizer):
    """Keeps state that belongs to no single parameter in ``self.shared``, which is saved with the rest.

    Attributes:
        shared: name -> tensor or number; empty before the first step.
    """

    shared: dict[str, Any]

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        super().__init__(params, defaults)
        self.shared = {}

    def parts(self) -> list[Part]:
        """What has a gradient: every group, on a CPU in blocks."""
        name = type(self).__name__
        return [Part(group, *block) for group in self.param_groups for block in in_blocks(group, name)]

    def state_dict(self) -> dict[str, Any]:
        """State by parameter number, hyperparameters, and what is shared."""
        return {**super().state_dict(), "shared": dict(self.shared)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken; the given tensors are copied."""
        super().load_state_dict({key: value for key, value in state_dict.items() if key != "shared"})
        device = self.param_groups[0]["params"][0].device
        self.shared = {
            key: value.detach().clone().to(device) if isinstance(value, Tensor) else value
            for key, value in state_dict["shared"].items()
        }


def norm(tensors: Sequence[Tensor]) -> Tensor:
    """L2 norm of all entries together, 0-d, in float32 or better."""
    return torch.linalg.vector_norm(precise(torch.stack(torch._foreach_norm(list(tensors)))))


def inner(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Inner product of two lists of tensors of one device, 0-d, in float32 or better."""
    # Two copies and one dot product: fewer and longer kernels than a product and a sum a tensor.
    return torch.dot(vector(a), vector(b))


def vector(tensors: Sequence[Tensor]) -> Tensor:
    """All entries in one vector, in float32 or better; a view where that can be."""
    flat = [t.flatten() for t in tensors]
    return precise(flat[0] if len(flat) == 1 else torch.cat(flat))


def precise(t: Tensor) -> Tensor:
    """``t`` in float32 or better."""
    return t.to(torch.promote_types(t.dtype, torch.float32))


def joined(lists: Iterable[Sequence[Tensor]]) -> list[Tensor]:
    """All tensors in one list."""
    return [t for tensors in lists for t in tensors]

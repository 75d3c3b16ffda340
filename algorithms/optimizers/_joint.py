"""What optimizers share whose step size belongs to all parameters together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from algorithms.optimizers._base import Base, plain
from algorithms.optimizers._common import in_blocks, norms


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


class Joint(Base):
    """A rule that looks at all parameters together; what it remembers of them lies in ``self.shared``.

    Attributes:
        one_for_all: hyperparameters that must have the same value in every group.
    """

    one_for_all: ClassVar[tuple[str, ...]] = ()

    def check(self, group: dict[str, Any]) -> None:
        """See :class:`Base`; also one value for all where the rule has one."""
        super().check(group)
        self._hold_together(group)

    def common(self) -> dict[str, Any]:
        """The first group, whose values of :attr:`one_for_all` are those of every other.

        Raises:
            ValueError: where one has been given another value since.
        """
        for group in self.param_groups[1:]:
            self._hold_together(group)
        return self.param_groups[0]

    def _hold_together(self, group: dict[str, Any]) -> None:
        first = self.param_groups[0]
        for key in self.one_for_all:
            if not alike(first[key], group[key]):
                raise ValueError(f"{key} must be the same in all groups, got {first[key]} and {group[key]}")

    def parts(self) -> list[Part]:
        """What has a gradient: every group, on a CPU in blocks."""
        name = type(self).__name__
        return [Part(plain(group), *block) for group in self.param_groups for block in in_blocks(group, name)]


def alike(a: Any, b: Any) -> bool:
    """Whether two values of a hyperparameter are the same, be pairs tuples or lists."""
    return list(a) == list(b) if isinstance(a, Sequence) and isinstance(b, Sequence) else a == b


def norm(tensors: Sequence[Tensor]) -> Tensor:
    """L2 norm of all entries together, 0-d, in float32 or better."""
    return torch.linalg.vector_norm(norms(tensors))


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

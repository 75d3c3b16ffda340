"""Weights that are evaluated in the place of those that train, and how those come back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Swap:
    """Puts tensors in the place of a model's, and takes them out again.

    Args:
        live: the model's; they keep their storage.
        others: what is evaluated, one for each, of the same shape; never changed.
    """

    def __init__(self, live: Sequence[Tensor], others: Sequence[Tensor]) -> None:
        self._live, self._others = list(live), list(others)
        self._kept: list[Tensor] | None = None

    @torch.no_grad()
    def enter(self) -> None:
        """Put the others in; a second call changes nothing."""
        if self._kept is None:
            self._kept = [tensor.detach().clone() for tensor in self._live]
            torch._foreach_copy_(self._live, self._others)

    @torch.no_grad()
    def leave(self) -> None:
        """Put back what was there, bit for bit; without an :meth:`enter` before, nothing."""
        if self._kept is not None:
            torch._foreach_copy_(self._live, self._kept)
            self._kept = None

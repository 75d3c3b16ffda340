"""What happens for the first time while the clock runs: kernels, and shapes for which one is chosen."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from runner.check.origin import frames, is_check, is_library, place
from runner.check.transfers import tensors_in
from runner.train.clock import CHARGED, Clock

# Libraries choose, or try out, a kernel for the shapes at hand; every other kernel is one for all shapes.
CHOSEN_BY_SHAPE = (
    "mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward", "native_batch_norm",
    "native_batch_norm_backward", "native_layer_norm", "native_layer_norm_backward",
    "_scaled_dot_product_flash_attention_for_cpu",
)  # fmt: skip


class Key(NamedTuple):
    """A kernel: an operation on some types, of the shapes that it is chosen by, if it is."""

    name: str
    overload: str
    types: tuple[torch.dtype, ...]
    shapes: tuple[tuple[int, ...], ...]


class FirstTimes(TorchDispatchMode):
    """Sorts operations by the clock's account in which they are first asked for.

    Args:
        patch: has the clock say which account is open.

    Attributes:
        charged: what was first asked for on a charged account -> the line that did.
        seen: how many there were on all accounts.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.charged: dict[Key, str] = {}
        self._seen: set[Key] = set()
        self._account = "warmup"
        switch = Clock.switch

        def told(clock: Clock, account: str) -> str:
            self._account = account
            return switch(clock, account)

        patch.setattr(Clock, "switch", told)

    @property
    def seen(self) -> int:
        return len(self._seen)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        key = _key(func, args, kwargs or {})
        if key not in self._seen:
            self._seen.add(key)
            if self._account in CHARGED:
                self.charged[key] = _asked_from()
        return func(*args, **(kwargs or {}))


def _key(func: Any, args: Any, kwargs: dict[str, Any]) -> Key:
    name, tensors = func.overloadpacket.__name__, [*tensors_in((*args, *kwargs.values()))]
    types = tuple(dict.fromkeys(t.dtype for t in tensors))
    return Key(name, str(func), types, tuple(tuple(t.shape) for t in tensors if name in CHOSEN_BY_SHAPE))


def _asked_from() -> str:
    asking = (frame for frame in frames(sys._getframe(2)) if not is_check(frame))
    return place(next((frame for frame in asking if not is_library(frame.f_code.co_filename)), None))

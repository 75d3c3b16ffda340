"""How tensors lie in memory: gradients should lie as their parameters do, and some kernels ignore strides."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def dense(p: Tensor) -> bool:
    """Whether ``p`` fills its memory, in any order and without gaps: new tensors like it then lie alike."""
    return torch.empty_like(p, device="meta").stride() == p.stride()


def like(values: Tensor, p: Tensor) -> Tensor:
    """``values``, as many numbers as ``p`` has, in p's shape, type and memory format."""
    shaped = values.view(p.shape).to(p.dtype)
    return shaped if p.is_contiguous() else torch.empty_like(p).copy_(shaped)


def unfuse(groups: Iterable[dict[str, Any]]) -> None:
    """Take torch's fused kernels from groups with a parameter that is not dense, or complex.

    On a CPU they walk through memory as if there were no strides, and would write beside the parameter; on
    CUDA they refuse, and complex numbers everywhere.
    """
    for group in groups:
        if group.get("fused") and not all(dense(p) and not p.is_complex() for p in group["params"]):
            group["fused"] = None

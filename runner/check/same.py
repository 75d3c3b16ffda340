"""Bitwise equality of nested states, and a path to the first difference."""

from __future__ import annotations

import copy
import struct
from collections import deque
from collections.abc import Mapping, Sequence
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor

ORDERED = (list, tuple, deque)


Pairs = set[tuple[int, int]]  # of objects, by their ids


def difference(a: Any, b: Any, path: str = "") -> str | None:
    """Where and how ``a`` differs from ``b``, bit for bit (NaN equals NaN); None where they are the same."""
    return _difference(a, b, path, set())


def _difference(a: Any, b: Any, path: str, seen: Pairs) -> str | None:
    """:func:`difference`; what lies within itself, or in several places, is looked at once."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return _tensors(a, b, path)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return _mappings(a, b, path, seen)
    if isinstance(a, ORDERED) and isinstance(b, ORDERED):
        return _sequences(a, b, path, seen)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        same = (a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes())
        return None if same else f"{path}: arrays differ"
    if isinstance(a, float) and isinstance(b, float):
        return None if struct.pack("d", a) == struct.pack("d", b) else f"{path}: {a!r} against {b!r}"
    if type(a) is type(b) and type(a).__eq__ is object.__eq__ and _is_plain_object(a):
        return _mappings(vars(a), vars(b), path, seen)  # it knows no equality, as a preconditioner
    return None if type(a) is type(b) and a == b else f"{path}: {a!r} against {b!r}"


def copied(tree: Any) -> Any:
    """The same nested state with every tensor cloned, those in objects too."""
    if isinstance(tree, Tensor):
        return tree.detach().clone()
    if isinstance(tree, Mapping):
        return {key: copied(value) for key, value in tree.items()}
    if isinstance(tree, deque):
        return deque(map(copied, tree), tree.maxlen)
    if isinstance(tree, (list, tuple)):
        return type(tree)(copied(value) for value in tree)
    return copy.deepcopy(tree) if _is_plain_object(tree) else tree


def _is_plain_object(value: Any) -> bool:
    return hasattr(value, "__dict__") and not isinstance(value, (type, FunctionType))


def _mappings(a: Mapping[Any, Any], b: Mapping[Any, Any], path: str, seen: Pairs) -> str | None:
    if _noted(a, b, seen):
        return None
    if set(a) != set(b):
        odd = sorted(map(str, set(a) ^ set(b)))
        return f"{path}: only one of the two has {', '.join(odd[:3])}"
    found = (_difference(a[key], b[key], f"{path}.{key}" if path else str(key), seen) for key in a)
    return next((fault for fault in found if fault is not None), None)


def _sequences(a: Sequence[Any], b: Sequence[Any], path: str, seen: Pairs) -> str | None:
    if _noted(a, b, seen):
        return None
    if len(a) != len(b):
        return f"{path}: {len(a)} entries against {len(b)}"
    found = (_difference(x, y, f"{path}[{i}]", seen) for i, (x, y) in enumerate(zip(a, b, strict=True)))
    return next((fault for fault in found if fault is not None), None)


def _noted(a: Any, b: Any, seen: Pairs) -> bool:
    """Whether the two have been held against each other before; from now on they have."""
    pair = (id(a), id(b))
    before = pair in seen
    seen.add(pair)
    return before


def _tensors(a: Tensor, b: Tensor, path: str) -> str | None:
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"{path}: {tuple(a.shape)} {a.dtype} against {tuple(b.shape)} {b.dtype}"
    a, b = a.detach().cpu().contiguous().reshape(-1), b.detach().cpu().contiguous().reshape(-1)
    if torch.equal(a.view(torch.uint8), b.view(torch.uint8)):
        return None
    gap = (a.double() - b.double()).abs().max().item() if a.is_floating_point() else "values"
    return f"{path}: tensors differ by {gap:.3g}" if isinstance(gap, float) else f"{path}: {gap} differ"

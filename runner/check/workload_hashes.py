"""Rows and pieces of text as numbers, so that those of two splits can be held against each other."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

GRAM = 64  # tokens of a piece of text: long enough that few are there twice by chance
BASE = 0x9E3779B97F4A7C15 - (1 << 64)  # of a polynomial in 64 bits; odd


def row_hashes(x: Tensor, y: Tensor | None = None) -> Tensor:
    """A hash of each row as it is stored, and of its targets, (n,) int64."""
    targets = None if y is None else y.cpu().double().flatten(1 if y.dim() > 1 else 0).numpy()
    found = []
    for i, row in enumerate(x.cpu().contiguous().flatten(1).numpy()):
        digest = hashlib.blake2b(row.tobytes(), digest_size=8)
        digest.update(b"" if targets is None else targets[i].tobytes())
        found.append(int.from_bytes(digest.digest(), "big", signed=True))
    return torch.tensor(found, dtype=torch.int64)


def pieces(rows: Any, size: int, every: bool = False) -> Tensor:
    """Hashes of the pieces of text in windows ``rows.x``: at every position, or side by side, flattened."""
    text = joined(rows) if is_text(rows) else rows.x
    return grams(text, size, 1 if every else size).flatten()


def is_text(rows: Any) -> bool:
    """Whether windows follow one another as in the text that they were cut from."""
    if len(rows.x) < 2 or rows.x.dim() != 2:
        return False
    return (rows.y[:-1, -1] == rows.x[1:, 0]).double().mean().item() > 0.9


def joined(rows: Any) -> Tensor:
    """The text of such windows, (1, n)."""
    return rows.x.reshape(1, -1)


def piece_size(*splits: Any) -> int:
    """Tokens of a piece: of windows that lie about, at most half of one, so that any overlap holds some."""
    if all(is_text(rows) for rows in splits):
        return min(GRAM, *(rows.x.numel() for rows in splits))
    return max(1, min(GRAM, splits[0].x.shape[-1] // 2))


def grams(tokens: Tensor, size: int, step: int = 1) -> Tensor:
    """Hashes of ``size`` tokens from every ``step``-th position of each window on, (n, pieces) int64."""
    tokens = tokens.cpu().long().flatten(1)
    last = tokens.shape[1] - size  # where the last piece may start
    found = torch.zeros_like(tokens[:, : last + 1 : step])
    for j in range(size):
        found = found * BASE + tokens[:, j : j + last + 1 : step] + 1  # wraps around
    return found


def share_known(found: Tensor, known: Tensor) -> float:
    """Share of ``found`` that is in ``known``."""
    return torch.isin(found, known).double().mean().item() if len(found) else 0.0


def share_twice(found: Tensor, known: Tensor) -> float:
    """Share of ``found``, each of which is in ``known``, that is there more than once."""
    ordered = known.sort().values
    count = torch.searchsorted(ordered, found, right=True) - torch.searchsorted(ordered, found)
    return (count > 1).double().mean().item() if len(found) else 0.0

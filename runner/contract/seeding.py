"""Seeds: every source of randomness is a named stream, a pure function of (base seed, name)."""

from __future__ import annotations

import hashlib


def derive(*parts: object) -> int:
    """A 63-bit seed from any printable parts; equal parts give equal seeds on every machine and Python."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def cell_seed(workload: str, study: int, trial: int) -> int:
    """The seed of a cell: a function of (workload, study, trial), never of the algorithm.

    Two algorithms compared in the same study and trial so start from the same initial weights
    and see the data in the same order.
    """
    return derive("cell", workload, study, trial)

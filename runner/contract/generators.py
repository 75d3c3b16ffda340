"""The global generators of torch, NumPy and Python: seeded by the cell, kept in checkpoints.

Dropout in a model draws from torch's, and so may libraries from any of them. Methods of this project draw
from ``task.rng(name)`` alone.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from runner.contract.seeding import derive


def seed_globals(seed: int) -> None:
    """Seed all of them."""
    torch.manual_seed(seed)
    np.random.seed(derive(seed, "numpy") % 2**32)
    random.seed(derive(seed, "python"))


def torch_rng(device: torch.device) -> dict[str, torch.Tensor]:
    """State of torch's."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def global_rng(device: torch.device) -> dict[str, Any]:
    """State of all of them, as tensors and numbers."""
    kind, keys, *numpy = np.random.get_state()
    version, words, gauss = random.getstate()
    return {
        **torch_rng(device),
        "numpy": [kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *numpy],
        "python": [version, torch.tensor(words), gauss],
    }


def set_global_rng(state: Mapping[str, Any], device: torch.device) -> None:
    """Restore what :func:`global_rng` gave."""
    torch.set_rng_state(state["cpu"].cpu())
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
    kind, keys, *numpy = state["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), *numpy))
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))

"""Checkpoints: all that training has changed, loadable with ``weights_only=True``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from runner.files import write_atomic


def save(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` so that a kill at any instant leaves the old checkpoint or the new one."""
    write_atomic(path, lambda file: torch.save(state, file))


def load(path: Path, device: torch.device) -> dict[str, Any] | None:
    """The state in ``path``; None when there is none or it is damaged (the cell then starts over)."""
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # noqa: BLE001 - any damage means the same: start over, and say so
        print(f"checkpoint {path} cannot be read ({type(error).__name__}: {error}); starting over")
        return None


def global_rng(device: torch.device) -> dict[str, torch.Tensor]:
    """State of torch's global generators: dropout in a model draws from these, nothing else may."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_global_rng(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Restore what :func:`global_rng` gave."""
    torch.set_rng_state(state["cpu"].cpu())
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)

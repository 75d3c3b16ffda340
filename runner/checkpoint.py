"""Checkpoints: all that training has changed, loadable with ``weights_only=True``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from runner.files import write_atomic

if TYPE_CHECKING:
    from runner.loop import Loop


def snapshot(loop: Loop) -> dict[str, Any]:
    """All that training has changed so far, generators and clock included; tensors are shared, not copied."""
    progress = loop.progress
    return {
        "progress": {
            "boundary": progress.boundary,
            "losses": torch.stack(progress.losses) if progress.losses else None,
            "rows": progress.rows,
            "hit": progress.hit,
        },
        "task": loop.task.state_dict(),
        "algorithm": loop.algorithm.state_dict(),
        "cost": loop.task.cost.state_dict(),
        "clock": loop.clock.state_dict(),
        "diagnostics": loop.diagnostics.state_dict(),
        "rng": global_rng(loop.task.data.x.device),
    }


def restore(loop: Loop, state: dict[str, Any]) -> None:
    """Go on where :func:`snapshot` was taken; ``loop`` is freshly built and its algorithm set up."""
    kept, progress = state["progress"], loop.progress
    progress.boundary, progress.rows, progress.hit = kept["boundary"], kept["rows"], kept["hit"]
    progress.losses = [] if kept["losses"] is None else list(kept["losses"].unbind())
    loop.task.load_state_dict(state["task"])
    loop.algorithm.load_state_dict(state["algorithm"])
    loop.task.cost.load_state_dict(state["cost"])
    loop.clock.load_state_dict(state["clock"])
    loop.diagnostics.load_state_dict(state.get("diagnostics", {}))
    set_global_rng(state["rng"], loop.task.data.x.device)


def save(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` so that a kill at any instant leaves the old checkpoint or the new one."""
    write_atomic(path, lambda file: torch.save(state, file))


def load(path: Path, device: torch.device) -> dict[str, Any] | None:
    """The state in ``path``; None when there is none or it is damaged (the cell then starts over)."""
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # any damage means the same: start over, and say so
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

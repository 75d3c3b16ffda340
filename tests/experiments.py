"""Folders of cells, written as the harness writes them, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runner.files import write_json
from runner.records import CellFolder

UNITS = ("samples", "seconds", "steps", "drawn")


def write_cell(
    experiment: Path,
    label: str = "adamw",
    workload: str = "digits",
    study: int = 0,
    trial: int = 0,
    at: float | None = 1000.0,
    status: str = "done",
    **more: Any,
) -> CellFolder:
    """A finished cell that hit after ``at`` samples; None for a miss. ``more`` goes to its summary."""
    cell = more.pop("id", f"{label}{study}{trial}{workload}")
    folder = CellFolder(experiment / "cells" / f"{workload}.{label}.s{study}.t{trial}.{cell}")
    card = {"id": cell, "label": label, "workload_label": workload, "study": study, "trial": trial}
    card |= {"device": "cpu", "threads": 1, "targets": "v1"}
    algorithm = {"optimizer": {"_target_": "torch.optim.AdamW", "lr": 0.001, "betas": [0.9, 0.999]}}
    config = {
        **card,
        "workload": {"name": workload.split("[")[0], "metric": "accuracy"},
        "algorithm": algorithm,
    }
    folder.create(
        config, {"source": "abc", "git": {"commit": "c0ffee", "dirty": False}, "data": {"train": "1"}}
    )
    write_json(folder.path / "cell.json", card)
    finished = status in ("done", "diverged")
    folder.set_status(status, host="node1", **({"summary": summary(at, **more)} if finished else more))
    return folder


def summary(at: float | None, **more: Any) -> dict[str, Any]:
    """The summary of a cell that hit after ``at`` samples, or missed; a step is 10 samples and 0.01 s."""
    hit = {} if at is None else dict(zip(UNITS, (at, at / 1000, int(at) // 10, int(at)), strict=True))
    goal = {"metric": "accuracy", "target": 0.97, "minimize": False, "open_division": False}
    spent = {"steps": 200, "samples": 2000.0, "seconds": 2.0}
    return {"hit": at is not None, **goal, **spent, **{f"{u}_to_target": v for u, v in hit.items()}, **more}

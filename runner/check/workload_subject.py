"""The workload under test: built from its config, as often and with as many changes as checks want."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from runner.check.result import Result, failed
from runner.contract.instantiate import build_part
from runner.contract.seeding import cell_seed
from runner.contract.task import Task

PLAIN = {"precision": "fp32", "compile": False}  # numbers are held against references
SPLITS = ("validation", "test")


@dataclass
class Built:
    """One cell's workload: what an algorithm gets, and what it never sees.

    Attributes:
        task: what an algorithm gets.
        evaluate: the scored splits.
        workload: the object that built both.
    """

    task: Task
    evaluate: Any
    workload: Any

    @property
    def kind(self) -> str:
        """``"binary"``, ``"multiclass"``, ``"lm"`` or ``"regression"``."""
        return self.task.info.task

    @property
    def own_loss(self) -> Any:
        """The workload's own per-example loss; None for the task's: cross-entropy or squared error."""
        return getattr(self.task, "own_loss", None)


@dataclass
class WorkloadSubject:
    """A resolved workload.

    Attributes:
        workload: its config, with its ``_target_``.
        label: its name, and the keys that were changed.
        summary: the first line of its YAML; None where it has no YAML.
        device: where to build it.
        data_dir: where data lies.
    """

    workload: Mapping[str, Any]
    label: str = "workload"
    summary: str | None = None
    device: str = "cpu"
    data_dir: Path = Path("data")
    _prepared: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def title(self) -> str:
        """What a report calls it."""
        return self.label

    def afresh(self, **changes: Any) -> Any:
        """A new workload object with data of its own, in fp32 unless ``changes`` say otherwise.

        Raises:
            UserError: for missing data, or arguments that it refuses.
        """
        plain = {key: value for key, value in PLAIN.items() if key in self.workload}
        workload = build_part("workload", {**self.workload, **plain, **changes}, prefix="")
        workload.prepare(self.data_dir)
        return workload

    def prepared(self, **changes: Any) -> Any:
        """As :meth:`afresh`, but the same object for the same changes: data is read once."""
        key = json.dumps(changes, sort_keys=True)
        if key not in self._prepared:
            self._prepared[key] = self.afresh(**changes)
        return self._prepared[key]

    def facts(self) -> dict[str, Any]:
        """What another process needs to build the same."""
        return {"workload": dict(self.workload), "device": self.device, "data_dir": str(self.data_dir)}

    def build(self, study: int = 0, workload: Any = None, **changes: Any) -> Built:
        """Task and evaluation as the cell of that study gets them."""
        workload = self.prepared(**changes) if workload is None else workload
        seed = cell_seed(self.workload["name"], study, trial=0)
        torch.manual_seed(seed)
        task, evaluate = workload.build(seed, torch.device(self.device))
        return Built(task, evaluate, workload)


def first_fault(faults: Any) -> Result | None:
    """A failure for the first of some lazily found faults; None where there is none."""
    fault = next((fault for fault in faults if fault is not None), None)
    return None if fault is None else failed(fault)

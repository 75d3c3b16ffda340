"""What people set under ``hydra.launcher`` with ``hydra/launcher=slurm``."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runner.base.errors import UserError, nearest

# The runner's own: it finds tasks, logs and signals by them.
RESERVED = ("array", "output", "error", "open-mode", "signal", "dependency", "no-requeue", "wrap", "job-name")
POSITIVE = (
    "time",
    "mem_gb",
    "cpus_per_task",
    "array_parallelism",
    "poll",
    "cells_per_task",
    "minutes_per_task",
)
UNITS = {
    "time": "minutes, such as 90",
    "mem_gb": "gigabytes, such as 16",
}  # where sbatch takes other spellings
NOT_NEGATIVE = ("gpus", "signal_delay_s", "max_requeues")
FOLLOW_UPS = ("score",)


@dataclass(frozen=True)
class SlurmOptions:
    """How a grid goes to SLURM. What is None is left to the cells' resources, or to the cluster.

    Attributes:
        partition: as sbatch's, like account, qos, gres, constraint, exclude and nodelist.
        time: minutes of a task.
        mem_gb: memory of a task.
        cpus_per_task: cores of a task; more than a cell's let cells of a task run side by side.
        gpus: GPUs of a task; more than a cell's let cells of a task run side by side.
        gres: in place of ``gpus``, where a cluster wants GPUs by type.
        signal_delay_s: seconds before the time limit at which a task saves its cells and requeues itself.
        array_parallelism: tasks of an array that may run at once.
        max_requeues: times that a task may requeue itself.
        setup: shell lines before the task starts (``module load …``).
        sbatch: further ``#SBATCH`` lines; true stands for a flag.
        python: command that starts Python on a node (a container's); None for this very interpreter.
        poll: seconds between two looks at the queue, with ``wait``.
        cells_per_task: cells in a task; None packs by ``minutes_per_task``.
        minutes_per_task: estimated minutes to which short cells are packed.
        wait: stay and watch.
        then: what follows the arrays: ``score``.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time: int | None = None
    mem_gb: float | None = None
    cpus_per_task: int | None = None
    gpus: int | None = None
    gres: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    nodelist: str | None = None
    signal_delay_s: int = 90
    array_parallelism: int = 256
    max_requeues: int = 100
    setup: list[str] = field(default_factory=list)
    sbatch: dict[str, Any] = field(default_factory=dict)
    python: str | None = None
    poll: float = 10.0
    cells_per_task: int | None = None
    minutes_per_task: float = 30.0
    wait: bool = False
    then: str | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> SlurmOptions:
        """Check what a launcher was given.

        Raises:
            UserError: for an unknown name or a bad value.
        """
        known = [f.name for f in dataclasses.fields(cls)]
        for name in options:
            if name not in known:
                raise UserError(f"unknown key hydra.launcher.{name}: {nearest(name, known)}")
        for name, kind in typing.get_type_hints(cls).items():
            if name in options:
                _check_type(name, options[name], kind)
        made = cls(**options)
        made._check()
        return made

    def _check(self) -> None:
        for name in (*POSITIVE, *NOT_NEGATIVE):
            value = getattr(self, name)
            if value is not None and (value < 0 or (value == 0 and name in POSITIVE)):
                wanted = "above 0" if name in POSITIVE else "0 or more"
                raise UserError(f"{_key(name)}: got {value}, expected a number {wanted}")
        if self.gpus and self.gres:
            raise UserError("hydra.launcher.gpus and hydra.launcher.gres mean the same thing: set only one")
        if self.then is not None and self.then not in FOLLOW_UPS:
            raise UserError(f"then: got {self.then!r}, expected {' or '.join(FOLLOW_UPS)}, or null")
        for name in self.sbatch:
            if str(name).replace("_", "-") in RESERVED:
                raise UserError(f"hydra.launcher.sbatch.{name}: the runner sets this itself")


def _check_type(name: str, value: Any, kind: Any) -> None:
    kinds = [typing.get_origin(k) or k for k in (typing.get_args(kind) if _is_union(kind) else (kind,))]
    right = isinstance(value, tuple(kinds)) or (float in kinds and isinstance(value, int))
    if not right or (isinstance(value, bool) and bool not in kinds):
        names = {
            types.NoneType: "null",
            int: "an integer",
            float: "a number",
            str: "text",
            bool: "true or false",
        }
        wanted = " or ".join(names.get(k, f"a {k.__name__}") for k in kinds)
        wanted = f"{UNITS[name]}, or null" if name in UNITS else wanted
        raise UserError(f"{_key(name)}: got {value!r}, expected {wanted}")


def _is_union(kind: Any) -> bool:
    return isinstance(kind, types.UnionType)


def _key(name: str) -> str:
    # These are keys of their own, which the launcher takes over.
    return (
        name if name in ("cells_per_task", "minutes_per_task", "wait", "then") else f"hydra.launcher.{name}"
    )

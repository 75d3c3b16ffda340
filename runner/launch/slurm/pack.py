"""Cells into tasks, tasks into arrays, arrays into what sbatch is told. Asks nobody anything."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from runner.launch.slurm.options import SlurmOptions

MARGIN = 2.0  # of a time limit over the estimate: a machine may be slower than the one it comes from
START_MINUTES = 5  # imports, data, compilation


class Resources(Protocol):
    """What a cell needs: estimated minutes, memory in GB, cores and GPUs."""

    @property
    def minutes(self) -> float: ...  # noqa: D102
    @property
    def memory_gb(self) -> float: ...  # noqa: D102
    @property
    def cores(self) -> int | None: ...  # noqa: D102
    @property
    def gpus(self) -> int | None: ...  # noqa: D102


@dataclass(frozen=True)
class CellSpec:
    """A cell that is to run: the name of its folder, and what it needs."""

    name: str
    resources: Resources

    @property
    def needs(self) -> tuple[int, int, float]:
        """Cores, GPUs and GB: cells that differ here never share an array."""
        r = self.resources
        return max(1, r.cores or 1), r.gpus or 0, r.memory_gb


@dataclass(frozen=True)
class Array:
    """Tasks of the same resources.

    Attributes:
        tasks: the cells of each task, in the order in which they are to run.
        minutes: time limit of a task.
        cores, gpus, memory_gb: of a task.
        cell_cores, cell_gpus: of a cell.
    """

    tasks: list[list[str]]
    minutes: int
    cores: int
    gpus: int
    memory_gb: float
    cell_cores: int
    cell_gpus: int

    @property
    def side(self) -> int:
        """Cells that run side by side in a task."""
        return _side(self.cores, self.gpus, self.cell_cores, self.cell_gpus)

    def resources(self) -> dict[str, Any]:
        """For the launch's record."""
        return {"minutes": self.minutes, "memory_gb": self.memory_gb, "cores": self.cores, "gpus": self.gpus}


def arrays(cells: Iterable[CellSpec], options: SlurmOptions, max_tasks: int = 1000) -> list[Array]:
    """All cells, longest first, in tasks and arrays.

    Args:
        cells: what is to run.
        options: of the launch.
        max_tasks: tasks that the cluster takes in one array.
    """
    by_needs: dict[tuple[int, int, float], list[CellSpec]] = {}
    for cell in cells:
        by_needs.setdefault(cell.needs, []).append(cell)
    return [array for needs, same in by_needs.items() for array in _alike(needs, same, options, max_tasks)]


def _alike(
    needs: tuple[int, int, float], cells: list[CellSpec], options: SlurmOptions, max_tasks: int
) -> Iterator[Array]:
    """The arrays of cells of like needs: one for each class of time limit, cut at ``max_tasks``."""
    cores, gpus, memory_gb = needs
    task_gpus = (_gres_gpus(options.gres) or gpus) if options.gpus is None else options.gpus
    at_once = max(1, task_gpus // gpus) if gpus else 1
    task_cores = options.cpus_per_task or cores * at_once
    side = _side(task_cores, task_gpus, cores, gpus)
    memory = options.mem_gb or memory_gb * side
    by_limit: dict[int, list[list[CellSpec]]] = {}
    for task in pack(cells, options, side):
        by_limit.setdefault(_limit_class(time_limit(task, options, side)), []).append(task)
    for tasks in by_limit.values():
        minutes = max(time_limit(task, options, side) for task in tasks)
        for some in _cut(tasks, max_tasks):
            names = [[cell.name for cell in task] for task in some]
            yield Array(names, minutes, task_cores, task_gpus, memory, cores, gpus)


def pack(cells: Sequence[CellSpec], options: SlurmOptions, side: int = 1) -> list[list[CellSpec]]:
    """Fill tasks with ``cells_per_task`` cells, or up to ``minutes_per_task``; a longer cell has its own."""
    ordered = sorted(cells, key=lambda cell: -cell.resources.minutes)
    if options.cells_per_task is not None:
        return list(_cut(ordered, options.cells_per_task))
    tasks: list[list[CellSpec]] = []
    room = 0.0
    for cell in ordered:
        minutes = cell.resources.minutes / side
        if not tasks or minutes > room + 1e-9:
            tasks.append([])
            room = options.minutes_per_task
        tasks[-1].append(cell)
        room -= minutes
    return tasks


def time_limit(task: Sequence[CellSpec], options: SlurmOptions, side: int = 1) -> int:
    """Minutes that a task gets: twice the estimate, the start, and the time to save its cells."""
    if options.time is not None:
        return options.time
    minutes = [cell.resources.minutes for cell in task]
    estimate = max(sum(minutes) / side, max(minutes))
    return math.ceil(MARGIN * estimate + START_MINUTES + options.signal_delay_s / 60)


def parameters(array: Array, options: SlurmOptions, name: str) -> dict[str, Any]:
    """What submitit's executor is told for an array of the experiment ``name``."""
    wanted = {
        "job_name": name,
        "nodes": 1,
        "ntasks_per_node": 1,
        "time": array.minutes,
        "cpus_per_task": array.cores,
        "mem": f"{math.ceil(array.memory_gb * 1024)}M",
        "gpus_per_node": None if options.gres or not array.gpus else array.gpus,
        "gres": options.gres,
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "constraint": options.constraint,
        "exclude": options.exclude,
        "nodelist": options.nodelist,
        "signal_delay_s": signal_delay(array.minutes, options),
        "array_parallelism": options.array_parallelism,
        "setup": setup_lines(options.setup),
        "stderr_to_stdout": True,
        # Since SLURM 22.05 srun no longer takes this over from sbatch.
        "srun_args": [f"--cpus-per-task={array.cores}", "--export=ALL"],
        "additional_parameters": {"requeue": True, **sbatch_lines(options.sbatch)},
    }
    return {key: value for key, value in wanted.items() if value is not None}


def signal_delay(minutes: int, options: SlurmOptions) -> int:
    """Seconds before the time limit at which SLURM is to signal: not before a short task is half-way.

    SLURM may do so up to a minute early.
    """
    return min(options.signal_delay_s, max(10, (minutes * 60 - 60) // 2))


def setup_lines(setup: Sequence[str]) -> list[str]:
    """The shell lines before the task starts; one that fails ends the job, and the job's log says which."""
    if not setup:
        return []
    checked = (f"{line}\nchecked $? {shlex.quote(line)}" for line in setup)
    return [_CHECKED, *checked]


_CHECKED = """checked() { [ "$1" -eq 0 ] || { echo "setup failed, exit code $1: $2"; exit "$1"; }; }"""


def sbatch_lines(extra: dict[str, Any]) -> dict[str, Any]:
    """Further ``#SBATCH`` lines: true is a flag; null and false leave a line out."""
    return {str(k).replace("_", "-"): v for k, v in extra.items() if v is not None and v is not False}


def _side(cores: int, gpus: int, cell_cores: int, cell_gpus: int) -> int:
    sides = [cores // cell_cores] + ([gpus // cell_gpus] if cell_gpus and gpus else [])
    return max(1, min(sides))


def _gres_gpus(gres: str | None) -> int | None:
    """``gpu:a100:4`` asks for four."""
    found = re.fullmatch(r"gpu(?::[^:]+)?:(\d+)", gres or "")
    return int(found[1]) if found else None


def _limit_class(minutes: int) -> int:
    # Limits within a factor of two share an array: a scheduler starts short tasks sooner.
    return math.ceil(math.log2(max(minutes, 15)))


def _cut(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])

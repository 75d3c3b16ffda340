"""What SLURM says about our jobs. Needs no accounting; never waits for long."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from runner.base.errors import one_line
from runner.base.files import read_tail

SECONDS = 20.0  # that a command of SLURM's may take
_HOW_IT_ENDED = re.compile(r"srun: error: .*(Exited with|Killed)|srun: Terminating|STEP .* CANCELLED")
FORGOTTEN = "Invalid job id"  # squeue's word when it knows none of the ids
GONE = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "BOOT_FAIL",
        "DEADLINE", "REVOKED")  # fmt: skip


class Launch(Protocol):
    """A launch's folder and record."""

    path: Path
    record: dict[str, Any]


@dataclass(frozen=True)
class Queue:
    """The tasks that SLURM knows.

    Attributes:
        states: ``"123_4"`` (task 4 of array 123) -> SLURM's word, such as ``PENDING`` or ``RUNNING``.
        reason: why SLURM did not answer; None where it did.
    """

    states: dict[str, str] = field(default_factory=dict)
    reason: str | None = None


def ask(launches: Iterable[Launch]) -> Queue:
    """The tasks of these launches that are queued or running, from one look at the queue."""
    by_array = {str(array["id"]): launch for launch in launches for array in jobs(launch)}
    if not by_array:
        return Queue()
    line = ["squeue", "--noheader", "--array", "--format=%i|%T|%o", f"--jobs={','.join(by_array)}"]
    output, reason = command(line)
    if reason is not None:
        return Queue(reason=None if FORGOTTEN in reason else reason)
    found = {}
    for task, state, script in parse(output):
        launch = by_array.get(task.partition("_")[0])
        # Ids begin anew on a new cluster: a job is ours if its script lies in the launch's folder, whatever
        # the path to it on the machine that submitted it.
        if launch is not None and state not in GONE and f"/{launch.path.name}/" in script:
            found[task] = state
    return Queue(found)


def alive(launches: Iterable[Launch]) -> set[str]:
    """Names of the cells in a task that is queued or running."""
    return set(cell_states(launches))


def cell_states(launches: Iterable[Launch]) -> dict[str, str]:
    """Cell -> SLURM's word for its task, for the cells in a task that is queued or running."""
    launches = list(launches)
    return by_cell(launches, ask(launches))


def by_cell(launches: Iterable[Launch], queue: Queue) -> dict[str, str]:
    """Cell -> SLURM's word for its task."""
    states = queue.states
    return {name: states[task] for task, names in tasks(launches).items() if task in states for name in names}


def tasks(launches: Iterable[Launch]) -> dict[str, list[str]]:
    """``"123_4"`` -> its cells."""
    return {
        f"{array['id']}_{index}": names
        for launch in launches
        for array in jobs(launch)
        for index, names in array.get("tasks", {}).items()
    }


def last_words(launches: Sequence[Launch], cell: str) -> str:
    """The last line that the cell's latest job printed, in quotes; empty where it printed none."""
    for launch in reversed(launches):
        for task in (task for task, names in tasks([launch]).items() if cell in names):
            lines = read_tail(launch.path / "slurm" / f"{task}_0_log.out").split("\n")
            said = [line.strip() for line in lines if line.strip() and not _HOW_IT_ENDED.search(line)]
            return f"“{one_line(said[-1])}”" if said else ""
    return ""


def jobs(launch: Launch) -> list[dict[str, Any]]:
    """The records of a launch's arrays and of its follow-up job."""
    record = launch.record
    return [*(record.get("arrays") or []), *([record["then"]] if record.get("then") else [])]


def cancel(ids: Sequence[str]) -> str | None:
    """Cancel arrays or tasks (``"123"``, ``"123_4"``); those that have ended are passed over.

    Returns:
        Why it did not work; None where it did.
    """
    return command(["scancel", "--quiet", *ids])[1] if ids else None


def requeue(task: str) -> str | None:
    """Put a running task back into the queue; returns why it did not work, or None."""
    return command(["scontrol", "requeue", task])[1]


def parse(output: str) -> Iterator[tuple[str, str, str]]:
    """Task, state and script of every line of ``squeue``; a job that is no array is its task 0."""
    for line in output.splitlines():
        task, _, rest = line.strip().partition("|")
        state, _, script = rest.partition("|")
        if task and state:
            yield task if "_" in task else f"{task}_0", state, script


def config_value(name: str, default: str) -> str:
    """A value of the cluster's configuration, such as ``MaxArraySize``."""
    output, _ = command(["scontrol", "show", "config"])
    for line in output.splitlines():
        key, _, value = line.partition("=")
        if key.strip() == name:
            return value.strip()
    return default


def command(line: Sequence[str], env: Mapping[str, str] | None = None) -> tuple[str, str | None]:
    """What a command of SLURM's prints, and why it failed (None where it did not)."""
    try:
        ended = subprocess.run(
            line, capture_output=True, encoding="utf-8", errors="replace", timeout=SECONDS, env=env
        )
    except FileNotFoundError:
        return "", f"{line[0]}: no such command on this machine"
    except subprocess.TimeoutExpired:
        return "", f"{line[0]} did not answer within {SECONDS:.0f} s"
    if ended.returncode:
        return ended.stdout, one_line(ended.stderr) or f"{line[0]}: exit code {ended.returncode}"
    return ended.stdout, None

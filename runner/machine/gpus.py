"""The GPUs that cells may have: torch is asked, in a process of its own, and nvidia-smi who else uses them.

Only torch knows whether it can compute on a GPU, and in which order CUDA counts them; a device file, or a
tool that lists them, says neither.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from runner.base.errors import UserError, one_line

PATIENCE = 120.0  # seconds for torch to be imported and to try every GPU
VARIABLES = {"cuda": "CUDA_VISIBLE_DEVICES", "rocm": "HIP_VISIBLE_DEVICES", "cpu": "CUDA_VISIBLE_DEVICES"}
HIDING = re.compile(r"(-\d+|none|void|NoDevFiles)?\s*(,.*)?", re.IGNORECASE)  # ways to say: no GPU
ROOT = Path("/")


class Gpu(NamedTuple):
    """One GPU, or one MIG instance.

    Attributes:
        name: as the environment variable names it.
        uuid: its own, wherever it is seen from; "" where torch does not tell.
        model: what it is.
        memory_gb: in GiB.
        variable: which environment variable shows it to a process.
        error: why torch cannot compute on it, or None.
    """

    name: str
    uuid: str = ""
    model: str = ""
    memory_gb: float = 0.0
    variable: str = VARIABLES["cuda"]
    error: str | None = None

    @property
    def claim(self) -> str:
        """What launches claim: one GPU has one such name, by whichever name it is used."""
        if self.uuid:
            return f"gpu-{self.uuid}"
        # A batch system may call every GPU that it gives 0: there, each job has names of its own.
        return "-".join(["gpu", *filter(None, [os.environ.get("SLURM_JOB_ID")]), self.name])


class Found(NamedTuple):
    """What there is.

    Attributes:
        gpus: those that torch can compute on.
        unusable: the others.
        built: for what torch is built: ``cuda``, ``rocm`` or ``cpu``.
        torch: its version.
        instructions: of the processor, that its kernels use; "" where it did not answer.
        why: why there is none, in torch's words; None where there are some.
    """

    gpus: tuple[Gpu, ...]
    unusable: tuple[Gpu, ...]
    built: str
    torch: str
    instructions: str
    why: str | None


class Use(NamedTuple):
    """How a GPU is used at this moment: memory that is free, in GiB, and the processes that compute on it."""

    free_gb: float
    processes: tuple[int, ...]


def automatic() -> str:
    """``cuda`` where torch can use a GPU, else ``cpu``; torch is asked where there may be one.

    Raises:
        UserError: where there is a GPU and a torch for it, and they do not work together.
    """
    if hidden() or not (signs := set(signs_of_one())):
        return "cpu"
    found = find()
    if found.gpus:
        return "cuda"
    if found.built in signs:
        raise UserError(
            f"device=auto: this machine has a GPU, but torch {found.torch} cannot use it: {found.why}; mend "
            "that, or say device=cpu"
        )
    return "cpu"


def required() -> tuple[Gpu, ...]:
    """The GPUs, of which there is at least one.

    Raises:
        UserError: where there is none, saying what was tried.
    """
    found = find()
    if found.gpus:
        return found.gpus
    raise UserError(
        f"device=cuda: torch {found.torch} has no GPU here: {found.why}; use device=cpu, or fix that"
    )


def hidden() -> bool:
    """Whether the environment hides every GPU."""
    said = [os.environ[name] for name in set(VARIABLES.values()) if name in os.environ]
    return any(HIDING.fullmatch(value.strip()) for value in said)


@functools.cache
def find() -> Found:
    """Ask torch; once in a process."""
    facts, problem = _asked()
    if problem is not None:
        return Found((), (), "cpu", _version(), "", problem)
    all_ = tuple(_gpus(facts))
    usable = tuple(gpu for gpu in all_ if gpu.error is None)
    unusable = tuple(gpu for gpu in all_ if gpu.error is not None)
    why = None if usable else _why(facts, unusable)
    return Found(usable, unusable, facts["built"], facts["torch"], facts["instructions"], why)


def uses(gpus: Sequence[Gpu]) -> dict[str, Use]:
    """Name -> how each GPU is used, of those that nvidia-smi knows; empty without it."""
    known = {gpu.uuid.removeprefix("GPU-"): gpu.name for gpu in gpus if gpu.uuid}
    free = {uuid: float(mib) / 1024 for uuid, mib in _smi("--query-gpu=uuid,memory.free") if _number(mib)}
    processes: dict[str, list[int]] = {uuid: [] for uuid in free}
    for uuid, pid in _smi("--query-compute-apps=gpu_uuid,pid"):
        if uuid in processes and pid.isdigit():
            processes[uuid].append(int(pid))
    return {name: Use(free[uuid], tuple(processes[uuid])) for uuid, name in known.items() if uuid in free}


def settings(uuid: str) -> dict[str, Any]:
    """How a GPU is set up: ``driver`` and ``power_limit_w``, in watts, as far as nvidia-smi says."""
    for own, driver, limit in _smi("--query-gpu=uuid,driver_version,power.limit"):
        if own == uuid.removeprefix("GPU-"):
            return {"driver": driver, **({"power_limit_w": float(limit)} if _number(limit) else {})}
    return {}


def is_ours(pid: int) -> bool:
    """Whether a process is a child of this one."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(stat.rpartition(")")[2].split()[1]) == os.getpid()
    except (OSError, IndexError, ValueError):
        return False


def signs_of_one() -> Iterator[str]:
    """Kinds of torch that may find a GPU here; no sign is no GPU."""
    nvidia = ROOT / "proc/driver/nvidia/gpus"
    windows = ROOT / "usr/lib/wsl/lib/libcuda.so.1"  # WSL2 has no device files of NVIDIA's
    if (nvidia.is_dir() and any(nvidia.iterdir())) or windows.exists() or any(ROOT.glob("dev/nvidia[0-9]*")):
        yield "cuda"
    if (ROOT / "dev/kfd").exists():
        yield "rocm"


def _asked() -> tuple[dict[str, Any], str | None]:
    """What the probe answers, or why it does not."""
    command = [sys.executable, "-m", "runner.machine.gpu_probe"]
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        return {}, f"it did not answer within {PATIENCE:.0f} s"
    except OSError as error:
        return {}, str(error)
    try:
        return json.loads(done.stdout), None
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        return {}, one_line(f"the process that asked ended with exit code {done.returncode}: {last}")


def _gpus(facts: dict[str, Any]) -> Iterator[Gpu]:
    variable = VARIABLES[facts["built"]]
    given = [name.strip() for name in os.environ.get(variable, "").split(",") if name.strip()]
    for index, gpu in enumerate(facts["gpus"]):
        name = given[index] if index < len(given) else _name(index, gpu, variable)
        yield Gpu(name, gpu["uuid"], gpu["model"], gpu["memory_gb"], variable, gpu["error"])


def _name(index: int, gpu: dict[str, Any], variable: str) -> str:
    """Its UUID, which no order of counting changes; its number, where a UUID is not understood."""
    whole = variable == VARIABLES["cuda"] and gpu["uuid"] and " MIG " not in gpu["model"]
    return f"GPU-{gpu['uuid'].removeprefix('GPU-')}" if whole else str(index)


def _why(facts: dict[str, Any], unusable: Sequence[Gpu]) -> str:
    if unusable:
        return "; ".join(f"{gpu.model or 'GPU'} {gpu.name}: {gpu.error}" for gpu in unusable)
    variable = VARIABLES[facts["built"]]
    shows = f" ({variable}={os.environ[variable]})" if variable in os.environ else ""
    return f"{facts['error'] or 'it counts none'}{shows}"


def _version() -> str:
    from importlib.metadata import version

    return version("torch")


def _smi(query: str) -> list[tuple[str, ...]]:
    """(UUID, value, …) of each line of nvidia-smi; what is no such line (a message) is left out."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=30)
    except (OSError, subprocess.SubprocessError):
        return []
    lines = [[entry.strip() for entry in line.split(",")] for line in done.stdout.splitlines()]
    wanted = query.count(",") + 1
    return [(line[0][4:], *line[1:]) for line in lines if len(line) == wanted and line[0].startswith("GPU-")]


def _number(text: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?", text) is not None

"""The machine under a cell: threads, determinism, synchronisation, and facts for the manifest."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from runner.base.errors import UserError
from runner.machine import gpus

PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "hydra-core", "omegaconf", "pandas", "wandb")
TF32_SINCE = (8, 0)  # compute capability: Ampere
STARVED = 0.1  # share of a cell's CPU demand that it had to wait for, above which it counts as contended


def configure(threads: int, deterministic: bool, precision: str = "fp32") -> None:
    """Set torch's intra-op threads, bit-reproducible kernels where asked for, and what fp32 means."""
    torch.set_num_threads(threads)
    # fp32 is fp32: unasked, cuDNN rounds what it multiplies to TF32, and cuBLAS does not.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic
    # Filling fresh memory is a debugging aid, and would be charged.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]


def synchronizer(device: torch.device) -> Callable[[], None]:
    """A function that waits until ``device`` has done its work."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return lambda: None


def reset_peak_memory(device: torch.device) -> None:
    """A GPU's peak memory counts from here on; a process that has not used CUDA yet has no peak."""
    if device.type == "cuda" and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> dict[str, float]:
    """``peak_gpu_memory_gb``: the most that tensors took, in GiB, since it was reset; nothing on a CPU."""
    if device.type != "cuda":
        return {}
    return {"peak_gpu_memory_gb": torch.cuda.max_memory_allocated(device) / 2**30}


def host() -> str:
    """This machine's name."""
    return socket.gethostname()


def job_id() -> str | None:
    """The batch system's job id, if a cell runs in a job."""
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{index}" if array and index else os.environ.get("SLURM_JOB_ID")


def facts(device: torch.device, workload: Any) -> dict[str, Any]:
    """What only the worker knows: packages, hardware, data checksums."""
    checksums = getattr(workload, "checksums", None)
    return {
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "python": platform.python_version(),
        "hardware": {
            "cpu": cpu_name(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
            "platform": platform.platform(),
        },
        **({"gpu": _gpu(device)} if device.type == "cuda" else {}),
        "threads": torch.get_num_threads(),
        "data": checksums() if callable(checksums) else {},
        "host": host(),
        "job": job_id(),
        "started": time.time(),
    }


def _gpu(device: torch.device) -> dict[str, Any]:
    """Which GPU it is, and what its speed hangs on beside its model."""
    uuid = str(getattr(torch.cuda.get_device_properties(device), "uuid", ""))
    return {
        "uuid": uuid,
        "cuda": torch.version.cuda or f"ROCm {torch.version.hip}",
        "cudnn": str(torch.backends.cudnn.version()),
        "tf32": torch.backends.cudnn.allow_tf32 and torch.backends.cuda.matmul.allow_tf32,
        **gpus.settings(uuid),
    }


def refuse_tf32(device: torch.device) -> None:
    """TF32 on a GPU that has none would be fp32 by another name.

    Raises:
        UserError: where that is so.
    """
    if torch.version.cuda and (found := torch.cuda.get_device_capability(device)) < TF32_SINCE:
        name, (major, minor) = torch.cuda.get_device_name(device), found
        raise UserError(
            f"workload.precision=tf32: {name} (compute capability {major}.{minor}) has no TF32, which came "
            "with 8.0: say fp32"
        )


def cpu_name() -> str:
    """The processor's model name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def checksum(path: Path) -> str:
    """SHA-256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


class Usage:
    """CPU time that this process got, and time that it stood ready to run but had no core."""

    def __init__(self) -> None:
        self._cpu, self._waited, self._wall = time.process_time(), _run_delay(), time.perf_counter()

    def facts(self, threads: int) -> dict[str, Any]:
        """``cpu_seconds``, ``cpu_over_wall`` and ``contended`` since this object was made."""
        cpu, wall = time.process_time() - self._cpu, time.perf_counter() - self._wall
        waited = _run_delay() - self._waited
        return {
            "cpu_seconds": cpu,
            "cpu_over_wall": cpu / max(wall, 1e-9),
            "cpu_waited_seconds": waited,
            "contended": waited > STARVED * (cpu + waited),
            "threads": threads,
        }


def _run_delay() -> float:
    """Seconds that this process's threads have spent runnable but not running (Linux); else 0."""
    total = 0
    for path in Path("/proc/self/task").glob("*/schedstat"):
        try:
            total += int(path.read_text(encoding="utf-8").split()[1])
        except (OSError, IndexError, ValueError):
            continue
    return total / 1e9

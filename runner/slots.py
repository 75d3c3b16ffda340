"""The devices of this process, lent to one cell at a time: cores of its own, or a GPU."""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


@dataclass(frozen=True)
class Slot:
    """What one cell gets.

    Attributes:
        cores: logical CPUs that count as taken.
        pinned: keep to them; otherwise the operating system chooses.
        gpu: what ``CUDA_VISIBLE_DEVICES`` says; None for a cell on the CPU.
        shared: others compute on the same device meanwhile.
    """

    cores: tuple[int, ...] = ()
    pinned: bool = False
    gpu: str | None = None
    shared: bool = False

    @property
    def env(self) -> dict[str, str]:
        """What a worker's environment needs before it starts."""
        return {} if self.gpu is None else {"CUDA_VISIBLE_DEVICES": self.gpu}


@dataclass
class Slots:
    """Cores and GPUs, and who has them.

    Attributes:
        cores: logical CPUs, one for each physical core.
        gpus: as ``CUDA_VISIBLE_DEVICES`` names them.
        per_gpu: cells at once on a GPU.
        workers: cells at once; None: as many as the cores have room for.
        pinned: keep cells to cores of their own.
        exclusive: use no GPU that another launch on this machine uses.
    """

    cores: Sequence[int]
    gpus: Sequence[str] = ()
    per_gpu: int = 1
    workers: int | None = None
    pinned: bool = True
    exclusive: bool = True
    _free: list[int] = field(init=False)
    _on_gpu: Counter[str] = field(init=False, default_factory=Counter)
    _lent: int = field(init=False, default=0)
    _claims: Claims = field(init=False, default_factory=lambda: Claims())

    def __post_init__(self) -> None:
        self._free = list(self.cores)

    @classmethod
    def here(cls, workers: int | None = None, per_gpu: int = 1) -> Slots:
        """What this process may use; inside a batch job, what the job was given."""
        alone = "SLURM_JOB_ID" not in os.environ
        usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(_cpus())
        allotted = int(os.environ.get("SLURM_CPUS_PER_TASK", 0)) if "SLURM_JOB_ID" in os.environ else 0
        if 0 < allotted < len(usable):
            # The cluster counts cores without saying which: keeping to the first ones would crowd them.
            return cls(list(usable)[:allotted], gpus(), per_gpu, workers, pinned=False, exclusive=alone)
        physical = physical_cores(list(usable))
        # More workers than cores: then hyper-threads are cores, too.
        cores = physical if workers is None or workers <= len(physical) else list(usable)
        return cls(cores, gpus(), per_gpu, workers, hasattr(os, "sched_setaffinity"), alone)

    def take(self, device: str, threads: int) -> Slot | None:
        """A slot for a cell with ``threads`` threads on ``device`` (``cpu`` or ``cuda``); None: wait.

        A cell that wants more than there is gets all of it, alone.
        """
        if device != "cpu" and self.gpus:
            return self._take_gpu()
        crowded = self.workers is not None and self.workers * threads > len(self.cores)
        if self.workers is not None and self._lent >= self.workers:
            return None
        wanted = 0 if crowded else min(threads, len(self.cores))
        if len(self._free) < wanted:
            return None
        self._lent += 1
        return Slot(*self._reserve(wanted), shared=crowded)

    def give(self, slot: Slot) -> None:
        """Take a slot back."""
        self._lent -= 1
        if slot.gpu is not None:
            self._on_gpu[slot.gpu] -= 1
            if not self._on_gpu[slot.gpu]:
                self._claims.drop([f"gpu-{slot.gpu}"])
        self._claims.drop(slot.cores)
        self._free = sorted([*self._free, *slot.cores])

    def count(self, device: str, threads: int) -> int:
        """How many cells of this kind fit at once."""
        if device != "cpu" and self.gpus:
            room = len(self.gpus) * self.per_gpu
        else:
            room = max(1, len(self.cores) // max(threads, 1))
            return room if self.workers is None else self.workers
        return room if self.workers is None else min(room, self.workers)

    def _take_gpu(self) -> Slot | None:
        if self.workers is not None and self._lent >= self.workers:
            return None
        room = [gpu for gpu in self.gpus if self._on_gpu[gpu] < self.per_gpu]
        if not room:
            return None
        room.sort(key=lambda gpu: self._on_gpu[gpu])
        gpu = next((gpu for gpu in room if self._on_gpu[gpu] or self._ours(gpu)), None)
        if gpu is None:  # other launches have them: wait
            return None
        self._on_gpu[gpu] += 1
        self._lent += 1
        share = len(self.cores) // (len(self.gpus) * self.per_gpu)
        cores = self._reserve(min(share, len(self._free)))
        return Slot(*cores, gpu, shared=self.per_gpu > 1)

    def _ours(self, gpu: str) -> bool:
        # A batch system has given each job GPUs of its own, and may call every one of them 0.
        return not self.exclusive or self._claims.take(f"gpu-{gpu}", otherwise=True)

    def _reserve(self, wanted: int) -> tuple[tuple[int, ...], bool]:
        """Free cores, and whether to keep to them: not where another launch on this machine has them."""
        ours: list[int] = []
        if self.pinned and wanted:
            ours = list(itertools.islice(filter(self._claims.take, self._free), wanted))
        pinned = len(ours) == wanted > 0
        if not pinned:
            self._claims.drop(ours)
            ours = self._free[:wanted]
        self._free = [core for core in self._free if core not in ours]
        return tuple(ours), pinned


class Claims:
    """Which cores and GPUs this process has for itself, among all launches of this user on this machine.

    A locked file each; the kernel lets go of it when the process ends, however it ends.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or Path(tempfile.gettempdir()) / f"time-to-target-devices-{os.getuid()}"
        self._held: dict[int | str, int] = {}

    def take(self, device: int | str, otherwise: bool = False) -> bool:
        """Claim a core, by number, or a GPU; False where another process has it.

        Args:
            device: which.
            otherwise: the answer where claims cannot be written.
        """
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            handle = os.open(self._folder / str(device), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            return otherwise
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return False
        self._held[device] = handle
        return True

    def drop(self, devices: Iterable[int | str]) -> None:
        """Let go of what was claimed of these."""
        for device in devices:
            if (handle := self._held.pop(device, None)) is not None:
                os.close(handle)


def gpus() -> list[str]:
    """The GPUs that this process sees, as ``CUDA_VISIBLE_DEVICES`` names them; torch is not imported."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",") if name.strip()]
        return list(itertools.takewhile(lambda name: not name.startswith("-"), names))  # as CUDA reads it
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.split()


def physical_cores(cpus: Sequence[int]) -> list[int]:
    """One logical CPU of each physical core: two hyper-threads are no two cores to a clock."""
    first: dict[str, int] = {}
    for cpu in cpus:
        try:
            siblings = Path(SIBLINGS.format(cpu)).read_text(encoding="utf-8").strip()
        except OSError:
            siblings = str(cpu)
        first.setdefault(siblings, cpu)
    return sorted(first.values())


def _cpus() -> int:
    return os.cpu_count() or 1

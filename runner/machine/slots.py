"""The devices of this process, lent to one cell at a time: cores of its own, or a GPU."""

from __future__ import annotations

import fcntl
import itertools
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runner.machine import gpus
from runner.machine.gpus import Gpu

SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


@dataclass(frozen=True)
class Slot:
    """What one cell gets.

    Attributes:
        cores: logical CPUs that count as taken.
        pinned: keep to them; otherwise the operating system chooses.
        gpu: the one that it sees; None for a cell on the CPU.
        shared: others compute on the same device meanwhile.
    """

    cores: tuple[int, ...] = ()
    pinned: bool = False
    gpu: Gpu | None = None
    shared: bool = False

    @property
    def env(self) -> dict[str, str]:
        """What a worker's environment needs before CUDA looks at it."""
        return {} if self.gpu is None else {self.gpu.variable: self.gpu.name}


@dataclass
class Slots:
    """Cores and GPUs, and who has them.

    Attributes:
        cores: logical CPUs, one for each physical core.
        given: the GPUs; None: those that torch can use, which is asked when a cell wants one.
        per_gpu: cells at once on a GPU.
        workers: cells at once; None: as many as the cores have room for.
        pinned: keep cells to cores of their own.
        lacking: why no GPU could be lent when one was last asked for; None where our own cells have them.
    """

    cores: Sequence[int]
    given: Sequence[Gpu] | None = None
    per_gpu: int = 1
    workers: int | None = None
    pinned: bool = True
    lacking: str | None = field(init=False, default=None)
    _free: list[int] = field(init=False)
    _on_gpu: Counter[Gpu] = field(init=False, default_factory=Counter)
    _lent: int = field(init=False, default=0)
    _claims: Claims = field(init=False, default_factory=lambda: Claims())

    def __post_init__(self) -> None:
        self._free = list(self.cores)

    @property
    def gpus(self) -> Sequence[Gpu]:
        """The GPUs.

        Raises:
            UserError: where none were given and torch can use none.
        """
        return gpus.required() if self.given is None else self.given

    @classmethod
    def here(cls, workers: int | None = None, per_gpu: int = 1) -> Slots:
        """What this process may use; inside a batch job, what the job was given."""
        usable = usable_cpus()
        allotted = int(os.environ.get("SLURM_CPUS_PER_TASK", 0)) if "SLURM_JOB_ID" in os.environ else 0
        if 0 < allotted < len(usable):
            # The cluster counts cores without saying which: keeping to the first ones would crowd them.
            return cls(usable[:allotted], None, per_gpu, workers, pinned=False)
        physical = physical_cores(usable)
        # More workers than cores: then hyper-threads are cores, too.
        cores = physical if workers is None or workers <= len(physical) else usable
        return cls(cores, None, per_gpu, workers, hasattr(os, "sched_setaffinity"))

    def take(self, device: str, threads: int, gpu_memory_gb: float = 0.0) -> Slot | None:
        """A slot for a cell with ``threads`` threads on ``device`` (``cpu`` or ``cuda``); None: wait.

        A cell that wants more cores than there are gets all of them, alone. A GPU is lent where it has
        ``gpu_memory_gb`` free; one on which other people compute as well is shared.

        Raises:
            UserError: for a cell that wants a GPU where there is none.
        """
        self.lacking = None
        if device != "cpu":
            return self._take_gpu(gpu_memory_gb)
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
                self._claims.drop([slot.gpu.claim])
        self._claims.drop(slot.cores)
        self._free = sorted([*self._free, *slot.cores])

    def count(self, device: str, threads: int) -> int:
        """How many cells of this kind fit at once."""
        if device != "cpu":
            room = len(self.gpus) * self.per_gpu
        else:
            room = max(1, len(self.cores) // max(threads, 1))
            return room if self.workers is None else self.workers
        return room if self.workers is None else min(room, self.workers)

    def _take_gpu(self, memory_gb: float) -> Slot | None:
        if self.workers is not None and self._lent >= self.workers:
            return None
        room = sorted(
            (gpu for gpu in self.gpus if self._on_gpu[gpu] < self.per_gpu), key=lambda gpu: self._on_gpu[gpu]
        )
        use = gpus.uses(room) if room else {}
        gpu = next((gpu for gpu in room if self._fits(gpu, use.get(gpu.name), memory_gb)), None)
        if gpu is None:
            return None
        others = any(not gpus.is_ours(pid) for pid in use[gpu.name].processes) if gpu.name in use else False
        self._on_gpu[gpu] += 1
        self._lent += 1
        share = len(self.cores) // (len(self.gpus) * self.per_gpu)
        cores = self._reserve(min(share, len(self._free)))
        return Slot(*cores, gpu, shared=self.per_gpu > 1 or others)

    def _fits(self, gpu: Gpu, use: gpus.Use | None, memory_gb: float) -> bool:
        """Whether a GPU can take one more cell; then it is claimed."""
        if self._on_gpu[gpu]:
            return True
        if use is not None and use.free_gb < memory_gb and not any(map(gpus.is_ours, use.processes)):
            self.lacking = (
                f"GPU {gpu.name} has {use.free_gb:.1f} GB free, but a cell needs {memory_gb:g} "
                "(workload.resources.gpu_memory_gb): waiting for memory to be freed"
            )
            return False
        if not self._claims.take(gpu.claim, otherwise=True):
            self.lacking = f"GPU {gpu.name} is in use by another launch on this machine: waiting for it"
            return False
        return True

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


def usable_cpus() -> list[int]:
    """Logical CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))

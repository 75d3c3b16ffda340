"""Does a step wait for the device? Seen from the operations it asks for, so that a CPU shows it too."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from runner.check.origin import TORCH, culprit, frames, is_check, is_library, place
from runner.check.result import Result, failed, ok
from runner.check.subject import Subject
from runner.check.transfers import Transfers
from runner.check.trial import Pieces

Note = Callable[[str], None]
IN_YAML = ", a key of its YAML"
LAZY = 3  # first steps, in which state is made
WAITING = {
    "_local_scalar_dense": "a tensor's value",
    "nonzero": "nonzero",
    "masked_select": "masked_select",
    "_unique": "unique",
    "_unique2": "unique",
    "unique_dim": "unique",
    "unique_consecutive": "unique_consecutive",
    "equal": "torch.equal",
    "allclose": "torch.allclose",
    "bincount": "bincount",
    "_linalg_check_errors": "a linalg call that checks for errors",
}
READING = ("index", "_unsafe_index")
INDEXING = (*READING, "index_put", "index_put_", "_index_put_impl_")
COUNTERS = ("step", "mu_product")  # that torch.optim keeps on the CPU, unless capturable or fused
SYNCHRONIZING = "called a synchronizing CUDA operation"  # torch's warning


def check_syncs(subject: Subject) -> Result:
    """No step waits for the device, but for one in every ``syncs_every`` where that is declared.

    Reading a value (.item(), float(), if tensor), nonzero, boolean indexing, unique, tolist, numpy, cpu, and
    copies to or from memory that is not pinned wait. torch.optim reading its own step counters, which lie on
    the CPU, does not. On a GPU torch itself says what waits.
    """
    watch = Watch(subject.homes, on_gpu=subject.device.startswith("cuda"))
    with subject.fresh():
        pieces = subject.pieces(setup=False)
        with watch.whole():
            pieces.algorithm.setup(pieces.task)
            trial = subject.train_here(pieces, around=watch.step)
    every = trial.pieces.algorithm.syncs_every
    allowed = -(-len(trial.steps) // every) if every else 0
    if len(watch.waits) <= allowed:
        return ok(f"declares syncs_every={every}" if every else "")
    (what, where), _ = Counter(wait for step in watch.waits.values() for wait in step).most_common(1)[0]
    share = f"{len(watch.waits)} of {len(trial.steps)} steps"
    declared = f"syncs_every={every}" if every else f"none (syncs_every{IN_YAML if subject.library else ''})"
    return failed(f"{share} wait for the device, by {what} at {where}; declared: {declared}")


class Watch:
    """Collects what waits, by step.

    Args:
        homes: folders or files of the parts that libraries bring: a wait in there is theirs.
        on_gpu: have torch say what waits for the GPU.

    Attributes:
        waits: step -> (what, where) for each wait of that step.
    """

    def __init__(self, homes: tuple[str, ...] = (), on_gpu: bool = False) -> None:
        self.homes, self.on_gpu = homes, on_gpu
        self.waits: dict[int, list[tuple[str, str]]] = {}
        self._transfers = Transfers(homes)

    def whole(self) -> AbstractContextManager[object]:
        """Around set-up and training; without it, what is made outside of a step counts as on the device."""
        return nullcontext() if self.on_gpu else self._transfers

    @contextmanager
    def step(self, pieces: Pieces) -> Iterator[None]:
        """Watch one step, past the first few."""
        number = pieces.task.cost.steps
        if number < LAZY:
            yield
            return

        def note(what: str) -> None:
            frame = sys._getframe(2)
            self.waits.setdefault(number, []).append((what, place(culprit(frame, self.homes))))

        with _told_by_torch(note) if self.on_gpu else self._seen(note):
            yield

    @contextmanager
    def _seen(self, note: Note) -> Iterator[None]:
        self._transfers.note = note
        try:
            with _Operations(note):
                yield
        finally:
            self._transfers.note = None


@contextmanager
def _told_by_torch(note: Note) -> Iterator[None]:
    """On a GPU: torch warns of what waits, but for a copy to memory that is not pinned, asked not to."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(), _Unpinned(note):
        warnings.simplefilter("always")
        show = warnings.showwarning

        def showwarning(message: Warning | str, *args: Any, **kwargs: Any) -> None:
            if SYNCHRONIZING in str(message):
                note("an operation that synchronizes")
            else:
                show(message, *args, **kwargs)

        warnings.showwarning = showwarning
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)


class _Unpinned(TorchDispatchMode):
    """Copies from a GPU that are asked not to wait, and do: to memory that is not pinned."""

    def __init__(self, note: Note) -> None:
        super().__init__()
        self.note = note

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ == "copy_" and (args[2:] or (kwargs or {}).get("non_blocking")):
            target, source = args[:2]
            if source.is_cuda and not target.is_cuda and not target.is_pinned():
                self.note("a copy to memory of the host")
        return func(*args, **(kwargs or {}))


class _Operations(TorchDispatchMode):
    def __init__(self, note: Note) -> None:
        super().__init__()
        self.note = note

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if what := waiting(name, args, kwargs or {}):
            tensor = args[0] if args and isinstance(args[0], Tensor) else None
            if not _own_counter(sys._getframe(1), tensor):
                self.note(what)
        return func(*args, **(kwargs or {}))


def waiting(name: str, args: Any, kwargs: Mapping[str, Any]) -> str | None:
    """What has the host wait, where an operation on the device's tensors does; copies aside."""
    if name in WAITING:
        return WAITING[name]
    if name == "repeat_interleave" and kwargs.get("output_size") is None:
        return "repeat_interleave without output_size"
    if name in INDEXING:
        masks = any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1] or ())
        fills = name not in READING and len(args) > 2 and args[2].numel() == 1  # becomes masked_fill
        return "boolean indexing" if masks and not fills else None
    return None


def _own_counter(start: FrameType, tensor: Tensor | None) -> bool:
    """Whether code of torch.optim reads the step counter of one of its optimizers."""
    for frame in frames(start):
        file = frame.f_code.co_filename
        if not is_library(file) and not is_check(frame):
            return False
        owner = frame.f_locals.get("self")
        if (
            file.startswith(f"{TORCH}/optim")
            and isinstance(owner, torch.optim.Optimizer)
            and tensor is not None
        ):
            states = (state for state in owner.state.values() if isinstance(state, Mapping))
            counters = (state.get(name) for state in states for name in COUNTERS)
            return any(isinstance(c, Tensor) and c.data_ptr() == tensor.data_ptr() for c in counters)
    return False

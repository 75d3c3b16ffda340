"""Checks that an algorithm has what it may have and no more: no scored split, no clock."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import BuiltinFunctionType, FrameType, MethodDescriptorType
from typing import Any

import torch
from torch import Tensor

from runner.check.origin import frames, is_check, is_library, is_project, place
from runner.check.reach import Found, extent, module_data, reachable
from runner.check.result import Result, failed, not_applicable, verdict
from runner.check.subject import Subject
from runner.check.trajectory import departure
from runner.check.trial import Pieces
from runner.train.clock import Clock
from runner.train.loop import Loop

CLOCK_STEPS = 6
CLOCKS = {
    "time": ("time", "perf_counter", "monotonic", "process_time", "thread_time", "clock_gettime",
             "time_ns", "perf_counter_ns", "monotonic_ns", "process_time_ns", "thread_time_ns",
             "clock_gettime_ns", "localtime", "gmtime"),
    "posix": ("times",),
    "nt": ("times",),
    "resource": ("getrusage",),
}  # fmt: skip
CLOCK_METHODS = ("datetime.now", "datetime.utcnow", "date.today", "elapsed_time")


# -- the scored splits -------------------------------------------------------------------------------


def check_splits(subject: Subject) -> Result:
    """Nothing that task or algorithm holds leads to a scored row, and other scored rows change nothing."""
    with subject.fresh():
        trial = subject.train_here(subject.pieces())
        fault = _reached(subject, trial.pieces)
    if fault is not None:
        return failed(fault)
    if trial.pieces.algorithm.uses_metrics:
        return not_applicable("nothing leads to a scored row; it uses_metrics, so scored rows do steer it")
    return verdict(_steered(subject))


def _reached(subject: Subject, pieces: Pieces) -> str | None:
    scored = scored_rows(pieces)
    extents = [extent(rows) for rows in scored.values()]
    for path, item in _held(subject, pieces):
        if item is pieces.evaluate:
            return f"{path} is the evaluation of the scored splits"
        if not isinstance(item, Tensor):
            continue
        start, end = extent(item)
        for (name, rows), (low, high) in zip(scored.items(), extents, strict=True):
            if (start < high and low < end) or _copy(item, rows):
                return f"{path} holds rows of a scored split ({name})"
    return None


def scored_rows(pieces: Pieces) -> dict[str, Tensor]:
    """The tensors of the scored splits, by how the evaluation holds them."""
    splits: Any = getattr(pieces.evaluate, "splits", pieces.evaluate)
    return {path: item for path, item in reachable({"evaluate.splits": splits}) if isinstance(item, Tensor)}


def _copy(item: Tensor, rows: Tensor) -> bool:
    return item.shape == rows.shape and item.dtype == rows.dtype and torch.equal(item.to(rows.device), rows)


def _steered(subject: Subject) -> str | None:
    pieces = subject.pieces()
    with _scrambled(list(scored_rows(pieces).values())), subject.fresh():
        other = subject.train_here(subject.pieces())
    fault = departure(subject.short, other, ("losses", "task"))
    return fault and f"other rows in the scored splits change training: {fault}"


@contextmanager
def _scrambled(tensors: list[Tensor]) -> Iterator[None]:
    """Other rows in the scored splits, for as long as this lasts."""
    saved = [tensor.clone() for tensor in tensors]
    for tensor, rows in zip(tensors, saved, strict=True):
        tensor.copy_(rows.flip(0).mul(0.5) if rows.is_floating_point() and rows.dim() > 1 else rows.flip(0))
    try:
        yield
    finally:
        for tensor, rows in zip(tensors, saved, strict=True):
            tensor.copy_(rows)


# -- the clock ---------------------------------------------------------------------------------------


def check_clock(subject: Subject) -> Result:
    """Neither a clock nor the loop is held by task, algorithm or its module, and no clock is read."""
    reads: list[str] = []
    with subject.fresh():
        pieces = subject.pieces(CLOCK_STEPS, setup=False)
        with _listening(reads):
            pieces.algorithm.setup(pieces.task)
            subject.train_here(pieces, 2)
        if reads:
            return failed(f"a clock is read: {reads[0]}")
        for path, item in _held(subject, pieces):
            if isinstance(item, (Clock, Loop)) or _is_clock(item):
                return failed(f"{path} is a clock ({getattr(item, '__name__', type(item).__name__)})")
    return verdict(None)


@contextmanager
def _listening(reads: list[str]) -> Iterator[None]:
    """Note every call of a clock by a method's code, however it was imported."""

    def profile(frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and _is_clock(called) and (guilty := _on_behalf(frame, called)) is not None:
            reads.append(f"{called.__qualname__}() at {place(guilty)}")

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(before)


def _is_clock(called: Any) -> bool:
    if not isinstance(called, (BuiltinFunctionType, MethodDescriptorType)):
        return False
    module = getattr(called, "__module__", None) or ""
    return called.__name__ in CLOCKS.get(module, ()) or called.__qualname__.endswith(CLOCK_METHODS)


def _on_behalf(frame: FrameType, called: Any) -> FrameType | None:
    """Whose read it is: None when the harness's loop, a check or a library (to log, say) asked for it."""
    if is_library(frame.f_code.co_filename) and called.__name__ != "elapsed_time":
        return None
    clock = (outer for outer in frames(frame) if outer.f_globals.get("__name__") != Clock.__module__)
    asking = next((outer for outer in clock if not is_library(outer.f_code.co_filename)), None)
    if asking is None or is_check(asking) or asking.f_globals.get("__name__") == Loop.__module__:
        return None
    return asking


def _held(subject: Subject, pieces: Pieces) -> Iterator[Found]:
    """All that task, algorithm and the modules that define its parts hold."""
    from hydra.utils import get_object

    parts = [get_object(target) for _, target in subject.targets()]
    names = {cls.__module__ for part in parts for cls in getattr(part, "__mro__", (part,))}
    modules = [sys.modules[name] for name in sorted(names) if is_project(name)]
    yield from reachable({"task": pieces.task, "algorithm": pieces.algorithm, **module_data(modules)})

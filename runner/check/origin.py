"""Whose code is it: the project's (or its user's), the harness's, or a library's?"""

from __future__ import annotations

import functools
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, ModuleType

import torch

from runner.base.paths import ROOT, is_ours

CHECKS = str(Path(__file__).parent)
TORCH = str(Path(torch.__file__).parent)
STANDARD = tuple(dict.fromkeys(sysconfig.get_path(name) for name in ("stdlib", "platstdlib")))


@functools.lru_cache(maxsize=4096)
def is_library(file: str) -> bool:
    """Whether ``file`` belongs to Python or to an installed package, or is no real file (``<string>``)."""
    if is_ours(Path(file)):
        return False
    if "site-packages" in file or "dist-packages" in file:
        return True
    return file.startswith(STANDARD) or not Path(file).is_absolute()


def is_project(module: str) -> bool:
    """Whether a module holds methods: not the harness's, not a library's, not the running script."""
    if module.partition(".")[0] in ("runner", "workloads", "__main__"):
        return False
    if module.partition(".")[0] == "algorithms":
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and not is_library(file)


def method_modules(targets: Iterator[str]) -> list[ModuleType]:
    """The loaded project modules of the packages that hold ``targets`` (dotted paths of classes)."""
    roots = {_package(target) for target in targets if is_project(target.rpartition(".")[0])}
    prefixes = tuple(f"{root}." for root in roots)
    names = [name for name in sys.modules if f"{name}.".startswith(prefixes) and is_project(name)]
    return [sys.modules[name] for name in sorted(names)]


def _package(target: str) -> str:
    module = target.rpartition(".")[0]
    return "algorithms" if module.startswith("algorithms.") else module.rpartition(".")[0] or module


def frames(start: FrameType | None) -> Iterator[FrameType]:
    """``start`` and the frames that called it, innermost first."""
    while start is not None:
        yield start
        start = start.f_back


def is_check(frame: FrameType) -> bool:
    """Whether a frame runs code of the checks."""
    return frame.f_code.co_filename.startswith(CHECKS)


def culprit(start: FrameType | None, homes: tuple[str, ...] = ()) -> FrameType | None:
    """The innermost frame that is neither a library's nor the checks' own; or that lies in ``homes``."""
    ours = (
        f
        for f in frames(start)
        if f.f_code.co_filename.startswith(homes) or not is_library(f.f_code.co_filename)
    )
    return next((f for f in ours if not is_check(f)), None)


def home(target: str) -> str | None:
    """Where the code of a library's part lies: its package's folder, of torch's its module's file."""
    defined = _module(target)  # of torch's where a library passes one of torch's on
    package, module = (importlib.util.find_spec(name) for name in (defined.partition(".")[0], defined))
    if package is None or module is None or not package.origin or not is_library(package.origin):
        return None
    return module.origin if package.origin.startswith(TORCH) else str(Path(package.origin).parent)


def _module(target: str) -> str:
    """The module that defines what ``target`` names."""
    from hydra.utils import get_object

    return getattr(get_object(target), "__module__", None) or target.rpartition(".")[0]


def place(frame: FrameType | None) -> str:
    """``file:line`` of a frame: of the project's own files the path within it, of others the name."""
    if frame is None:
        return "an unknown place"
    path = Path(frame.f_code.co_filename)
    own = path.is_relative_to(ROOT) and not is_library(str(path))  # a virtual environment may lie within it
    shown = path.relative_to(ROOT) if own else path.name
    return f"{shown}:{frame.f_lineno}"

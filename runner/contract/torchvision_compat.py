"""Importing torchvision, also where its compiled extension does not fit a CPU-only torch."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, FileFinder
from types import ModuleType

import torch

# torchvision registers further kernels for these two at import, and fails where nothing has defined them.
SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_kept: list[torch.library.Library] = []  # a definition lasts as long as its library object


def import_torchvision() -> ModuleType:
    """The ``torchvision`` package; its datasets, transforms and models work on any torch.

    The published wheel links against CUDA. On a CPU-only torch its extension does not load, and the
    import ends in ``operator torchvision::nms does not exist``; there the two operators are defined
    first, without kernels. Calling them (detection models do) remains an error. Where the
    extension loads, or on a torch with CUDA, nothing is changed.

    Raises:
        ImportError: when torchvision is not installed.
    """
    if importlib.util.find_spec("torchvision") is None:
        raise ImportError("torchvision is not installed")
    mend_torchvision()
    return importlib.import_module("torchvision")


def mend_torchvision() -> None:
    """See that ``import torchvision`` works, where it is installed."""
    if torch.version.cuda is not None or "torchvision" in sys.modules:
        return
    if importlib.util.find_spec("torchvision") is not None and not _extension_loads():
        _define_missing()


def _extension_loads() -> bool:
    """Whether the compiled operators can be loaded; afterwards they are, as torchvision itself would."""
    spec = importlib.util.find_spec("torchvision")
    assert spec is not None and spec.submodule_search_locations is not None
    for folder in spec.submodule_search_locations:
        found = FileFinder(folder, (ExtensionFileLoader, EXTENSION_SUFFIXES)).find_spec("_C")
        if found is None or found.origin is None:
            continue
        try:
            torch.ops.load_library(found.origin)
        except OSError:
            continue
        return True
    return False


def _define_missing() -> None:
    missing = [s for s in SCHEMAS if not hasattr(torch.ops.torchvision, s.partition("(")[0])]
    if missing:
        # A fragment may be added to a namespace that others define operators in too.
        library = torch.library.Library("torchvision", "FRAGMENT")
        _kept.append(library)
        for schema in missing:
            library.define(schema)

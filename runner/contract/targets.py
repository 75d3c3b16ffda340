"""What a ``_target_`` names, imported, and what that takes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from runner.contract.moved import present

PLAIN = ("torch", "runner", "algorithms", "workloads")  # packages that need nothing before they are imported


def locate(target: str) -> Any:
    """The class or function of that dotted path.

    Packages of vision models import torchvision, whose published wheel needs help on a torch without CUDA.

    Raises:
        ImportError: where there is none.
    """
    from hydra.utils import get_object

    if target.partition(".")[0] not in PLAIN:
        from runner.contract.torchvision_compat import mend_torchvision

        mend_torchvision()
    return get_object(present(target))


def arguments(function: Any) -> Mapping[str, inspect.Parameter]:
    """What a class or function takes, by name; nothing where it does not tell (of C, or no function)."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}

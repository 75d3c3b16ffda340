"""Method modules imported afresh, as a new process would: nothing left on classes or in module globals."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType

from runner.check.origin import method_modules


@contextmanager
def fresh_modules(targets: Iterable[str]) -> Iterator[None]:
    """Inside, the packages of ``targets`` are imported anew at first use; afterwards the old ones are back.

    A method's module must therefore bear being imported twice.
    """
    targets = list(targets)
    before = _take_out(method_modules(iter(targets)))
    try:
        yield
    finally:
        _take_out(method_modules(iter(targets)))
        for name, module in before.items():
            sys.modules[name] = module
            _hang_in_parent(name, module)


def _take_out(modules: list[ModuleType]) -> dict[str, ModuleType]:
    for module in modules:
        name = module.__name__
        sys.modules.pop(name, None)
        parent, _, child = name.rpartition(".")
        if parent in sys.modules and getattr(sys.modules[parent], child, None) is module:
            delattr(sys.modules[parent], child)
    return {module.__name__: module for module in modules}


def _hang_in_parent(name: str, module: ModuleType) -> None:
    parent, _, child = name.rpartition(".")
    # What is there still is something else of that name, such as the class that the module is named after.
    if parent in sys.modules and child not in vars(sys.modules[parent]):
        setattr(sys.modules[parent], child, module)

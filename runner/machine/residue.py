"""What a cell leaves behind in the process that has trained it.

A warm worker trains one cell after the other, and each is to end as if it had had a process of its own. So
the process is looked at before and behind a cell: switches are put back (:mod:`runner.machine.switches`);
what else has changed is named, and the worker is replaced. That is

- code: functions and methods that the loop, optimizers and layers call, and that are others by now,
- data of the methods' own modules, class attributes included: a counter, a list that grows, a generator,
- what importing the methods has switched: a later cell would not import them again.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import inspect
import operator
import pickle
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from types import FunctionType, ModuleType, NoneType
from typing import Any

import torch

from runner.base.errors import one_line
from runner.machine import switches

# What the loop, optimizers and layers call: modules, and packages with all that is in them.
MODULES = ("builtins", "time", "math", "random", "os", "json", "copy", "functools", "operator", "itertools",
           "collections", "contextlib", "pickle", "threading", "torch", "torch.functional", "torch._tensor",
           "torch.random", "torch.serialization", "torch.overrides", "torch._C._nn", "torch._C._linalg",
           "torch._C._fft", "torch._C._special", "numpy", "numpy.linalg", "numpy.fft")  # fmt: skip
PACKAGES = ("runner", "torch.nn", "torch.optim", "torch.autograd", "torch.utils.data", "torch.amp",
            "torch.linalg", "torch.fft", "torch.special", "torch.func", "torch._functorch",
            "numpy.random")  # fmt: skip
# Where torch wraps functions of its own when it is first used: they do what they did.
WRAPPERS = (
    "torch._compile",
    "torch._dynamo.eval_frame",
    "torch._dynamo.mutation_guard",
    "torch.optim.optimizer",
)
DESCRIPTORS = (classmethod, staticmethod, property)
SHOWN = 3  # changes that a line names

Owner = ModuleType | type
Namespace = Mapping[str, Any]


class Residue:
    """The process as it is before a cell.

    Attributes:
        settled: switches that the cell was found to have changed, and that were put back.
    """

    def __init__(self) -> None:
        self._before = switches.read()
        self._configured = dict(self._before)
        self._code = [Code(_FIRST)]
        self._imported: list[str] = []
        self._data: dict[str, Any] = {}
        self._modules: list[str] = []
        self.settled: list[str] = []

    def configured(self) -> None:
        """The runner has set what it sets for the cell: none of that is the cell's doing."""
        self._configured = switches.read()

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """What changes inside stays: a logger's threads and hooks serve the next cell, too."""
        before = switches.read()
        try:
            yield
        finally:
            now = switches.read()
            self._before, self._configured = (
                switches.moved(known, before, now) for known in (self._before, self._configured)
            )

    def imported(self, names: Iterable[str]) -> None:
        """The cell's modules are there, and nothing of them has run: see what importing them has changed."""
        now = switches.read()
        self._imported = [*switches.changed(self._configured, now, switches.HARMLESS), *self._replaced()]
        self._modules = [name for name in names if isinstance(sys.modules.get(name), ModuleType)]
        self._code.append(Code(tuple(name for name in self._modules if name not in _FIRST)))
        self._data = dict(_data(self._modules))

    def clear(self) -> list[str]:
        """Put back what can be; returns what cannot, by names that a person understands."""
        now = switches.read()
        ours = set(switches.changed(self._configured, now, switches.QUIET))
        found = [name for name in switches.changed(self._before, now, switches.QUIET) if name in ours]
        switches.put_back(self._before)
        left = list(switches.changed(self._before, switches.read(), switches.QUIET))
        self.settled = [name for name in found if name not in left]
        data = dict(_data(self._modules))
        moved = [name for name in {**self._data, **data} if self._data.get(name) != data.get(name)]
        at_import = [f"{name} (when it was imported)" for name in self._imported]
        others = (name for name in [*left, *self._replaced(), *moved] if name not in self._imported)
        return [*at_import, *dict.fromkeys(others)]

    def _replaced(self) -> Iterator[str]:
        return (name for code in self._code for name in code.replaced())


def named(changes: list[str]) -> str:
    """``torch.Tensor.add, the thread['Thread-1'] and 2 more``."""
    more = f" and {len(changes) - SHOWN:,} more" if len(changes) > SHOWN else ""
    return one_line(", ".join(changes[:SHOWN]) + more)


# -- code ------------------------------------------------------------------------------------------


class Code:
    """What names mean in modules and in their classes, at one moment.

    In three long lists: ten thousand names in a millisecond, and nothing for the garbage collector to walk.
    """

    def __init__(self, modules: tuple[str, ...]) -> None:
        self._owners = _owners(modules)
        self._sizes, self._keys, self._values = self._look()

    def _look(self) -> tuple[list[int], list[str], list[Any]]:
        spaces = [vars(owner) for owner in self._owners]
        keys: list[str] = []
        values: list[Any] = []
        for space in spaces:
            keys.extend(space)
            values.extend(space.values())
        return [*map(len, spaces)], keys, values

    def replaced(self) -> Iterator[str]:
        """Functions, classes and modules that are others by now, or stand before one that was found."""
        sizes, _, values = self._look()
        if sizes == self._sizes and all(map(operator.is_, values, self._values)):
            return
        start = 0
        for owner, size in zip(self._owners, self._sizes, strict=True):
            part = slice(start, start := start + size)
            old = dict(zip(self._keys[part], self._values[part], strict=True))
            yield from (f"{_name(owner)}.{key}" for key in _changes(owner, old))


@functools.lru_cache(maxsize=64)
def _owners(modules: tuple[str, ...]) -> tuple[Owner, ...]:
    homes = [sys.modules[name] for name in modules if isinstance(sys.modules.get(name), ModuleType)]
    classes = (value for home in homes for value in vars(home).values() if isinstance(value, type))
    own = (cls for cls in classes if cls.__module__ in modules)
    tensors = (torch.Tensor, torch._C.TensorBase) if "torch" in modules else ()
    return *homes, *tensors, *dict.fromkeys(own)


def _name(owner: Owner) -> str:
    return owner.__name__ if isinstance(owner, ModuleType) else f"{owner.__module__}.{owner.__qualname__}"


def _changes(owner: Owner, old: Namespace) -> Iterator[str]:
    new = vars(owner)
    for key in {**old, **new}:
        before = old[key] if key in old else _hidden(owner, key)
        if before is not new.get(key) and _is_code(before) and not _wraps(new.get(key), before):
            yield key


def _hidden(owner: Owner, key: str) -> Any:
    """What a new name stands before: a builtin, or what the class inherits."""
    if isinstance(owner, ModuleType):
        return None if key.startswith("__") else vars(builtins).get(key)
    return next((vars(base)[key] for base in owner.__mro__[1:] if key in vars(base)), None)


def _is_code(value: Any) -> bool:
    return callable(value) or isinstance(value, (ModuleType, *DESCRIPTORS))


def _wraps(new: Any, old: Any) -> bool:
    """Whether both are one function, in wrappers of torch's own."""
    known = set(map(id, _within(old)))
    return any(id(inner) in known for inner in _within(new)[1:])


def _within(value: Any, deep: int = 3) -> list[Any]:
    """A function, and those that it wraps, as far as torch's own wrappers go."""
    if getattr(value, "__globals__", {}).get("__name__") not in WRAPPERS or not deep:
        return [value]
    held = [getattr(value, "__wrapped__", None), *inspect.getclosurevars(value).nonlocals.values()]
    inner = (each for each in held if isinstance(each, FunctionType))
    return [value, *(found for each in inner for found in _within(each, deep - 1))]


_FIRST = tuple(
    name for name in sys.modules if name in MODULES or f"{name}.".startswith(tuple(f"{p}." for p in PACKAGES))
)


# -- data of the cell's own modules ----------------------------------------------------------------


def _data(modules: Iterable[str]) -> Iterator[tuple[str, Any]]:
    for name in modules:
        yield from _values(name, vars(sys.modules[name]), name)


def _values(where: str, space: Namespace, home: str) -> Iterator[tuple[str, Any]]:
    for key, value in list(space.items()):
        name, ours = f"{where}.{key}", getattr(value, "__module__", None) == home
        if key.startswith("__") or isinstance(value, ModuleType):
            continue
        if isinstance(value, FunctionType):
            yield from _held(name, value) if ours else ()
        elif isinstance(value, type):
            yield from _values(name, vars(value), home) if ours else ()
        else:
            yield name, _stamp(value)


def _held(name: str, function: Any) -> Iterator[tuple[str, Any]]:
    """Attributes of a function, and the defaults of its arguments, which last from one call to the next."""
    if getattr(function, "__globals__", {}).get("__name__") in WRAPPERS:
        function = function.__wrapped__
    for key, value in function.__dict__.items():
        if not key.startswith("__"):
            yield f"{name}.{key}", _stamp(value)
    for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
        if not isinstance(value, (bool, int, float, str, tuple, NoneType)):
            yield f"{name}, a default argument", _stamp(value)


def _stamp(value: Any, depth: int = 3) -> Any:
    """What compares equal as long as the value says the same.

    Of what cannot be pickled, which object it is, and the same of what it holds.
    """
    try:
        return pickle.dumps(value, 5)
    except Exception:
        return id(value), [_stamp(inner, depth - 1) for inner in _inside(value)] if depth else []


def _inside(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [*value, *value.values()]
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return list(value)
    return list(getattr(value, "__dict__", {}).values())

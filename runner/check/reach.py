"""Every object that can be reached from another by attributes, containers, closures and bound methods."""

from __future__ import annotations

import functools
import types
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from runner.check.origin import is_project

Found = tuple[str, Any]  # how it was reached, and the object
LEAVES = (str, bytes, int, float, complex, bool, type(None), types.ModuleType, type)


def reachable(roots: Mapping[str, Any]) -> Iterator[Found]:
    """Walk breadth first: the path shown is a short one. Globals and library classes are not entered."""
    queue: deque[Found] = deque(roots.items())
    seen: dict[int, Any] = {}  # holds on to what it has seen, so that an id is never used again
    while queue:
        path, item = queue.popleft()
        if isinstance(item, LEAVES) or id(item) in seen:
            continue
        seen[id(item)] = item
        yield path, item
        queue.extend((path + step, child) for step, child in _children(item))


def _children(item: Any) -> Iterator[Found]:
    if isinstance(item, Mapping):
        yield from ((f"[{key!r}]", value) for key, value in list(item.items()))
        yield from ((f".keys[{key!r}]", key) for key in list(item))
    elif isinstance(item, (list, tuple, set, frozenset, deque)):
        yield from ((f"[{index}]", value) for index, value in enumerate(list(item)))
    elif isinstance(item, weakref.ReferenceType):
        yield "()", item()
    else:
        yield from _of_callable(item)
    yield from ((f".{name}", value) for name, value in _attributes(item))


def _of_callable(item: Any) -> Iterator[Found]:
    if isinstance(item, types.FunctionType):
        yield from _closure(item)
        yield from ((f".defaults[{i}]", value) for i, value in enumerate(item.__defaults__ or ()))
        yield from ((f".defaults[{name}]", value) for name, value in (item.__kwdefaults__ or {}).items())
    elif isinstance(item, types.MethodType):
        yield from ((".__self__", item.__self__), (".__func__", item.__func__))
    elif isinstance(item, types.BuiltinMethodType):
        yield ".__self__", item.__self__
    elif isinstance(item, functools.partial):
        yield from ((".func", item.func), (".args", item.args), (".keywords", item.keywords))
    elif isinstance(item, types.GeneratorType) and item.gi_frame is not None:
        yield from ((f".locals[{name}]", value) for name, value in item.gi_frame.f_locals.items())


def _closure(function: types.FunctionType) -> Iterator[Found]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f".closure[{name}]", cell.cell_contents
        except ValueError:  # an empty cell
            continue


def _attributes(item: Any) -> Iterator[Found]:
    yield from list(getattr(item, "__dict__", {}).items())
    for cls in type(item).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(item, name):
                yield name, getattr(item, name)
        if is_project(cls.__module__):
            yield from _data((f"{cls.__name__}.{n}", v) for n, v in vars(cls).items() if n != "__dict__")


def _data(entries: Iterable[Found]) -> Iterator[Found]:
    """What is data rather than code."""
    code = (types.FunctionType, classmethod, staticmethod, property, functools.cached_property, type)
    skipped = (*code, types.GetSetDescriptorType, types.MemberDescriptorType)
    yield from ((name, value) for name, value in entries if not isinstance(value, skipped))


def module_data(modules: Iterable[types.ModuleType]) -> dict[str, Any]:
    """Module globals that are neither modules, classes nor Python functions."""
    skipped = (types.ModuleType, types.FunctionType, type)
    return {
        f"{module.__name__}.{name}": value
        for module in modules
        for name, value in list(vars(module).items())
        if not isinstance(value, skipped) and not name.startswith("__")
    }


def extent(tensor: Tensor) -> tuple[int, int]:
    """First and last byte address (exclusive) that a dense tensor touches; (0, 0) for others."""
    if tensor.layout is not torch.strided or tensor.numel() == 0 or tensor.device.type == "meta":
        return 0, 0
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    start = tensor.data_ptr()
    return start, start + (last + 1) * tensor.element_size()

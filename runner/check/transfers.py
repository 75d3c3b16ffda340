"""Copies between host and device, seen on a CPU, where the two are one.

The host is where a method makes a tensor without saying on which device, and what it writes down as "cpu". A
device that it has read off a tensor is the device.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from runner.base.paths import ROOT
from runner.check.origin import is_library

HARNESS = tuple(str(ROOT / folder) + "/" for folder in ("runner", "workloads"))  # has a device of its own
TO_HOST = {"tolist": "tolist()", "numpy": "numpy()", "__array__": "a numpy array of it", "cpu": "cpu()"}
BRINGING = ("tensor", "as_tensor", "asarray", "new_tensor")  # from numbers in Python
INDEXING = ("__getitem__", "__setitem__")
IN = "a copy to the device"


class Transfers(TorchFunctionMode):
    """Watches set-up and training: what is made at set-up is copied in a step.

    Args:
        homes: folders or files of the parts that libraries bring.

    Attributes:
        note: is told what waits; None while waiting is no fault.
    """

    def __init__(self, homes: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.homes = homes
        self.note: Callable[[str], None] | None = None
        self._devices: dict[int, torch.device] = {}  # read off tensors; held, so that an id stays one's own
        self._hosted = WeakTensorKeyDictionary()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        own = self._is_methods(sys._getframe(1).f_code.co_filename)
        what = self._copy(name, args, kwargs, own)
        if self.note is not None and what is not None:
            self.note(what)
        result = func(*args, **kwargs)
        if getattr(func, "__self__", None) is Tensor.device:
            self._devices[id(result)] = result
        if name == "to" and what == IN:
            return result.view_as(result)  # on a GPU it would be another tensor
        if isinstance(result, Tensor) and self._stays(args, kwargs, own):
            self._hosted[result] = True
        return result

    def _is_methods(self, file: str) -> bool:
        return file.startswith(self.homes) or not (is_library(file) or file.startswith(HARNESS))

    def _is_hosted(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value in self._hosted

    def _stays(self, args: Any, kwargs: Mapping[str, Any], own: bool) -> bool:
        """Whether a result lies on the host: all that it is made of does, or it is made of nothing."""
        if "pin_memory" in kwargs:  # a copy of it need not wait
            return False
        if kwargs.get("device") is not None:
            return kwargs["device"] == "cpu"
        parts = [*tensors_in((*args, *kwargs.values()))]
        return all(map(self._is_hosted, parts)) if parts else own

    def _copy(self, name: str, args: Any, kwargs: Mapping[str, Any], own: bool) -> str | None:
        """The copy that this call waits for, or None."""
        first = args[0] if args else None
        hosted = self._is_hosted(first)
        if name in TO_HOST and isinstance(first, Tensor):
            return None if hosted else TO_HOST[name]
        if name == "to":
            return self._moved(hosted, (*args[1:], *kwargs.values()), own)
        if name == "copy_" and hosted != self._is_hosted(args[1]):
            return "a copy to memory of the host" if hosted else IN
        if name in BRINGING and own and not isinstance(args[-1], Tensor) and not hosted:
            there = name == "new_tensor" or kwargs.get("device") not in (None, "cpu")
            return f"{IN} by {name}()" if there else None
        if name in INDEXING and not hosted and any(map(self._is_hosted, tensors_in(args[1:2]))):
            return f"{IN} of positions"
        return None

    def _moved(self, hosted: bool, values: Any, own: bool) -> str | None:
        """``to``: the first of its arguments that names a device, or is a tensor, says where it goes."""
        for value in values:
            if isinstance(value, (str, torch.device, Tensor)):
                host = self._is_hosted(value) if isinstance(value, Tensor) else self._is_host(value, own)
                return None if host == hosted else f"to({value!r})" if host else IN
        return None

    def _is_host(self, device: str | torch.device, own: bool) -> bool:
        if isinstance(device, str):
            return device == "cpu"
        return own and device.type == "cpu" and id(device) not in self._devices


def tensors_in(values: Any) -> Iterator[Tensor]:
    """The tensors among values, and in lists and tuples among them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors_in(value)

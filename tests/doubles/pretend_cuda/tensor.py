"""Tensors of the pretended device, and what becomes of each operation that they take part in."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from runner.check.syncs import INDEXING, waiting
from runner.check.transfers import tensors_in
from tests.doubles.pretend_cuda.log import note

CUDA = torch.device("cuda", 0)
NO_NUMPY = "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor first"
# Operations that take no number from the CPU in the place of a tensor, as arithmetic does.
STRICT = {
    "cat", "stack", "index_select", "gather", "scatter", "scatter_add", "take", "embedding", "mm", "addmm",
    "bmm", "dot", "mv", "topk", "sort", "linear", "convolution",
}  # fmt: skip
# They change a tensor's shape in place, which the wrapper would not notice.
RESHAPING = {
    "unsqueeze_", "squeeze_", "t_", "transpose_", "resize_", "set_", "as_strided_", "swapaxes_", "resize_as_",
}  # fmt: skip
Kwargs = dict[str, Any]


class Pretended(Tensor):
    """A tensor on the pretended device.

    Attributes:
        host: the tensor on the CPU that holds its values.
    """

    host: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, host: Tensor) -> Pretended:
        strided = host.layout is torch.strided
        made = torch.Tensor._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue]
            cls,
            host.size(),
            strides=host.stride() if strided else None,
            storage_offset=host.storage_offset() if strided else 0,
            dtype=host.dtype,
            layout=host.layout,
            device=CUDA,
            requires_grad=False,
        )
        made.host = host
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Kwargs | None = None) -> Any:
        return run(func, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:
        return f"Pretended({self.host!r})"

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError(NO_NUMPY)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError(NO_NUMPY)

    def tolist(self) -> Any:
        note("tolist()")
        return self.host.tolist()

    def data_ptr(self) -> int:
        return self.host.data_ptr()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.host.detach().__reduce_ex__(protocol)  # where it goes is up to whoever reads it

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) in memo:
            return memo[id(self)]
        if not self.is_leaf:
            raise RuntimeError("Only Tensors created explicitly by the user support the deepcopy protocol")
        fresh: Tensor = Pretended(self.host.detach().clone())
        if isinstance(self, torch.nn.Parameter):
            fresh = torch.nn.Parameter(fresh, self.requires_grad)
        fresh.requires_grad_(self.requires_grad)
        fresh.grad = copy.deepcopy(self.grad, memo)
        memo[id(self)] = fresh
        return fresh


class Dispatch(TorchDispatchMode):
    """Operations without a tensor of the device among their arguments: they may ask for one."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Kwargs | None = None) -> Any:
        return run(func, args, kwargs or {})


def is_cuda(device: Any) -> bool:
    """Whether that names the device; None does not."""
    return device is not None and torch.device(device).type == "cuda"


def run(func: Any, args: Any, kwargs: Kwargs) -> Any:
    """Compute ``func`` on the CPU, and refuse what a device would."""
    name, tensors = func.overloadpacket.__name__, [*tensors_in((*args, *kwargs.values()))]
    if torch.device("meta") in (kwargs.get("device"), *(t.device for t in tensors)):
        return func(*_mapped(_host, args), **_mapped(_host, kwargs))
    if name in COPIES:
        return COPIES[name](func, args, kwargs)
    if not any(isinstance(t, Pretended) for t in tensors):
        return _made(func, args, kwargs)
    _refuse_mixed(func, name, args, [t for t in tensors if not isinstance(t, Pretended)])
    if name in RESHAPING:
        raise NotImplementedError(f"the pretended device has no {name}")
    if (what := waiting(name, args, kwargs)) is not None:
        note(what)
    return _computed(func, args, kwargs)


# -- copies --------------------------------------------------------------------------------------------


def _to_copy(func: Any, args: Any, kwargs: Kwargs) -> Tensor:
    source, target = args[0], kwargs.get("device", args[0].device)
    _note_copy(source, is_cuda(target), kwargs.get("non_blocking", False))
    changes = {key: value for key, value in kwargs.items() if key not in ("device", "non_blocking")}
    copied = func(_host(source), *args[1:], **changes, device="cpu")
    return Pretended(copied) if is_cuda(target) else copied


def _copy_(func: Any, args: Any, kwargs: Kwargs) -> Tensor:
    target, source, *rest = args
    freely = rest[0] if rest else kwargs.get("non_blocking", False)
    _note_copy(source, isinstance(target, Pretended), freely and (_is_pinned(target) or _is_pinned(source)))
    func(_host(target), _host(source))
    return target


def _pinned(_func: Any, args: Any, _kwargs: Kwargs) -> Tensor:
    copied = args[0].clone()
    copied.pinned = True
    return copied


def _note_copy(source: Tensor, to_device: bool, freely: bool) -> None:
    """The host waits for a copy, unless asked not to; then too where its side is not pinned."""
    if isinstance(source, Pretended) and not to_device:
        note("a copy to the CPU")
    elif to_device and not isinstance(source, Pretended) and not (freely and _is_pinned(source)):
        note(f"a copy to the device of {tuple(source.shape)}")


def _is_pinned(tensor: Tensor) -> bool:
    return getattr(tensor, "pinned", False)


COPIES: Mapping[str, Callable[[Any, Any, Kwargs], Any]] = {
    "_to_copy": _to_copy,
    "copy_": _copy_,
    "_pin_memory": _pinned,
    "pin_memory": _pinned,
    "is_pinned": lambda _func, args, _kwargs: _is_pinned(args[0]),
}

# -- everything else -----------------------------------------------------------------------------------


def _made(func: Any, args: Any, kwargs: Kwargs) -> Any:
    """A factory's result: on the device where it was asked for, and pinned likewise."""
    result = func(*args, **_on_cpu(kwargs))
    if is_cuda(kwargs.get("device")):
        return _mapped(_wrapped, result)
    if kwargs.get("pin_memory"):
        result.pinned = True
    return result


def _computed(func: Any, args: Any, kwargs: Kwargs) -> Any:
    result = func(*_mapped(_host, args), **_mapped(_host, _on_cpu(kwargs)))
    leaves = kwargs.get("device") is not None and not is_cuda(kwargs["device"])
    written = _written(func)
    if not written:
        return result
    parts = result if len(written) > 1 else (result,)
    kept = [
        _argument(func, at, args, kwargs) if at is not None else part if leaves else _mapped(_wrapped, part)
        for at, part in zip(written, parts, strict=True)
    ]
    return tuple(kept) if len(kept) > 1 else kept[0]


@functools.cache
def _written(func: Any) -> list[int | None]:
    """For each result, the number of the argument that it is, written to; None for a fresh one."""
    arguments = [a.alias_info.before_set if _is_written(a) else set() for a in func._schema.arguments]

    def position(result: Any) -> int | None:
        if not _is_written(result):
            return None
        return next(at for at, names in enumerate(arguments) if names & result.alias_info.before_set)

    return [position(result) for result in func._schema.returns]


def _is_written(value: Any) -> bool:
    return value.alias_info is not None and value.alias_info.is_write


def _argument(func: Any, at: int, args: Any, kwargs: Kwargs) -> Any:
    return args[at] if at < len(args) else kwargs[func._schema.arguments[at].name]


def _refuse_mixed(func: Any, name: str, args: Any, others: list[Tensor]) -> None:
    """A number from the CPU may take part, and positions from there, at the price of a copy."""
    if name in INDEXING and isinstance(args[0], Pretended):
        positions = [i for i in args[1] or () if _is_tensor(i) and not isinstance(i, Pretended)]
        for each in positions:
            note(f"a copy to the device of positions {tuple(each.shape)}")
        others = [t for t in others if not any(t is each for each in positions)]
    if any(t.dim() > 0 or name.rstrip("_") in STRICT for t in others):
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found cuda:0 and cpu: {func} of "
            f"{[tuple(t.shape) for t in others]} on the CPU"
        )


def _on_cpu(kwargs: Kwargs) -> Kwargs:
    changes = {"device": torch.device("cpu")} if kwargs.get("device") is not None else {}
    return {key: value for key, value in kwargs.items() if key != "pin_memory"} | changes


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """``value`` with each leaf changed: torch's own walks through trees take longer than the operations."""
    if type(value) in (list, tuple):
        return type(value)([_mapped(change, item) for item in value])
    if type(value) is dict:
        return {key: _mapped(change, item) for key, item in value.items()}
    return change(value)


def _host(value: Any) -> Any:
    return value.host if isinstance(value, Pretended) else value


def _wrapped(value: Any) -> Any:
    return Pretended(value) if _is_tensor(value) and not isinstance(value, Pretended) else value

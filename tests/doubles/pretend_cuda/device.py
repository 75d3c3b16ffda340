"""torch, as it is where the pretended device is there."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import _foreach_supported_types
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_map

from tests.doubles.pretend_cuda.log import note
from tests.doubles.pretend_cuda.tensor import CUDA, Dispatch, Pretended, is_cuda

RealGenerator = torch.Generator
PROPERTIES = SimpleNamespace(name="a pretended GPU", uuid="pretended", total_memory=8 << 30, major=8, minor=0)


class Generator(RealGenerator):
    """A generator that says of which device it is."""

    _on: torch.device

    def __new__(cls, device: Any = "cpu") -> Generator:
        made = RealGenerator.__new__(cls, "cpu")
        made._on = CUDA if is_cuda(device) else torch.device("cpu")
        return made

    @property
    def device(self) -> torch.device:
        return self._on

    def set_state(self, new_state: Tensor) -> RealGenerator:
        _refuse_state(new_state)
        return super().set_state(new_state)


class Generators(TorchFunctionMode):
    """Refuses a generator of another device than what is drawn."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = next((each for each in (*args, *kwargs.values()) if isinstance(each, RealGenerator)), None)
        if given is not None and is_cuda(given.device) != (drawn := _draws_on_device(args, kwargs)):
            wanted = "cuda" if drawn else "cpu"
            raise RuntimeError(
                f"Expected a '{wanted}' device type for generator but found '{given.device}': {func.__name__}"
            )
        return func(*args, **kwargs)


def _draws_on_device(args: Any, kwargs: dict[str, Any]) -> bool:
    if kwargs.get("device") is not None:
        return is_cuda(kwargs["device"])
    return any(isinstance(each, Tensor) and each.is_cuda for each in (*args, *kwargs.values()))


def _refuse_state(state: Tensor) -> None:
    if isinstance(state, Pretended):
        raise TypeError("RNG state must be a torch.ByteTensor (on the CPU)")


def install() -> None:
    """Have torch know the device, for the rest of this process; :func:`library.load` came before."""
    torch._C._set_only_lift_cpu_tensors(True)
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    _foreach_supported_types.append(Pretended)
    for name, stand_in in _cuda().items():
        setattr(torch.cuda, name, stand_in)
        if hasattr(torch.cuda.random, name):
            setattr(torch.cuda.random, name, stand_in)
    torch.Generator = Generator  # pyright: ignore[reportAttributeAccessIssue]
    torch.save, torch.load = _outside(torch.save), _loader(torch.load)
    for mode in (Dispatch(), Generators()):
        mode.__enter__()


def _cuda() -> dict[str, Callable[..., Any]]:
    """What is asked of ``torch.cuda``. Its global generator is the CPU's, which checkpoints keep anyway."""

    def set_rng_state(new_state: Tensor, device: Any = None) -> None:
        _refuse_state(new_state)

    return {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "is_initialized": lambda: False,  # there is no stream and no allocator to ask about
        "is_bf16_supported": lambda *_, **__: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_name": lambda _device=None: PROPERTIES.name,
        "get_device_capability": lambda _device=None: (8, 0),
        "get_device_properties": lambda _device=None: PROPERTIES,
        "synchronize": lambda _device=None: note("torch.cuda.synchronize()"),
        "empty_cache": lambda: None,
        "max_memory_allocated": lambda _device=None: 0,
        "reset_peak_memory_stats": lambda _device=None: None,
        "get_rng_state": lambda _device=None: torch.get_rng_state(),
        "set_rng_state": set_rng_state,
        "manual_seed": lambda _seed: None,
        "manual_seed_all": lambda _seed: None,
    }


def _outside(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        with _disable_current_modes():
            return function(*args, **kwargs)

    return call


def _loader(load: Callable[..., Any]) -> Callable[..., Any]:
    """``torch.load``; ``map_location`` is a device."""

    def call(file: Any, map_location: Any = None, **kwargs: Any) -> Any:
        with _disable_current_modes():
            read = load(file, map_location="cpu", **kwargs)
        return tree_map(_placed, read) if is_cuda(map_location) else read

    return call


def _placed(value: Any) -> Any:
    return Pretended(value) if isinstance(value, Tensor) and not isinstance(value, Pretended) else value

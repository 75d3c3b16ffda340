"""What submissions import besides the specification, where AlgoPerf itself is not installed."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from algorithms.algoperf import spec

PACKAGES = ("algoperf", "algorithmic_efficiency")  # its name now, and the one that it had
LARGEST = 2**31 - 1


class PassThroughProfiler:
    """A profiler that measures nothing."""

    def __init__(self, local_rank: int | None = None) -> None:
        self.local_rank = local_rank or 0

    def set_local_rank(self, local_rank: int) -> None:
        """Nothing."""

    def start(self, action_name: str) -> None:
        """Nothing."""

    def stop(self, action_name: str) -> None:
        """Nothing."""

    @contextlib.contextmanager
    def profile(self, action_name: str) -> Iterator[str]:
        """Measure nothing."""
        yield action_name

    def summary(self) -> str:
        """Nothing."""
        return ""


def split(seed: Any, num: int = 2) -> Any:
    """``num`` seeds of two numbers each, int32, from one."""
    unsigned = [int(part) % LARGEST for part in np.atleast_1d(seed)]
    return np.random.RandomState(unsigned).randint(0, LARGEST, dtype=np.int32, size=[num, 2])


def fold_in(seed: Any, data: Any) -> list[Any]:
    """A seed with a number mixed in."""
    unsigned = [int(part) % LARGEST for part in np.atleast_1d(seed)]
    return [np.random.RandomState(unsigned).randint(0, LARGEST, dtype=np.int32), data]


def prng_key(seed: Any) -> Any:
    """The first of two seeds from one."""
    return split(seed)[0]


def update_batch_norm_fn(module: nn.Module, update_batch_norm: bool) -> None:
    """Have a batch norm keep its statistics where it is not to update them; for ``model.apply``."""
    if not isinstance(module, nn.modules.batchnorm._BatchNorm):
        return
    if not update_batch_norm:
        module.momentum_backup = getattr(module, "momentum_backup", module.momentum)  # type: ignore
        module.momentum = 0.0
    elif hasattr(module, "momentum_backup"):
        module.momentum = module.momentum_backup  # type: ignore


def shapes(model: nn.Module) -> dict[str, spec.ShapeTuple]:
    """Parameter name -> shape."""
    return {name: spec.ShapeTuple(parameter.shape) for name, parameter in model.named_parameters()}


def shard(batch: dict[str, Tensor], global_batch_size: int | None = None) -> dict[str, Tensor]:
    """The whole batch: there is one device."""
    return batch


def stand_ins(device: torch.device) -> dict[str, ModuleType]:
    """Module name -> what stands for it, for the packages that are not installed.

    Args:
        device: what ``pytorch_setup`` tells a submission to use.
    """
    found: dict[str, ModuleType] = {}
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            modules = _modules(package, device)
            found |= {package: _package(package, modules)} | {f"{package}.{k}": m for k, m in modules.items()}
    return found


def _modules(package: str, device: torch.device) -> dict[str, ModuleType]:
    def pytorch_setup() -> tuple[bool, int, torch.device, int]:
        """Whether there are several processes, which one this is, its device, and how many devices."""
        return False, 0, device, 1

    def pytorch_init(use_pytorch_ddp: bool, rank: int, profiler: Any) -> None:
        """Nothing: all is set up."""

    functions: dict[str, dict[str, Callable[..., Any]]] = {
        "pytorch_utils": {"pytorch_setup": pytorch_setup, "pytorch_init": pytorch_init,
                          "update_batch_norm_fn": update_batch_norm_fn},
        "profiler": {"PassThroughProfiler": PassThroughProfiler, "Profiler": PassThroughProfiler},
        "random_utils": {"split": split, "fold_in": fold_in, "PRNGKey": prng_key},
        "param_utils": {"pytorch_param_shapes": shapes},
        "data_utils": {"shard_and_maybe_pad_np": shard},
    }  # fmt: skip
    return {"spec": spec, **{name: _module(f"{package}.{name}", held) for name, held in functions.items()}}


def _module(name: str, held: dict[str, Any]) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(held)
    return module


def _package(name: str, modules: dict[str, ModuleType]) -> ModuleType:
    return _module(name, {**modules, "__path__": []})

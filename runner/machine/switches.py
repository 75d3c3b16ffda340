"""The switches of a process that change what later code computes: how each is read, and put back.

Of Python, the operating system, NumPy and torch; a library that is imported later has none here.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import locale
import logging
import multiprocessing
import os
import random
import resource
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.modules import module as modules

AUTOCAST = ("cpu", "cuda")


@dataclass(frozen=True)
class Switch:
    """One thing that can be read.

    Attributes:
        name: as a person would write it.
        read: its value, which ``==`` compares; a mapping is compared key by key.
        put: sets a value that ``read`` gave; None where nothing can.
        quiet: changes in the course of things: put back, and not worth a word.
        harmless: changes no number of a cell, not even where a library sets it while it is imported.
    """

    name: str
    read: Callable[[], Any]
    put: Callable[[Any], object] | None = None
    quiet: bool = False
    harmless: bool = False


def read() -> dict[str, Any]:
    """The value of every switch by its name; of one that cannot be read, why."""
    return {switch.name: _read(switch) for switch in SWITCHES}


def put_back(before: Mapping[str, Any]) -> None:
    """Set what is not as ``before`` says; what refuses stays as it is."""
    for switch in SWITCHES:
        if switch.put is not None and _read(switch) != before[switch.name]:
            with contextlib.suppress(Exception):  # read() tells what has become of it
                switch.put(before[switch.name])


def changed(before: Mapping[str, Any], now: Mapping[str, Any], but: frozenset[str]) -> Iterator[str]:
    """Names of the switches that differ, with the key where only one of many does; ``but``: without these."""
    for name, old in before.items():
        new = now[name]
        if name in but or old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            yield from (f"{name}[{k!r}]" for k in {**old, **new} if old.get(k, _NONE) != new.get(k, _NONE))
        else:
            yield name


def moved(known: Mapping[str, Any], before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """``known``, with what has changed between the other two."""
    return {name: _moved(value, before[name], now[name]) for name, value in known.items()}


def _moved(value: Any, before: Any, now: Any) -> Any:
    if before == now:
        return value
    if not (isinstance(value, dict) and isinstance(before, dict) and isinstance(now, dict)):
        return now
    gone = [key for key in before if key not in now]
    new = {key: held for key, held in now.items() if before.get(key, _NONE) != held}
    return {key: held for key, held in {**value, **new}.items() if key not in gone}


_NONE = object()


def _read(switch: Switch) -> Any:
    try:
        return switch.read()
    except Exception as error:  # torch refuses to answer where old and new names of a switch contradict
        return type(error).__name__


# -- Python and the operating system ---------------------------------------------------------------


def _environment(value: Mapping[str, str]) -> None:
    for key in [key for key in os.environ if key not in value]:
        del os.environ[key]
    os.environ.update(value)


def _handlers() -> dict[str, Any]:
    return {number.name: signal.getsignal(number) for number in signal.Signals}


def _set_handlers(value: Mapping[str, Any]) -> None:
    for name, handler in value.items():
        number = signal.Signals[name]
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def _limits() -> dict[str, tuple[int, int]]:
    return {name: resource.getrlimit(getattr(resource, name)) for name in _LIMITS}


def _set_limits(value: Mapping[str, tuple[int, int]]) -> None:
    for name, limit in value.items():
        resource.setrlimit(getattr(resource, name), limit)


def _set_filters(value: list[Any]) -> None:
    warnings.filters[:] = value  # pyright: ignore[reportIndexIssue]
    warnings._filters_mutated()  # pyright: ignore[reportAttributeAccessIssue]


def _root_logger() -> tuple[Any, ...]:
    return logging.root.level, logging.root.manager.disable, tuple(logging.root.handlers)


def _set_root_logger(value: tuple[Any, ...]) -> None:
    logging.root.setLevel(value[0])
    logging.root.manager.disable = value[1]
    logging.root.handlers[:] = value[2]


def _threads() -> dict[str, int]:
    return {thread.name: id(thread) for thread in threading.enumerate()}


def _numpy_state() -> tuple[Any, ...]:
    kind, keys, *rest = np.random.get_state(legacy=True)
    return kind, keys.tobytes(), *rest  # pyright: ignore[reportAttributeAccessIssue]


def _set_numpy_state(value: tuple[Any, ...]) -> None:
    kind, keys, *rest = value
    np.random.set_state((kind, np.frombuffer(keys, dtype=np.uint32), *rest))


def _attribute(owner: Any, key: str, name: str, quiet: bool = False) -> Switch:
    return Switch(f"{name}.{key}", lambda: getattr(owner, key), lambda v: setattr(owner, key, v), quiet)


def _list(owner: Any, key: str, name: str) -> Switch:
    def put(value: list[Any]) -> None:
        getattr(owner, key)[:] = value

    return Switch(f"{name}.{key}", lambda: list(getattr(owner, key)), put)


_LIMITS = [name for name in dir(resource) if name.startswith("RLIMIT_")]
PYTHON = (
    Switch("os.environ", lambda: dict(os.environ), _environment, quiet=True),
    Switch("the working directory", os.getcwd, os.chdir),
    Switch("the resource limit", _limits, _set_limits),
    Switch("the handler of signal", _handlers, _set_handlers),
    Switch("the alarm timer", lambda: signal.getitimer(signal.ITIMER_REAL)[0] > 0,
           lambda _: signal.setitimer(signal.ITIMER_REAL, 0)),
    Switch("the locale", lambda: locale.setlocale(locale.LC_ALL),
           lambda value: locale.setlocale(locale.LC_ALL, value)),
    Switch("sys.getrecursionlimit()", sys.getrecursionlimit, sys.setrecursionlimit),
    Switch("sys.getswitchinterval()", sys.getswitchinterval, sys.setswitchinterval),
    Switch("sys.gettrace()", sys.gettrace, sys.settrace),
    Switch("sys.getprofile()", sys.getprofile, sys.setprofile),
    Switch("gc.isenabled()", gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
    Switch("gc.get_threshold()", gc.get_threshold, lambda value: gc.set_threshold(*value)),
    _list(gc, "callbacks", "gc"),
    *(_list(sys, key, "sys") for key in ("path", "meta_path", "path_hooks")),
    *(_attribute(sys, key, "sys") for key in ("stdin", "stdout", "stderr", "excepthook", "unraisablehook")),
    Switch("warnings.filters", lambda: list(warnings.filters), _set_filters, quiet=True, harmless=True),
    Switch("the root logger", _root_logger, _set_root_logger, quiet=True, harmless=True),
    Switch("multiprocessing.get_start_method()", lambda: multiprocessing.get_start_method(allow_none=True),
           lambda value: multiprocessing.set_start_method(value, force=True)),
    Switch("the child process", lambda: {each.name: each.pid for each in multiprocessing.active_children()}),
    Switch("the thread", _threads),
    Switch("random.getstate()", random.getstate, random.setstate, quiet=True, harmless=True),
    Switch("numpy.geterr()", np.geterr, lambda value: np.seterr(**value)),
    Switch("numpy.random.get_state()", _numpy_state, _set_numpy_state, quiet=True, harmless=True),
)  # fmt: skip

# -- torch -----------------------------------------------------------------------------------------


optimizers: Any = sys.modules["torch.optim.optimizer"]
functorch: Any = getattr(torch._C, "_functorch")  # noqa: B009 - unknown to the stubs, as the next one
autograd: Any = getattr(torch._C, "_autograd")  # noqa: B009


def _hooks() -> dict[str, Any]:
    found = {}
    for home in (modules, optimizers):
        for name in [name for name in vars(home) if name.startswith("_global_")]:
            value = getattr(home, name)
            found[name] = dict(value) if isinstance(value, dict) else value
    return found


def _set_hooks(value: Mapping[str, Any]) -> None:
    for name, hooks in value.items():
        home = modules if hasattr(modules, name) else optimizers
        if isinstance(hooks, dict):
            kept = getattr(home, name)
            kept.clear()
            kept.update(hooks)
        else:
            setattr(home, name, hooks)


def _nesting() -> int:
    torch.autocast_increment_nesting()
    return torch.autocast_decrement_nesting()


def _flushes_denormals() -> bool:
    return _TINY * 0.5 == 0.0


def _modes() -> list[Any]:
    """What stands between a call of torch and the kernel; contexts that were entered and never left."""
    c = torch._C
    return [
        c._len_torch_function_stack(), c._len_torch_dispatch_stack(), c._is_torch_function_enabled(),
        str(c._dispatch_tls_local_include_set()), str(c._dispatch_tls_local_exclude_set()),
        functorch.peek_interpreter_stack() is None,
    ]  # fmt: skip


def _default_device() -> torch.device | None:
    context = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    return None if context is None else context.device


def _current_cuda() -> tuple[int, int]:
    """Device and stream; an error where the device answers no more, as after an assertion on it."""
    if not torch.cuda.is_initialized():
        return 0, 0  # what it begins with
    torch.cuda.synchronize()
    return torch.cuda.current_device(), torch.cuda.current_stream().cuda_stream


def _of_torch(name: str, quiet: bool = False) -> Iterator[Switch]:
    """The switch ``torch.<name>``; none, where this version of torch has none."""
    *path, key = name.split(".")
    owner = functools.reduce(lambda found, part: getattr(found, part, None), path, torch)
    try:
        getattr(owner, key)
    except AttributeError:
        return
    except RuntimeError:  # it is there, and answers nothing now
        pass
    yield _attribute(owner, key, ".".join(["torch", *path]), quiet)


def _of_autocast(device: str) -> Iterator[Switch]:
    yield Switch(f"torch.is_autocast_enabled({device!r})", lambda: torch.is_autocast_enabled(device),
                 lambda value: torch.set_autocast_enabled(device, value))  # fmt: skip
    yield Switch(f"torch.get_autocast_dtype({device!r})", lambda: torch.get_autocast_dtype(device),
                 lambda value: torch.set_autocast_dtype(device, value))  # fmt: skip


_TINY = 1e-308
_BACKENDS = (
    "cudnn.enabled", "cudnn.benchmark_limit", "cudnn.deterministic", "cudnn.allow_tf32",
    "mkldnn.enabled", "mkldnn.deterministic", "mkldnn.allow_tf32",
    "cuda.matmul.allow_tf32", "cuda.matmul.allow_fp16_reduced_precision_reduction",
    "cuda.matmul.allow_bf16_reduced_precision_reduction", "cuda.matmul.allow_fp16_accumulation",
    "opt_einsum.enabled", "opt_einsum.strategy", "quantized.engine",
    "fp32_precision", "cudnn.fp32_precision", "cudnn.conv.fp32_precision", "cudnn.rnn.fp32_precision",
    "cuda.matmul.fp32_precision", "mkldnn.fp32_precision", "mkldnn.matmul.fp32_precision",
    "mkldnn.conv.fp32_precision", "mkldnn.rnn.fp32_precision",
)  # fmt: skip
_cuda = torch.backends.cuda
TORCH = (
    Switch("torch.get_float32_matmul_precision()", torch.get_float32_matmul_precision,
           torch.set_float32_matmul_precision),
    *(switch for name in _BACKENDS for switch in _of_torch(f"backends.{name}")),
    *_of_torch("backends.cudnn.benchmark", quiet=True),  # these the runner itself sets for each cell
    *_of_torch("utils.deterministic.fill_uninitialized_memory", quiet=True),
    Switch("torch.get_num_threads()", torch.get_num_threads, torch.set_num_threads, quiet=True),
    Switch("torch.get_num_interop_threads()", torch.get_num_interop_threads),
    Switch("torch.get_deterministic_debug_mode()", torch.get_deterministic_debug_mode,
           torch.set_deterministic_debug_mode, quiet=True),
    Switch("torch.backends.nnpack", torch._C._get_nnpack_enabled, torch._C._set_nnpack_enabled),
    Switch("torch.backends.mha.get_fastpath_enabled()", torch.backends.mha.get_fastpath_enabled,
           torch.backends.mha.set_fastpath_enabled),
    Switch("torch.backends.cuda.flash_sdp_enabled()", _cuda.flash_sdp_enabled, _cuda.enable_flash_sdp),
    Switch("torch.backends.cuda.math_sdp_enabled()", _cuda.math_sdp_enabled, _cuda.enable_math_sdp),
    Switch("torch.backends.cuda.mem_efficient_sdp_enabled()", _cuda.mem_efficient_sdp_enabled,
           _cuda.enable_mem_efficient_sdp),
    Switch("torch.backends.cuda.cudnn_sdp_enabled()", _cuda.cudnn_sdp_enabled, _cuda.enable_cudnn_sdp),
    Switch("torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()",
           _cuda.fp16_bf16_reduction_math_sdp_allowed, _cuda.allow_fp16_bf16_reduction_math_sdp),
    Switch("torch.backends.cuda.preferred_linalg_library()", _cuda.preferred_linalg_library,
           _cuda.preferred_linalg_library),
    Switch("the flushing of denormal numbers", _flushes_denormals, torch.set_flush_denormal),
    Switch("torch.get_default_dtype()", torch.get_default_dtype, torch.set_default_dtype),
    Switch("torch.set_default_device()", _default_device, torch.set_default_device),
    Switch("torch.is_grad_enabled()", torch.is_grad_enabled, torch._C._set_grad_enabled),
    Switch("torch.is_inference_mode_enabled()", torch.is_inference_mode_enabled),
    Switch("torch.is_anomaly_enabled()",
           lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
           lambda value: torch.set_anomaly_enabled(*value)),
    Switch("torch.autograd.set_multithreading_enabled()", torch._C._is_multithreading_enabled,
           torch._C._set_multithreading_enabled),
    Switch("torch.autograd.forward_ad", lambda: (torch.autograd.forward_ad._current_level,
                                                 torch._C._is_fwd_grad_enabled())),
    Switch("torch.autograd.graph.saved_tensors_hooks",
           lambda: (autograd._top_saved_tensors_default_hooks(True),
                    autograd._saved_tensors_hooks_is_enabled())),
    *(switch for device in AUTOCAST for switch in _of_autocast(device)),
    Switch("torch.is_autocast_cache_enabled()", torch.is_autocast_cache_enabled,
           torch.set_autocast_cache_enabled),
    Switch("torch.autocast, entered and not left", _nesting),
    Switch("a mode of torch, entered and not left", _modes),
    Switch("the global hook of torch", _hooks, _set_hooks),
    Switch("torch.multiprocessing.get_sharing_strategy()", torch.multiprocessing.get_sharing_strategy,
           torch.multiprocessing.set_sharing_strategy),
    Switch("torch.distributed.is_initialized()",
           lambda: torch.distributed.is_available() and torch.distributed.is_initialized(),
           lambda on: on or torch.distributed.destroy_process_group()),
    Switch("the current CUDA device and stream", _current_cuda),
    Switch("torch.get_rng_state()", lambda: torch.get_rng_state().numpy().tobytes(),
           lambda value: torch.set_rng_state(torch.frombuffer(bytearray(value), dtype=torch.uint8)),
           quiet=True, harmless=True),
)  # fmt: skip
SWITCHES = PYTHON + TORCH
QUIET = frozenset(switch.name for switch in SWITCHES if switch.quiet)
HARMLESS = frozenset(switch.name for switch in SWITCHES if switch.harmless)

"""Methods that leave the process otherwise than they found it."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.doubles.faults import Plain


class Functions(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


class Dispatches(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


SEEN: list[int] = []
DRAWS = np.random.default_rng(0)


def remembers(seen: list[int] = []) -> None:  # noqa: B006 - the mistake that is planted
    seen.append(1)


def undo(function: Callable[[], Any]) -> None:
    """To be called behind the test: kept where no method's module is, and nobody looks."""
    importlib.import_module("tests.doubles.undone").FUNCTIONS.append(function)


def enter(context: Any) -> None:
    context.__enter__()
    undo(lambda: context.__exit__(None, None, None))


def patch(owner: Any, name: str) -> None:
    """Put a function that does something else in the place of one of torch's."""
    before = getattr(owner, name)
    own = name in vars(owner)

    def patched(*args: Any, **kwargs: Any) -> Any:
        found = before(*args, **kwargs)
        return found * 1.01 if isinstance(found, torch.Tensor) and found.is_floating_point() else found

    setattr(owner, name, patched)
    undo(lambda: setattr(owner, name, before) if own else delattr(owner, name))


def halves(_module: Any, _inputs: Any, output: Any) -> Any:
    return output * 0.5


def thread() -> None:
    end = threading.Event()
    worker = threading.Thread(target=end.wait, name="straggler")  # no daemon: it would keep the process up
    worker.start()
    undo(lambda: (end.set(), worker.join()))


def child() -> None:
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,), name="orphan")
    process.start()
    undo(lambda: (process.kill(), process.join()))


@contextlib.contextmanager
def disabled() -> Iterator[None]:
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x):
        yield


class Counter:
    count = 0

    @classmethod
    def up(cls) -> None:
        cls.count += 1


# What is put back, and what it is called in the cell's log.
SETTLED: dict[str, tuple[Callable[[], Any], str]] = {
    "matmul": (lambda: torch.set_float32_matmul_precision("medium"), "torch.get_float32_matmul_precision()"),
    "mkldnn": (lambda: setattr(torch.backends.mkldnn, "enabled", False), "torch.backends.mkldnn.enabled"),
    "tf32": (lambda: setattr(torch.backends.cudnn.rnn, "fp32_precision", "tf32"),  # the new name for the old
             "torch.backends.cudnn.allow_tf32"),
    "dtype": (lambda: torch.set_default_dtype(torch.float64), "torch.get_default_dtype()"),
    "device": (lambda: torch.set_default_device("cpu"), "torch.set_default_device()"),
    "hook": (lambda: torch.nn.modules.module.register_module_forward_hook(halves),
             "the global hook of torch['_global_forward_hooks']"),
    "optimizer hook": (lambda: register_optimizer_step_post_hook(lambda *_: None),
                       "the global hook of torch['_global_optimizer_post_hooks']"),
    "no grad": (lambda: torch.set_grad_enabled(False), "torch.is_grad_enabled()"),
    "anomaly": (lambda: torch.autograd.set_detect_anomaly(True), "torch.is_anomaly_enabled()"),
    "autocast flag": (lambda: torch.set_autocast_enabled("cpu", True), "torch.is_autocast_enabled('cpu')"),
    "denormals": (lambda: torch.set_flush_denormal(True), "the flushing of denormal numbers"),
    "folder": (lambda: os.chdir("/"), "the working directory"),
    "path": (lambda: sys.path.insert(0, "/nowhere"), "sys.path"),
    "recursion": (lambda: sys.setrecursionlimit(5000), "sys.getrecursionlimit()"),
    "signal": (lambda: signal.signal(signal.SIGUSR2, signal.SIG_IGN), "the handler of signal['SIGUSR2']"),
    "numpy": (lambda: np.seterr(over="raise"), "numpy.geterr()['over']"),
}  # fmt: skip
# What the process is replaced for.
LEFT: dict[str, tuple[Callable[[], Any], str]] = {
    "autocast": (lambda: enter(torch.autocast("cpu", dtype=torch.bfloat16)), "torch.autocast"),
    "function mode": (lambda: enter(Functions()), "a mode of torch"),
    "dispatch mode": (lambda: enter(Dispatches()), "a mode of torch"),
    "inference mode": (lambda: enter(torch.inference_mode()), "torch.is_inference_mode_enabled()"),
    "saved tensors": (lambda: enter(disabled()), "torch.autograd.graph.saved_tensors_hooks"),
    "tensor method": (lambda: patch(torch.Tensor, "mul"), "torch.Tensor.mul"),
    "function": (lambda: patch(torch, "_foreach_add_"), "torch._foreach_add_"),
    "functional": (lambda: patch(torch.nn.functional, "linear"), "torch.nn.functional.linear"),
    "layer": (lambda: patch(torch.nn.Linear, "forward"), "torch.nn.modules.linear.Linear.forward"),
    "call of a layer": (
        lambda: patch(torch.nn.Linear, "__call__"),
        "torch.nn.modules.linear.Linear.__call__",
    ),
    "optimizer": (lambda: patch(torch.optim.Adam, "zero_grad"), "torch.optim.adam.Adam.zero_grad"),
    "clock": (lambda: patch(time, "perf_counter"), "time.perf_counter"),
    "loop": (lambda: patch(importlib.import_module("runner.train.loop"), "hits"), "runner.train.loop.hits"),
    "builtin": (lambda: patch(importlib.import_module("builtins"), "sum"), "builtins.sum"),
    "thread": (thread, "the thread['straggler']"),
    "child": (child, "the child process['orphan']"),
    "class attribute": (Counter.up, "tests.doubles.leavers.Counter.count"),
    "list": (lambda: SEEN.append(1), "tests.doubles.leavers.SEEN"),
    "default": (remembers, "tests.doubles.leavers.remembers, a default argument"),
    "generator": (DRAWS.random, "tests.doubles.leavers.DRAWS"),
}


class Leaver(Plain):
    """SGD that does one of these things in its last step of forty."""

    def __init__(self, params: object, lr: float = 0.1, what: str = "") -> None:
        super().__init__(params, lr=lr)
        self.what = what

    def step(self, closure: None = None) -> None:
        super().step()
        if self.calls == 40:
            (SETTLED | LEFT)[self.what][0]()

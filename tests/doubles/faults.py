"""Plugins that go wrong in the ways plugins do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from runner.base.errors import UserError
from runner.logs import Logger


class Plain(torch.optim.SGD):
    """SGD that calls :meth:`go_wrong` at its sixth step, the first that no warm-up makes."""

    def __init__(self, params: object, lr: float = 0.1, **_others: object) -> None:
        super().__init__(params, lr=lr)  # pyright: ignore[reportArgumentType]
        self.calls = 0

    def step(self, closure: None = None) -> None:
        self.calls += 1
        if self.calls == 6:
            self.go_wrong()
        super().step()

    def go_wrong(self) -> None:
        pass


class Raises(Plain):
    def go_wrong(self) -> None:
        raise ZeroDivisionError("the plugin's own mistake")


class SpeechlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class RaisesSpeechless(Plain):
    def go_wrong(self) -> None:
        raise SpeechlessError


class SpeechlessUserError(UserError):
    __str__ = SpeechlessError.__str__


class SpeechlessMemoryError(MemoryError):
    __str__ = SpeechlessError.__str__


class RaisesSpeechlessUserError(Plain):
    def go_wrong(self) -> None:
        raise SpeechlessUserError


class RaisesSpeechlessMemoryError(Plain):
    def go_wrong(self) -> None:
        raise SpeechlessMemoryError


class RaisesAtLength(Plain):
    def go_wrong(self) -> None:
        raise ValueError("at length " * 10_000_000)


class RaisesAtTheBase(Plain):
    def go_wrong(self) -> None:
        raise GeneratorExit("no Exception")


class RaisesHalfACharacter(Plain):
    def go_wrong(self) -> None:
        raise ValueError("half a character: \ud800")


class Wanders(Plain):
    def go_wrong(self) -> None:
        os.chdir("/")


class Exits(Plain):
    def go_wrong(self) -> None:
        sys.exit(7)


class HardExits(Plain):
    def go_wrong(self) -> None:
        os._exit(3)


class Killed(Plain):
    def go_wrong(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Segfaults(Plain):
    def go_wrong(self) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)


class OutOfMemory(Plain):
    def go_wrong(self) -> None:
        raise torch.OutOfMemoryError("planted")


class LibraryOutOfMemory(Plain):
    def go_wrong(self) -> None:
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


class NotReproducible(Plain):
    def go_wrong(self) -> None:
        raise RuntimeError(
            "cumsum_cuda_kernel does not have a deterministic implementation, but you set "
            "'torch.use_deterministic_algorithms(True)'."
        )


class Explodes(Plain):
    """Turns the weights into NaN."""

    def go_wrong(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.data.fill_(float("nan"))


class Prints(Plain):
    def go_wrong(self) -> None:
        print("a word from the plugin")


class Babbles(Plain):
    """Prints 60 MB, from C and from a child process, and a last word."""

    def go_wrong(self) -> None:
        os.write(2, b"from C\n" * 3_000_000)
        subprocess.run(["head", "-c", "40000000", "/dev/zero"], check=True)
        print("a last word", flush=True)


class Hoarder:
    """A sampler that hands out its first batch for ever."""

    def __init__(self) -> None:
        self.batch = None

    def __call__(self, task: object) -> object:
        if self.batch is None:
            self.batch = task.data.next()  # pyright: ignore[reportAttributeAccessIssue]
        return self.batch


class HalfALogger(Logger):
    """A logger that asks for more than there is."""

    def row(self, row: Mapping[str, Any]) -> None:
        print(row["loss"])


class Tells(Plain):
    """Prints where it runs."""

    def go_wrong(self) -> None:
        cores = sorted(os.sched_getaffinity(0))
        print(json.dumps({"gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), "cores": cores, "pid": os.getpid()}))


class KilledOnce(Plain):
    """Takes its process down, unless it has done so before in this folder."""

    def go_wrong(self) -> None:
        mark = Path(os.environ["KILLED_ONCE"])
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class Hangs(Plain):
    """Never comes back, whatever Python's signal handlers say."""

    def go_wrong(self) -> None:
        print("hanging", flush=True)
        while True:
            time.sleep(60)


class HangsLater(Plain):
    """The same, once there has been a checkpoint."""

    def step(self, closure: None = None) -> None:
        super().step()
        time.sleep(0.01)
        if self.calls == 30:
            Hangs.go_wrong(self)  # pyright: ignore[reportArgumentType]


class HangsAtSetUp(Plain):
    """Deaf to every signal but SIGKILL, and not alone."""

    def __init__(self, params: object, lr: float = 0.1) -> None:
        super().__init__(params, lr=lr)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        threading.Thread(target=time.sleep, args=(600,)).start()
        if os.fork() == 0:
            time.sleep(600)
            os._exit(0)
        print("hanging", flush=True)
        time.sleep(600)


class Devours(Plain):
    """Takes all the memory that there is."""

    def go_wrong(self) -> None:
        taken = []
        while True:
            taken.append(bytearray(os.urandom(1 << 20)) * 16)


class KilledWithAChild(Plain):
    """Dies, while a process that it has forked lives on with its files."""

    def go_wrong(self) -> None:
        if os.fork() == 0:
            time.sleep(600)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)

"""Parts that keep in their state what a checkpoint can hold, and what it cannot."""

from __future__ import annotations

import enum
import math
from fractions import Fraction
from typing import Any

import numpy as np
import torch


class Kept(torch.optim.SGD):
    """SGD with something in its first group."""

    kept: Any = None

    def __init__(self, params: object, lr: float = 0.1, **_others: object) -> None:
        super().__init__(params, lr=lr)  # pyright: ignore[reportArgumentType]
        self.param_groups[0]["kept"] = self.kept


class Numpy(Kept):
    """Lives on NumPy's numbers: the learning rate itself is one, of single precision, and falls."""

    kept = np.arange(3.0)

    def step(self, closure: None = None) -> None:
        self.param_groups[0]["lr"] = np.float32(self.param_groups[0]["lr"]) * np.float32(0.99)
        super().step()


class Mode(enum.Enum):
    FAST = 1


class Exact(Kept):
    kept = Fraction(1, 3)


class Memory:
    """Knows no equality; what it holds steers training."""

    def __init__(self) -> None:
        self.scales = [torch.ones(())]


class Objects(torch.optim.SGD):
    """Keeps a mode and an object that it learns in, as SCION and Scalable Shampoo do."""

    def __init__(self, params: object, lr: float = 0.1) -> None:
        super().__init__(params, lr=lr)  # pyright: ignore[reportArgumentType]
        self.param_groups[0]["mode"] = Mode.FAST

    def step(self, closure: None = None) -> None:
        assert self.param_groups[0]["mode"] is Mode.FAST
        for p in self.param_groups[0]["params"]:
            memory = self.state[p].setdefault("memory", Memory())
            memory.scales.append(memory.scales[-1] * 0.9)
            p.grad.mul_(memory.scales[-1])
        super().step()


class Lambda(Kept):
    kept = staticmethod(lambda step: step)


def numpy_cosine(progress: float) -> float:
    """A schedule that computes in NumPy."""
    return 0.5 * (1 + np.cos(np.pi * progress))


class NumpyCosine:
    """The same as a part."""

    def __call__(self, progress: float) -> float:
        return numpy_cosine(progress)


class Cosine:
    """The same in Python's numbers."""

    def __call__(self, progress: float) -> float:
        return 0.5 * (1 + math.cos(math.pi * progress))


class TwoModes(torch.optim.SGD):
    """SGD that wants zeros evaluated, as far as it has stepped; strict about its modes."""

    def __init__(self, params: object, lr: float = 0.1) -> None:
        super().__init__(params, lr=lr)  # pyright: ignore[reportArgumentType]
        self.param_groups[0]["training"] = False

    def step(self, closure: None = None) -> None:
        assert self.param_groups[0]["training"], "a step in eval mode"
        super().step()
        for p in self.param_groups[0]["params"]:
            self.state[p]["seen"] = True

    def eval(self) -> None:
        assert self.param_groups[0]["training"], "eval() in eval mode"
        self.param_groups[0]["training"] = False
        for p in self.param_groups[0]["params"]:
            assert self.state[p]["seen"]
            self.state[p]["kept"] = p.detach().clone()
            p.data.zero_()

    def train(self) -> None:
        self.param_groups[0]["training"] = True
        for p in self.param_groups[0]["params"]:
            if "kept" in self.state[p]:
                p.data.copy_(self.state[p].pop("kept"))


class Present:
    """An average of nothing but the present weights."""

    def update(self, task: object) -> None: ...

    def swap_in(self, task: object) -> None: ...

    def swap_out(self, task: object) -> None: ...

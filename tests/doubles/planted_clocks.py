"""Parts that read a clock, in a module of their own: what it imports counts as theirs."""

from __future__ import annotations

import datetime
import time
from time import perf_counter

from torch import Tensor

from runner.train.clock import Clock
from tests.doubles.card import card


@card()
class Watches:
    """Reads a clock that it imported by name."""

    def __call__(self, params: list[Tensor], grads: list[Tensor]) -> None:
        self.now = perf_counter()


@card()
class Waits:
    """Reads a clock by its module."""

    def __call__(self, params: list[Tensor], grads: list[Tensor]) -> None:
        self.now = time.monotonic_ns()


@card()
class Rarely:
    """Holds a clock without reading it, so far."""

    def __init__(self) -> None:
        self.later = time.process_time

    def __call__(self, params: list[Tensor], grads: list[Tensor]) -> None:
        pass


@card()
class Borrows:
    """Makes a clock of the harness's kind, reads it and lets it go."""

    def __call__(self, params: list[Tensor], grads: list[Tensor]) -> None:
        Clock().switch("train")


@card()
class Dates:
    """Asks for the date."""

    def __call__(self, params: list[Tensor], grads: list[Tensor]) -> None:
        datetime.datetime.now()

"""Does the clock see what the device does, on the account that has to pay for it?"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from runner.contract.instantiate import build_part
from runner.logs import Logger
from runner.machine import machine
from runner.train.clock import Clock
from runner.train.loop import Loop, Plan
from scripts.bench_loop import Job, Observer
from scripts.gpu_checks.unit import Broken, Facts, Place, Unit

STEPS, EVALUATIONS = 8, 5  # the last of which looks at the test split, too
PAUSE = 0.05  # seconds, each time
CLOSE = 0.01  # of events' seconds
LEAST = 2.0  # seconds to train for, to compare seconds
WORKLOAD = ("workload=digits", "algorithm=adamw")
ACCOUNTS = {
    "step": ("train", STEPS),
    "enter_eval": ("swap", EVALUATIONS),
    "evaluation": ("eval", EVALUATIONS + 1),
}


def units() -> Mapping[str, Unit]:
    """A pause of the device in each place; and CUDA's own events."""
    planted = {f"pause-in-{where}": partial(paused, where) for where in ACCOUNTS}
    return {**planted, "events": events}


def paused(where: str, place: Place) -> Facts:
    """What the device does in a place is booked on the place's account, and on no other."""
    pause = pauses(place)
    plain, slow = accounts(place, "", pause), accounts(place, where, pause)
    account, times = ACCOUNTS[where]
    extra = {name: slow[name] - plain[name] for name in slow}
    wanted = times * PAUSE
    elsewhere = sum(abs(extra[name]) for name, _ in ACCOUNTS.values() if name != account)
    if not 0.9 * wanted < extra[account] < 1.5 * wanted or elsewhere > 0.5 * wanted:
        raise Broken(f"{wanted:.2f} s of pauses in {where}: the accounts grew by {_shown(extra)}")
    return {"planted_seconds": wanted, "extra": extra}


def pauses(place: Place) -> Callable[[], None]:
    """Keeps the device busy for :data:`PAUSE` seconds; a GPU without waiting for it."""
    if place.device == "cpu":
        return partial(time.sleep, PAUSE)
    cycles = 100_000_000
    torch.cuda._sleep(cycles)
    torch.cuda.synchronize()
    started = time.perf_counter()
    torch.cuda._sleep(cycles)
    torch.cuda.synchronize()
    return partial(torch.cuda._sleep, int(cycles * PAUSE / (time.perf_counter() - started)))


def accounts(place: Place, where: str, pause: Callable[[], None]) -> dict[str, float]:
    """The clock's accounts of a short run with the pause planted in ``where``."""
    clock = Clock(machine.synchronizer(place.torch_device))
    loop = _loop(place, clock, STEPS)
    if where == "evaluation":
        loop.evaluate = _behind(pause, loop.evaluate)
    elif where:
        setattr(loop.algorithm, where, _behind(pause, getattr(loop.algorithm, where)))
    loop.run()
    return dict(clock.accounts)


def events(place: Place) -> Facts:
    """Seconds between CUDA's own events around training against the ``train`` account."""
    place.needs_gpu("events are CUDA's")
    _loop(place, Clock(machine.synchronizer(place.torch_device)), STEPS).run()  # kernels are there
    steps, seconds, recorded = STEPS, 0.0, 0.0
    while seconds < LEAST and steps < 1_000_000:
        steps *= 4
        clock = Recorded(machine.synchronizer(place.torch_device))
        _loop(place, clock, steps).run()
        seconds, recorded = clock.accounts["train"], clock.seconds()
    off = abs(seconds - recorded) / recorded
    if off > CLOSE:
        raise Broken(f"events say {recorded:.3f} s, the train account {seconds:.3f} s: {off:.1%} off")
    return {"steps": steps, "events_seconds": recorded, "train_seconds": seconds, "off": off}


class Recorded(Clock):
    """A clock beside which CUDA's events are recorded where training begins and ends."""

    def __init__(self, synchronize: Callable[[], object]) -> None:
        super().__init__(synchronize)
        self._spans: list[tuple[Any, Any]] = []

    def switch(self, account: str) -> str:
        """As the clock does, with an event on either side of ``train``."""
        if self.account == "train" and account != "train":
            self._spans[-1][1].record()
        before = super().switch(account)
        if account == "train" and before != "train":
            self._spans.append((torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)))
            self._spans[-1][0].record()
        return before

    def seconds(self) -> float:
        """Between the events, all spans together."""
        torch.cuda.synchronize()
        return sum(start.elapsed_time(end) for start, end in self._spans) / 1000


def _loop(place: Place, clock: Clock, steps: int) -> Loop:
    """A real loop over the workload, set up and ready to run, with :data:`EVALUATIONS`."""
    machine.configure(1, deterministic=False)
    job = Job.of([*WORKLOAD, f"device={place.device}"], steps)
    torch.manual_seed(0)
    task, evaluate = job.workload.build(0, job.device)
    algorithm = build_part("algorithm", job.config["algorithm"], prefix="")
    task.model.train()
    algorithm.setup(task)
    every = task.info.budget_samples // (EVALUATIONS - 1)
    return Loop(task, algorithm, evaluate, Plan(every, stop_at_target=False), clock, Observer(Logger()))


def _behind(pause: Callable[[], None], function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        pause()
        return function(*args)

    return call


def _shown(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:+.2f} s" for name, value in seconds.items() if abs(value) >= 0.005)

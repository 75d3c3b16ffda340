"""A short training run through the harness's own loop, with a view of every step."""

from __future__ import annotations

import functools
import io
import json
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from runner.contract.algorithm import Algorithm
from runner.contract.generators import seed_globals
from runner.contract.instantiate import build_part
from runner.contract.seeding import cell_seed
from runner.contract.task import Task
from runner.train import checkpoint
from runner.train.clock import Clock
from runner.train.loop import Evaluate, Loop, Plan
from runner.train.warmup import warm_up

TIMES = ("seconds", "clock/")


@dataclass
class Pieces:
    """One cell, built and set up, about to train."""

    task: Task
    algorithm: Algorithm
    evaluate: Evaluate
    workload: Any


@dataclass
class Step:
    """What one call of ``step`` did."""

    loss: Any
    value: Tensor | None
    cost: dict[str, int]
    training: bool


@dataclass
class Trial:
    """A run that has ended.

    Attributes:
        pieces: what was trained.
        ended: why the loop stopped.
        steps: a record for each step.
        rows: evaluations, as a cell records them, without times.
        state: all that training has changed, without the clock.
        saved: the checkpoint, serialised, where one was made.
    """

    pieces: Pieces
    ended: str = ""
    steps: list[Step] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    saved: bytes = b""

    @property
    def losses(self) -> list[Tensor | None]:
        """The losses that the steps returned, copied when they did."""
        return [step.value for step in self.steps]


Around = Callable[[Pieces], AbstractContextManager[object]]


class Tap:
    """Stands between loop and algorithm: records every step, and can interrupt the run after one."""

    def __init__(self, trial: Trial, around: Around, interrupt: Callable[[int], None]) -> None:
        self._trial, self._around, self._interrupt = trial, around, interrupt

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trial.pieces.algorithm, name)

    def step(self, task: Task) -> Any:
        """The algorithm's step, watched."""
        pieces, before = self._trial.pieces, task.cost.state_dict()
        with self._around(pieces):
            loss = pieces.algorithm.step(task)
        spent = {key: value - before[key] for key, value in task.cost.state_dict().items()}
        value = loss.detach().clone() if isinstance(loss, Tensor) else None
        self._trial.steps.append(Step(loss, value, spent, task.model.training))
        self._interrupt(len(self._trial.steps))
        return loss


class Recorder:
    """Keeps what a cell would write to its folder."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.loop: Loop | None = None

    def row(self, row: dict[str, Any]) -> None:
        """Keep an evaluation."""
        self.trial.rows.append({k: v for k, v in row.items() if not k.startswith(TIMES)})

    def heartbeat(self, steps: int, drawn: int) -> None:
        """Nothing to tell."""

    def checkpoint(self) -> None:
        """Serialise a checkpoint, as a cell would."""
        assert self.loop is not None
        file = io.BytesIO()
        torch.save(checkpoint.snapshot(self.loop), file)
        self.trial.saved = file.getvalue()


def train(
    pieces: Pieces,
    *,
    eval_every: int,
    around: Around = lambda _pieces: nullcontext(),
    interrupt_after: int | None = None,
    resume: bytes | None = None,
) -> Trial:
    """Train ``pieces`` to the budget of their workload.

    Args:
        pieces: a cell fresh from :func:`build`.
        eval_every: drawn rows between two evaluations.
        around: what to enter around every step.
        interrupt_after: preempt the run behind that step, so that it leaves a checkpoint.
        resume: a checkpoint to go on from.
    """
    trial = Trial(pieces)
    recorder = Recorder(trial)
    plan = Plan(eval_every, False, None, checkpoint_every=math.inf)
    tap = Tap(trial, around, lambda step: loop.alarm.ring() if step == interrupt_after else None)
    loop = Loop(pieces.task, cast(Algorithm, tap), pieces.evaluate, plan, Clock(), recorder)
    recorder.loop = loop
    if resume is not None:
        checkpoint.restore(loop, checkpoint.read(io.BytesIO(resume)))
    trial.ended = loop.run()
    trial.state = {key: value for key, value in checkpoint.snapshot(loop).items() if key != "clock"}
    return trial


def build(
    algorithm: Callable[[], Algorithm],
    workload: Mapping[str, Any],
    *,
    device: str = "cpu",
    data_dir: Path = Path("data"),
    warmup: int = 0,
    setup: bool = True,
) -> Pieces:
    """Build a cell as the harness does: warm-up on a throw-away copy, then all of it afresh from the seed."""
    place, seed = torch.device(device), cell_seed(workload["name"], study=0, trial=0)
    source = _workload(json.dumps(dict(workload), sort_keys=True), data_dir)
    if warmup:
        seed_globals(seed)
        warm_up(source.build(seed, place)[0], algorithm(), warmup)
    seed_globals(seed)
    task, evaluate = source.build(seed, place)
    pieces = Pieces(task, algorithm(), evaluate, source)
    task.model.train()
    if setup:
        pieces.algorithm.setup(task)
    return pieces


@functools.lru_cache(maxsize=16)
def _workload(config: str, data_dir: Path) -> Any:
    workload = build_part("workload", json.loads(config), prefix="")
    workload.prepare(data_dir)
    return workload

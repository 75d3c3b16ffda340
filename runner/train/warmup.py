"""Warm-up: a throw-away copy of everything runs on noise before the clock starts.

Lazy initialisation, kernel selection and compilation happen here, for all that a run does: its steps, the
weights that it puts in place for an evaluation, the end of an epoch, its later phases. Afterwards everything
is built afresh from the seed, so nothing learnt here can survive; ``runner.check`` tests that.
"""

from __future__ import annotations

import contextlib
import time

import torch

from runner.base.errors import Complete
from runner.contract.algorithm import Algorithm
from runner.contract.seeding import derive
from runner.contract.stream import SMALL, Stream
from runner.contract.task import Task

ROWS = 4  # batches of noise
MOST = 32  # steps, however long it takes an algorithm to do all that it does now and then
LATER = (0.5, 1.0)  # shares of the budget at whose ends a step is made: whatever begins later has begun


def warm_up(task: Task, algorithm: Algorithm, steps: int) -> float:
    """Run ``algorithm`` on noise shaped like the task's data: its first steps, and some of later phases.

    Args:
        task: of the copy.
        algorithm: what trains it.
        steps: how many, or more where the algorithm does something less often.

    Returns:
        Seconds that the first step took beyond a later one: compilation and lazy initialisation.
    """
    _noise(task, task.data, "data")
    for name, stream in task.aux.items():
        _noise(task, stream, name)
    task.model.train()
    algorithm.setup(task)
    _swap(task, algorithm)
    seconds: list[float] = []
    with contextlib.suppress(Complete):
        for _ in range(max(steps, min(algorithm.cycle(task.info), MOST))):
            seconds.append(_timed(task, algorithm))
        for share in LATER:
            _go_on_to(task, share)
            _timed(task, algorithm)
        _swap(task, algorithm)
    return max(0.0, seconds[0] - min(seconds)) if seconds else 0.0


def _timed(task: Task, algorithm: Algorithm) -> float:
    """Seconds of one step, if the budget has room for it."""
    started = time.perf_counter()
    if task.cost.drawn < task.info.budget_samples:
        algorithm.step(task)
        task.cost.steps += 1
        if task.data.x.is_cuda:
            torch.cuda.synchronize(task.data.x.device)
    return time.perf_counter() - started


def _swap(task: Task, algorithm: Algorithm) -> None:
    algorithm.enter_eval(task)
    algorithm.exit_eval(task)


def _go_on_to(task: Task, share: float) -> None:
    """To where that share of the budget ends with the next batch, which the next epoch begins in."""
    cost, data = task.cost, task.data
    cost.drawn = max(cost.drawn, int(share * task.info.budget_samples) - task.info.batch_size)
    data.position = (data.epoch + 1) * data.n - max(1, data.batch_size // 2)


def _noise(task: Task, stream: Stream, name: str) -> None:
    """Replace a stream's rows by random ones of the same shape and type; as many, where that is not much."""
    device = stream.x.device
    generator = torch.Generator().manual_seed(derive("noise", name))
    rows = min(stream.n, ROWS * stream.batch_size)
    shape = (rows, *stream.x.shape[1:])
    if stream.x.dtype == torch.uint8:
        x = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    elif stream.x.dtype.is_floating_point:
        x = torch.rand(shape, generator=generator, dtype=stream.x.dtype)
    else:
        x = torch.randint(task.info.num_classes, shape, generator=generator).to(stream.x.dtype)
    y = task.kind.noise_targets(stream.y[:rows], task.info.num_classes, generator)
    n = stream.n if stream.x.nbytes <= SMALL else rows
    again = torch.arange(n, device=device) % rows
    stream.x, stream.y, stream.n = x.to(device)[again], y[again], n
    stream.index = None if stream.index is None else stream.index[:n]

"""Warm-up: a throw-away copy of everything runs on noise before the clock starts.

Lazy initialisation, kernel selection and compilation happen here. Afterwards everything is built afresh
from the seed, so nothing learnt here can survive; ``runner.check`` tests that.
"""

from __future__ import annotations

import time

import torch

from runner.algorithm import Algorithm
from runner.errors import Complete
from runner.seeding import derive
from runner.stream import Stream
from runner.task import Task

ROWS = 4  # batches of noise


def warm_up(task: Task, algorithm: Algorithm, steps: int) -> float:
    """Run ``steps`` steps of ``algorithm`` on noise shaped like the task's data.

    Returns:
        Seconds that the first step took beyond a later one: compilation and lazy initialisation.
    """
    _noise(task, task.data, "data")
    for name, stream in task.aux.items():
        _noise(task, stream, name)
    task.model.train()
    algorithm.setup(task)
    seconds = []
    for _ in range(steps):
        started = time.perf_counter()
        try:
            algorithm.step(task)
        except Complete:
            break
        if task.data.x.device.type == "cuda":
            torch.cuda.synchronize(task.data.x.device)
        seconds.append(time.perf_counter() - started)
    return max(0.0, seconds[0] - min(seconds)) if seconds else 0.0


def _noise(task: Task, stream: Stream, name: str) -> None:
    """Replace a stream's rows by random ones of the same shape and type."""
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
    stream.y = task.kind.noise_targets(stream.y[:rows], task.info.num_classes, generator)
    stream.x, stream.n = x.to(device), rows
    stream.index = None if stream.index is None else stream.index[:rows]

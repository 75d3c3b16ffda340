"""What reading images costs: the resident pipeline against torchvision's, and against a training step.

``python -m scripts.bench_data`` prints two small tables. The first compares batches of :class:`Stream` (rows
picked, cropped, mirrored and turned into floats, all from one uint8 tensor) with a ``DataLoader`` whose
data set applies torchvision's RandomCrop, RandomHorizontalFlip and ToTensor to each image, on the same
cores. The second says what share of a training step of ResNet-20 augmentation takes. All sides take turns
in one process; a number is the median over the rounds. Pixels are random: their values cost nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from runner.contract.stream import Stream
from runner.contract.torchvision_compat import import_torchvision
from runner.machine import machine
from scripts.bench_loop import conditions, keep_freed_memory
from workloads.augment import crop_flip
from workloads.models import Normalise
from workloads.resnet import resnet20

Timed = Callable[[], float]  # seconds a unit: an image, or a step
BATCH, CLASSES = 128, 10
SPEED_UP, SHARE = 20, 0.03  # goals


class Transformed(Dataset[tuple[Tensor, int]]):
    """Images as torchvision's CIFAR10 hands them out: from an array to PIL, then through the transforms."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        tv = import_torchvision().transforms
        self.transform = tv.Compose([tv.RandomCrop(32, padding=4), tv.RandomHorizontalFlip(), tv.ToTensor()])
        self.x, self.y = x.permute(0, 2, 3, 1).contiguous().numpy(), y.tolist()

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.x[i])), self.y[i]


def images(n: int) -> tuple[Tensor, Tensor]:
    """Random pixels, (n, 3, 32, 32) uint8, and labels, (n,)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(256, (n, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return x, torch.randint(CLASSES, (n,), generator=generator)


def resident_stream(x: Tensor, y: Tensor) -> Stream:
    """The harness's training stream with CIFAR's augmentation."""
    generator = torch.Generator(x.device).manual_seed(0)
    return Stream(x, y, BATCH, 0, augment=crop_flip, generator=generator)


def resident(x: Tensor, y: Tensor, batches: int) -> Timed:
    """Seconds an image of ``batches`` batches from the stream."""
    stream = resident_stream(x, y)

    def seconds() -> float:
        started = time.perf_counter()
        for _ in range(batches):
            stream.next()
        return (time.perf_counter() - started) / (batches * BATCH)

    return seconds


def loader(x: Tensor, y: Tensor, workers: int) -> Timed:
    """Seconds an image of one epoch from a DataLoader with that many processes, started beforehand."""
    settings: dict[str, Any] = {"shuffle": True, "num_workers": workers, "persistent_workers": workers > 0}
    batches: DataLoader[Any] = DataLoader(Transformed(x, y), BATCH, **settings)

    def seconds() -> float:
        started = time.perf_counter()
        for _ in batches:
            pass
        return (time.perf_counter() - started) / len(y)

    return seconds


def augmentation(x: Tensor, batches: int) -> Timed:
    """Seconds of one call on a stored batch."""
    generator, batch = torch.Generator().manual_seed(0), x[:BATCH].clone()

    def seconds() -> float:
        started = time.perf_counter()
        for _ in range(batches):
            crop_flip(batch, generator)
        return (time.perf_counter() - started) / batches

    return seconds


def training(x: Tensor, y: Tensor, steps: int) -> Timed:
    """Seconds of one step of AdamW on ResNet-20, batch included."""
    stream, half = resident_stream(x, y), torch.full((3, 1, 1), 0.5)
    model = resnet20(Normalise(half, half / 2), 3, CLASSES).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def seconds() -> float:
        started = time.perf_counter()
        for _ in range(steps):
            batch = stream.next()
            optimizer.zero_grad()
            F.cross_entropy(model(batch.x), batch.y).backward()
            optimizer.step()
        return (time.perf_counter() - started) / steps

    return seconds


def take_turns(sides: dict[str, Timed], rounds: int) -> dict[str, list[float]]:
    """Every side once a round, after a round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, side in sides.items():
            value = side()
            if turn:
                seconds[name].append(value)
    return seconds


def table(seconds: dict[str, list[float]]) -> str:
    """Both tables, as Markdown."""
    median = {name: statistics.median(values) for name, values in seconds.items()}
    lines = ["| pipeline | n | images/s (lowest to highest) | resident / this |", "|---|--:|--:|--:|"]
    for name in (name for name in median if name not in ("augmentation", "step")):
        rates = sorted(1 / value for value in seconds[name])
        lines.append(
            f"| {name} | {len(rates)} | {1 / median[name]:,.0f} ({rates[0]:,.0f} to {rates[-1]:,.0f}) "
            f"| {median[name] / median['resident']:.1f} |"
        )
    lines += ["", "| n | augmentation, ms | step of ResNet-20, ms | share |", "|--:|--:|--:|--:|"]
    share = median["augmentation"] / median["step"]
    times = " | ".join(f"{1e3 * median[name]:,.2f}" for name in ("augmentation", "step"))
    return "\n".join([*lines, f"| {len(seconds['step'])} | {times} | {share:.2%} |"])


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    options = _options(argv)
    with use_cores(options.cores):
        machine.configure(options.cores, deterministic=False)
        keep_freed_memory()
        x, y = images(options.images)
        sides = {
            "resident": resident(x, y, options.batches),
            **{f"DataLoader, {w} workers": loader(x, y, w) for w in sorted({0, options.cores})},
            "augmentation": augmentation(x, options.batches),
            "step": training(x, y, options.steps),
        }
        print(table(take_turns(sides, options.rounds)))
        where = conditions(options.cores)
    print(
        f"\nBatches of {BATCH} images of 3×32×32. A round: {options.batches} batches, an epoch of "
        f"{options.images} images in a DataLoader, {options.steps} steps. Goals: {SPEED_UP} times a "
        f"DataLoader's images/s, augmentation below {SHARE:.0%} of a step. "
        + ", ".join(f"{key} {value}" for key, value in where.items())
    )
    return 0


@contextlib.contextmanager
def use_cores(cores: int) -> Iterator[None]:
    """Keep this process, and the workers that it starts, to so many cores, where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _available() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.bench_data", epilog=__doc__)
    add, most = parser.add_argument, _available()
    add("--cores", type=int, default=most, help="torch threads of one side, worker processes of the other")
    add("--rounds", type=int, default=5)
    add("--images", type=int, default=10 * BATCH, help="in the data set; one epoch a round in a DataLoader")
    add("--batches", type=int, default=100, help="resident batches, and calls of the augmentation, a round")
    add("--steps", type=int, default=3, help="training steps a round")
    options = parser.parse_args(argv)
    if min(options.rounds, options.batches, options.steps) < 1 or options.images < BATCH:
        parser.error(f"--rounds, --batches and --steps must be at least 1, --images at least {BATCH}")
    if not 1 <= options.cores <= most:
        parser.error(f"--cores must be from 1 to {most}, got {options.cores}")
    return options


if __name__ == "__main__":
    sys.exit(main())

"""What the harness costs: its training loop against a hand-written one, in interleaved pairs.

``python -m scripts.bench_loop --workload breast_cancer digits mnist`` prints a Markdown table. Both sides
train the same model with the same optimizer and schedule on the same tensors, in one process. The
harness's side is what ``algorithm=adamw`` runs between two evaluations, and its time is the clock's
``train`` account. With ``--log wandb`` a real offline run is open all the while and gets each segment's
rows. docs/benchmarks.md keeps the results.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import ctypes
import itertools
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runner.base.errors import UserError
from runner.base.paths import expanded
from runner.cells.cell import Cell
from runner.compose.config import compose
from runner.contract.instantiate import build_part
from runner.contract.stream import decode
from runner.contract.task import Task
from runner.logs import Logger, open_logger
from runner.machine import machine
from runner.provenance import git
from runner.train.clock import Clock
from runner.train.loop import Loop, Plan

Train = Callable[[int], float]  # steps -> seconds
AGAINST = ("lean", "usual", "itself")
CONFIDENCE = 0.95
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "binary": F.binary_cross_entropy_with_logits,
    "multiclass": F.cross_entropy,
    "lm": lambda outputs, y: F.cross_entropy(outputs.flatten(0, 1), y.flatten()),
}


@dataclass
class Job:
    """One workload and algorithm, its data loaded, ready to be trained either way."""

    config: dict[str, Any]
    workload: Any
    device: torch.device
    now: Callable[[], float] = time.perf_counter

    @classmethod
    def of(cls, overrides: Sequence[str], steps: int, now: Callable[[], float] = time.perf_counter) -> Job:
        """Compose and load, with a budget of ``steps`` batches.

        Raises:
            UserError: for an unknown workload, or one whose data is missing.
        """
        config = compose([*overrides, "log=none"])
        config["workload"] |= {"target": None, "budget_samples": steps * config["workload"]["batch_size"]}
        workload = build_part("workload", config["workload"], prefix="")
        workload.prepare(Path(config["data_dir"]))
        return cls(config, workload, torch.device(config["device"]), now)

    def task(self, seed: int) -> Task:
        """Model and training stream, fresh."""
        torch.manual_seed(seed)
        return self.workload.build(seed, self.device)[0]


# -- the harness -------------------------------------------------------------------------------------


class Observer:
    """Passes evaluations on to a logger, numbered through all segments; drops the rest."""

    def __init__(self, logger: Logger) -> None:
        self.logger, self.rows = logger, 0

    def row(self, row: dict[str, Any]) -> None:
        """Log it."""
        self.logger.row({**row, "eval_index": self.rows})
        self.rows += 1

    def heartbeat(self, steps: int, drawn: int) -> None:
        """Dropped."""

    def checkpoint(self) -> None:
        """Dropped."""


@contextlib.contextmanager
def observer(job: Job, log: str) -> Iterator[Observer]:
    """An observer that logs as ``log=<name>`` does, offline and to a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WANDB_MODE"] = "offline"
        cell = Cell.from_config({**job.config, "results_dir": folder})
        cell.submit()
        logger = open_logger(compose([f"log={log}"]).get("log"))
        logger.start(cell.folder, resumed=False)
        yield Observer(logger)
        logger.finish({"status": "done"})


def harness(job: Job, task: Task, watch: Observer) -> Train:
    """The harness's loop from one evaluation to the next. The evaluations are stubs, and off the clock."""
    algorithm = build_part("algorithm", job.config["algorithm"], prefix="")
    task.model.train()
    algorithm.setup(task)

    def evaluate(model: nn.Module, split: str, predict: object) -> dict[str, float]:
        return {"loss": 1.0, "accuracy": 0.0}

    def train(steps: int) -> float:
        task.cost.drawn, done = 0, task.cost.steps
        clock = Clock(machine.synchronizer(job.device), job.now)
        Loop(task, algorithm, evaluate, Plan(task.info.budget_samples), clock, watch).run()
        if task.cost.steps - done != steps:
            raise RuntimeError(f"the harness made {task.cost.steps - done} steps rather than {steps}")
        return clock.accounts["train"]

    return train


# -- by hand -----------------------------------------------------------------------------------------


def by_hand(
    job: Job, task: Task, model: nn.Module, rows: Iterator[Tensor] | None = None, lean: bool = True
) -> Train:
    """A loop as one writes it for one model, one optimizer and one schedule, and nothing else.

    Args:
        job: what to train.
        task: gives the stored tensors and their augmentation; nothing else of it is used.
        model: what to train, without the harness's hooks (:func:`bare_copy`).
        rows: row ids of each batch; full batches of shuffled epochs when None.
        lean: whether to use what PyTorch leaves to the caller: ``grad = None`` by hand, ``index_select``,
            ``forward`` without ``__call__``. If not, the usual words.
    """
    x, y, ready, loss_of = task.data.x, task.data.y, inputs(task), LOSSES[task.info.task]
    optimizer = adamw(model, job.config["algorithm"]["optimizer"])
    rows = shuffled(x, task.info.batch_size) if rows is None else rows
    base, warmup = optimizer.param_groups[0]["lr"], job.config["algorithm"]["schedule"]["warmup"]
    synchronize = machine.synchronizer(job.device)

    def train_lean(steps: int) -> None:
        params, groups, forward, losses = list(model.parameters()), optimizer.param_groups, model.forward, []
        for step, batch in enumerate(itertools.islice(rows, steps)):
            lr = base * warmup_cosine(step, steps, warmup)
            for group in groups:
                group["lr"] = lr
            for p in params:
                p.grad = None
            loss = loss_of(forward(ready(x.index_select(0, batch))), y.index_select(0, batch))
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())

    def train_usual(steps: int) -> None:
        losses = []
        for step, batch in enumerate(itertools.islice(rows, steps)):
            for group in optimizer.param_groups:
                group["lr"] = base * warmup_cosine(step, steps, warmup)
            optimizer.zero_grad()
            loss = loss_of(model(ready(x[batch])), y[batch])
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())

    def train(steps: int) -> float:
        synchronize()
        started = job.now()
        (train_lean if lean else train_usual)(steps)
        synchronize()
        return job.now() - started

    return train


def bare_copy(model: nn.Module) -> nn.Module:
    """The model with the same weights and without the hook that counts its calls, in training mode."""
    model = copy.deepcopy(model).train()
    model._forward_hooks.clear()
    return model


def inputs(task: Task) -> Callable[[Tensor], Tensor]:
    """From stored rows to the model's inputs: the workload's augmentation, and floats in [0, 1]."""
    augment = task.data.augment
    if augment is None:
        return decode
    generator = torch.Generator(task.data.x.device).manual_seed(0)
    return lambda x: decode(augment(x, generator))


def adamw(model: nn.Module, settings: dict[str, Any]) -> torch.optim.Optimizer:
    """AdamW with the preset's settings, without decay on 1-D parameters."""
    settings = {key: value for key, value in settings.items() if key != "_target_"}
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    return torch.optim.AdamW([{"params": matrices}, {"params": vectors, "weight_decay": 0.0}], **settings)


def warmup_cosine(step: int, steps: int, warmup: float) -> float:
    """Linear warm-up over the share ``warmup`` of ``steps``, then cosine decay to zero."""
    progress = step / steps
    if progress < warmup:
        return min(1.0, (progress + 1 / steps) / warmup)
    return (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))) / 2


def shuffled(x: Tensor, size: int) -> Iterator[Tensor]:
    """Row ids of full batches, epoch after epoch in a new order; the rest of an epoch is dropped."""
    n, generator = x.shape[0], torch.Generator().manual_seed(0)
    while True:
        order = torch.randperm(n, generator=generator).to(x.device)
        yield from order.split(size)[: n // size]


# -- measuring ---------------------------------------------------------------------------------------


@dataclass
class Result:
    """One row of the table. Times in µs a step; ``upper`` is the one-sided limit of the mean difference."""

    workload: str
    batch_size: int
    against: str
    clock: str
    log: str
    pairs: int
    repeats: int
    steps: int
    hand: float
    harness: float
    difference: float
    median: float
    upper: float


def measure(
    overrides: Sequence[str],
    against: str,
    clock: str = "wall",
    log: str = "none",
    pairs: int = 20,
    repeats: int = 5,
    steps: int = 50,
) -> Result:
    """Time ``pairs`` pairs of a hand-written and a harnessed run.

    Both runs of a pair are built afresh, so that where their tensors lie in memory varies from pair to
    pair rather than favour one side throughout. Then they take turns, A B B A, ``repeats`` times, in
    segments of ``steps`` steps. Which of the two is A alternates from pair to pair.
    """
    job = Job.of(overrides, steps, CLOCKS[clock])
    means: tuple[list[float], list[float]] = ([], [])
    with observer(job, log) as watch:

        def hand_side(pair: int) -> Train:
            task = job.task(pair)
            return by_hand(job, task, bare_copy(task.model), lean=against != "usual")

        def harness_side(pair: int) -> Train:
            return harness(job, job.task(pair), watch)

        makers = (hand_side, hand_side if against == "itself" else harness_side)
        for pair in range(pairs):
            order = (0, 1) if pair % 2 == 0 else (1, 0)
            runs = {side: makers[side](pair) for side in order}
            seconds = _take_turns(runs, order, repeats, steps)
            for side in order:
                means[side].append(1e6 * seconds[side] / (2 * repeats * steps))
    hand, harnessed = means
    workload, batch_size = job.config["workload"]["name"], job.config["workload"]["batch_size"]
    times = statistics.fmean(hand), statistics.fmean(harnessed), *paired(harnessed, hand)
    return Result(workload, batch_size, against, clock, log, pairs, repeats, steps, *times)


def _take_turns(runs: dict[int, Train], order: tuple[int, int], repeats: int, steps: int) -> dict[int, float]:
    for side in order:
        runs[side](steps)  # kernels, allocator, optimizer state
    seconds = dict.fromkeys(order, 0.0)
    for side in (*order, *order[::-1]) * repeats:
        seconds[side] += runs[side](steps)
    return seconds


def paired(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float]:
    """Mean and median of a − b over pairs, and the mean's upper confidence limit (Student's t, one-sided)."""
    from scipy.special import stdtrit

    differences = [x - y for x, y in zip(a, b, strict=True)]
    mean, n = statistics.fmean(differences), len(differences)
    error = statistics.stdev(differences) / math.sqrt(n)
    return mean, statistics.median(differences), mean + float(stdtrit(n - 1, CONFIDENCE)) * error


# -- reporting ---------------------------------------------------------------------------------------


def table(results: Sequence[Result]) -> str:
    """The results as a Markdown table."""
    lines = [
        "| workload (batch) | against | clock | log | n | by hand, µs | harness, µs "
        "| difference, µs (median) | upper limit, µs | relative | upper limit |",
        "|---|---|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for r in results:
        lines.append(
            f"| {r.workload} ({r.batch_size}) | {r.against} | {r.clock} | {r.log} | {r.pairs} "
            f"| {r.hand:,.1f} | {r.harness:,.1f} "
            f"| {r.difference:+,.1f} ({r.median:+,.1f}) | {r.upper:+,.1f} | {r.difference / r.hand:+.2%} "
            f"| {r.upper / r.hand:+.2%} |"
        )
    return "\n".join(lines)


def keep_freed_memory() -> None:
    """Stop glibc from handing freed memory back to the system and asking for it again at every step.

    Whether it does so hangs on where in the heap a few long-lived tensors happen to lie. That costs either
    side up to a tenth of a step of MNIST's CNN, at random, which would drown what is measured here.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, -1)
        mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the most that glibc takes


def conditions(threads: int) -> dict[str, Any]:
    """What the numbers were measured on."""
    hardware = {"cpu": machine.cpu_name(), "cores": os.cpu_count(), "threads": threads}
    return {**hardware, "torch": torch.__version__, **git.facts()}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 2 for bad input."""
    options = _options(argv)
    machine.configure(options.threads, deterministic=False)
    keep_freed_memory()
    results = []
    try:
        for workload, against, log in itertools.product(options.workload, options.against, options.log):
            overrides = [f"workload={workload}", "algorithm=adamw", *options.overrides]
            sizes = options.pairs, options.repeats, options.steps
            results.append(measure(overrides, against, options.clock, log, *sizes))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    where = conditions(options.threads)
    print(table(results))
    print(f"\n{options.pairs} pairs of {2 * options.repeats} segments of {options.steps} steps a side; "
          + ", ".join(f"{key} {value}" for key, value in where.items()))  # fmt: skip
    if options.json is not None:
        record = {"machine": where, "results": [asdict(r) for r in results]}
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.bench_loop", epilog=__doc__)
    add = parser.add_argument
    add("--workload", type=_names, default=["breast_cancer"], help="names in conf/workload, by commas")
    add("--against", type=_names, default=["lean"], help="the loop by hand, by commas: lean (every trick), "
        "usual, itself (by hand on both sides: a control)")  # fmt: skip
    add("--clock", choices=sorted(CLOCKS), default="wall", help="cpu: less the time without a core")
    add("--log", type=_names, default=["none"], help="names in conf/log, by commas; wandb is offline")
    add("--pairs", type=int, default=20)
    add("--repeats", type=int, default=5, help="rounds A B B A in a pair")
    add("--steps", type=int, default=50, help="steps of a segment")
    add("--threads", type=int, default=1, help="torch threads")
    add("--json", type=expanded, help="also write the results here")
    add("overrides", nargs="*", help="of the config, e.g. data_dir=FOLDER device=cpu")
    options = parser.parse_args(argv)
    if options.pairs < 2 or min(options.repeats, options.steps, options.threads) < 1:
        parser.error("--pairs must be at least 2; --repeats, --steps and --threads at least 1")
    if not set(options.against) <= set(AGAINST):
        parser.error(f"--against must be of {', '.join(AGAINST)}")
    return options


def _names(text: str) -> list[str]:
    return text.split(",")


if __name__ == "__main__":
    sys.exit(main())

"""``python -m tests.doubles.pretend_cuda.sweep``: train algorithms for a few steps on the pretended device.

Prints, as JSON, what went wrong with each of them on each small workload: an error, steps that wait for the
device or for a copy. All kinds of moments occur: warm-up, first steps, evaluations, a checkpoint, a resume.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

if __name__ == "__main__":
    from tests.doubles.pretend_cuda import library

    library.load()

import torch

from runner.check.subject import Subject
from runner.check.subjects import SMALL, small_workload, subjects
from runner.check.syncs import LAZY
from runner.check.trial import Pieces, train
from runner.compose.config import algorithm_names
from tests.doubles.pretend_cuda import device
from tests.doubles.pretend_cuda.log import EVENTS, Event, asked_from

STEPS, INTERRUPTED = 8, 5
ROWS = 8  # of a batch
PLAIN = {
    "_target_": "runner.parts.composed.Composed",
    "optimizer": {"_target_": "tests.doubles.clean.Momentum"},
    "schedule": {"_target_": "algorithms.schedules.cosine.Cosine"},
}


class Watch:
    """What the steps of a run ask of the device, past those in which state is made.

    Attributes:
        waits: the events of each step that has any.
        steps: how many steps there were.
    """

    def __init__(self) -> None:
        self.waits: list[list[Event]] = []
        self.steps = 0

    @contextlib.contextmanager
    def step(self, pieces: Pieces) -> Iterator[None]:
        """Around one step."""
        first, lazy = len(EVENTS), pieces.task.cost.steps < LAZY
        yield
        self.steps += 1
        if EVENTS[first:] and not lazy:
            self.waits.append(EVENTS[first:])

    def fault(self, every: int) -> str | None:
        """More waits than one in ``every`` steps; 0 allows none."""
        if len(self.waits) <= (-(-self.steps // every) if every else 0):
            return None
        event, _ = Counter(event for events in self.waits for event in events).most_common(1)[0]
        return f"{len(self.waits)} of {self.steps} steps wait, by {event}; declared: {every or 'none'}"


def fault_of(subject: Subject) -> str | None:
    """What goes wrong in a run that is warmed up, interrupted and resumed; None where nothing does."""
    try:
        return None if subject.refusal is not None else _trained(subject)
    except Exception as error:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        return f"{type(error).__name__}: {error} at {asked_from(reversed(frames))}"


def _trained(subject: Subject) -> str | None:
    watch, every = Watch(), 4 * subject.rows
    budget = {"budget_samples": STEPS * subject.rows}
    begun = subject.pieces(STEPS, warmup=1, **budget)
    first = train(begun, eval_every=every, around=watch.step, interrupt_after=INTERRUPTED)
    if not first.saved:
        return f"ended ({first.ended}) before it could be interrupted"
    rest = train(subject.pieces(STEPS, **budget), eval_every=every, around=watch.step, resume=first.saved)
    values = [row[f"validation/{subject.workload['metric']}"] for row in (*first.rows, *rest.rows)]
    if not all(map(math.isfinite, values)):
        return f"evaluates to {values}"
    return watch.fault(begun.algorithm.syncs_every)


def planted(kind: str, target: str) -> Subject:
    """A plain algorithm with one part of that kind."""
    small = [small_workload(name) for name in SMALL]
    algorithm = PLAIN | {kind: {"_target_": target}}
    workload = small_workload("digits") | {"batch_size": ROWS}
    return Subject(algorithm, workload, target, small, device="cuda", data_dir=Path("data"))


def chosen(args: argparse.Namespace) -> Iterator[Subject]:
    """What the command line names."""
    yield from (planted(*part.split("=")) for part in args.part)
    names = args.names or ([] if args.part else algorithm_names())
    share = f"workload={','.join(args.workloads)}"
    for name in names[args.shard :: args.shards]:
        yield from subjects([f"algorithm={name}", share, "device=cuda", f"workload.batch_size={ROWS}"])


def main() -> int:
    """Train them all; returns 0 where nothing goes wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="presets; all by default")
    parser.add_argument("--workloads", nargs="+", default=SMALL)
    parser.add_argument("--part", action="append", default=[], help="KIND=TARGET: a plain algorithm with it")
    parser.add_argument("--shard", type=int, default=0, help="of the presets every SHARDS-th, from this on")
    parser.add_argument("--shards", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    device.install()
    faults = {subject.title: fault_of(subject) for subject in chosen(args)}
    print(json.dumps(faults))
    return int(any(faults.values()))


if __name__ == "__main__":
    sys.exit(main())

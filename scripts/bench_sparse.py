"""Which rows of a LIBSVM file train faster, whole ones or lists of entries? Interleaved, over shapes.

``python -m scripts.bench_sparse`` prints a Markdown table; ``workload.sparse=null`` follows a rule drawn from
it (``sparse_pays`` in workloads/logreg.py). Both sides are ``workload=logreg algorithm=adamw`` with
``workload.scale=max_abs`` on one random file: the same model on the same batches. A time is the median over
segments of a whole step: the batch, both passes and the optimizer.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from runner.base.errors import UserError
from runner.compose.config import compose
from runner.contract.algorithm import Algorithm
from runner.contract.instantiate import build_part
from runner.contract.task import Task
from runner.machine import machine
from runner.provenance import git
from workloads.logreg import sparse_pays

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Shape:
    """A random file: rows of ``entries`` out of ``features``, in ``classes`` classes; and a batch of them."""

    features: int
    entries: int
    classes: int
    batch_size: int

    def write(self, path: Path, rows: int) -> None:
        """A file of that shape."""
        generator = torch.Generator().manual_seed(0)
        with path.open("w", encoding="utf-8") as file:
            for row in range(rows):
                ids = torch.randperm(self.features, generator=generator)[: self.entries].sort().values + 1
                ids[-1] = self.features if row == 0 else ids[-1]  # the file's largest index
                values = torch.rand(self.entries, generator=generator) + 0.1
                pairs = zip(ids.tolist(), values.tolist(), strict=True)
                print(row % self.classes, *(f"{i}:{v:.3f}" for i, v in pairs), file=file)


@dataclass(frozen=True)
class Result:
    """Median µs a step of either form, and the form that the workload picks by itself."""

    shape: Shape
    dense: float
    sparse: float
    picks_sparse: bool


@dataclass(frozen=True)
class Side:
    """One form of the rows, about to train."""

    task: Task
    algorithm: Algorithm

    @classmethod
    def of(cls, file: Path, batch_size: int, sparse: bool, device: str) -> Side:
        """Built as a cell is, and warmed up."""
        options = [f"workload.{key}" for key in ("test_file=null", "scale=max_abs", f"sparse={sparse}")]
        config = compose(["workload=logreg", "algorithm=adamw", *options, f"device={device}"])
        changes = {"file": str(file), "batch_size": batch_size, "target": None}
        workload = build_part("workload", config["workload"] | changes, prefix="")
        workload.prepare(Path())
        task, _ = workload.build(0, torch.device(config["device"]))
        side = cls(task, build_part("algorithm", config["algorithm"], prefix=""))
        side.algorithm.setup(task)
        side.steps(3)
        return side

    def steps(self, n: int) -> None:
        """Train ``n`` steps."""
        for _ in range(n):
            self.algorithm.step(self.task)


def measure(
    shape: Shape, rows: int, rounds: int, steps: int, now: Callable[[], float], device: str = "cpu"
) -> Result:
    """Time ``rounds`` rounds A B B A of segments of ``steps`` steps."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "random"
        shape.write(file, rows)
        sides = {form: Side.of(file, shape.batch_size, form, device) for form in (False, True)}
    segments: dict[bool, list[float]] = {False: [], True: []}
    synchronize = machine.synchronizer(sides[True].task.data.x.device)
    for form in (False, True, True, False) * rounds:
        synchronize()
        started = now()
        sides[form].steps(steps)
        synchronize()
        segments[form].append(1e6 * (now() - started) / steps)
    dense, sparse = (statistics.median(segments[form]) for form in (False, True))
    return Result(shape, dense, sparse, sparse_pays(shape.features, shape.entries))


def table(results: Sequence[Result]) -> str:
    """The results as a Markdown table."""
    lines = [
        "| features | entries a row | features/entries | classes | batch | whole, µs | entries, µs "
        "| whole/entries | null picks |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for r in results:
        s = r.shape
        lines.append(
            f"| {s.features:,} | {s.entries} | {s.features / s.entries:.0f} | {s.classes} | {s.batch_size} "
            f"| {r.dense:,.0f} | {r.sparse:,.0f} | {r.dense / r.sparse:.2f} "
            f"| {'entries' if r.picks_sparse else 'whole'} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 2 for bad input."""
    options = _options(argv)
    machine.configure(options.threads, deterministic=False)
    grid = itertools.product(options.features, options.entries, options.classes, options.batch_size)
    shapes = [shape for shape in itertools.starmap(Shape, grid) if shape.entries <= shape.features]
    sizes = options.rows, options.rounds, options.steps, CLOCKS[options.clock], options.device
    try:
        results = [measure(shape, *sizes) for shape in shapes]
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(results))
    print(
        f"\nmedians of {2 * options.rounds} segments of {options.steps} steps a side, {conditions(options)}"
    )
    return 0


def conditions(options: argparse.Namespace) -> str:
    """What the numbers were measured on."""
    facts = {
        "clock": options.clock,
        "rows": options.rows,
        "device": options.device,
        "threads": options.threads,
        "cpu": machine.cpu_name(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        **git.facts(),
    }
    return ", ".join(f"{key} {value}" for key, value in facts.items())


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.bench_sparse", description=__doc__)
    add = parser.add_argument
    add("--features", type=_numbers, default=[128, 1024, 8192, 32768], help="by commas")
    add("--entries", type=_numbers, default=[16, 64, 256], help="of a row, by commas")
    add("--classes", type=_numbers, default=[2, 10], help="by commas")
    add("--batch-size", type=_numbers, default=[64], help="by commas")
    add("--rows", type=int, default=2048, help="of the file")
    add("--rounds", type=int, default=10, help="A B B A")
    add("--steps", type=int, default=20, help="of a segment")
    add("--clock", choices=sorted(CLOCKS), default="cpu", help="cpu: less the time without a core")
    add("--device", default="cpu")
    add("--threads", type=int, default=1, help="torch threads")
    return parser.parse_args(argv)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())

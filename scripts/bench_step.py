"""What one optimizer step costs, gradients given: ours, torch's AdamW, and pytorch_optimizer's version.

``python -m scripts.bench_step`` prints a table for each list of parameters: eight matrices, those of
ResNet-20, those of the tiny language model. Every optimizer part is timed as its YAML says, in the groups of
its preset, every wrapper around AdamW; a rule whose step multiplies matrices gets smaller ones. All sides
take windows of steps in turns (A B C, C B A) in one process. A time is the median over the windows, a ratio
the median over those of the same turn.

The goal is a ratio to AdamW (foreach): 1.3 for a rule with at most two state tensors and no reductions, else
tensors / 7. ``tensors`` counts a read of the gradient, the parameter and each state tensor, a write of the
parameter and of each state tensor that changes (7 for AdamW), and a read of what a reduction takes. All of
that is observed, not declared. docs/benchmarks.md keeps the results.
"""

from __future__ import annotations

import argparse
import csv
import functools
import itertools
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from operator import truediv

import torch

from runner.base.errors import UserError, nearest
from runner.machine import machine
from scripts.bench_loop import CLOCKS, conditions, keep_freed_memory
from scripts.step_sides import (
    LISTS,
    Side,
    Specs,
    Traits,
    adamw,
    difference,
    fresh,
    library,
    methods,
    observe,
    specs_of,
)

SIDE, MATRIX_SIDE = 512, 256  # of the matrices; of those where a step multiplies them
SAME = 1e-3  # relative difference of five steps up to which two implementations are of one rule


@dataclass(frozen=True)
class Result:
    """One method on one list of parameters; times are in µs a step, None where a side is missing."""

    method: str
    parameters: str
    arrays: int
    numbers: int
    tensors: float
    us: float
    foreach_us: float
    fused_us: float
    library_us: float | None
    to_foreach: float
    to_fused: float
    to_library: float | None
    goal: float | None
    note: str


# -- measuring ---------------------------------------------------------------------------------------


def measure(method: str, name: str, options: argparse.Namespace) -> Result:
    """All sides in turns on one list of parameters."""
    specs = specs_of(method)
    seen, theirs, gap = looked_at(method)
    small = seen.multiplies and name == "matrices"
    size = min(options.side, MATRIX_SIDE) if small else options.side
    notes = [f"{size}²"] * small + [f"library's steps differ by {gap:.2g}"] * (gap > SAME)
    others = {"foreach": adamw(fused=False, foreach=True), "fused": adamw(fused=True)}
    others |= {} if theirs is None else {"library": theirs}
    sides = {k: Side(fresh(name, size, options.device), s) for k, s in {"ours": specs, **others}.items()}
    seconds = take_turns(sides, options)
    times = {key: 1e6 * statistics.median(values) for key, values in seconds.items()}
    ratios = {key: statistics.median(map(truediv, seconds["ours"], seconds[key])) for key in others}
    params = sides["ours"].params
    return Result(
        method, name, len(params), sum(p.numel() for p in params), seen.tensors,
        times["ours"], times["foreach"], times["fused"], times.get("library"),
        ratios["foreach"], ratios["fused"], ratios.get("library"), seen.goal, "; ".join(notes),
    )  # fmt: skip


@functools.cache
def looked_at(method: str) -> tuple[Traits, Specs | None, float]:
    """What its step does, the library's version, and how far the two are from one another."""
    specs = specs_of(method)
    theirs = library(method, specs)
    return observe(specs), theirs, 0.0 if theirs is None else difference(specs, theirs)


def take_turns(sides: dict[str, Side], options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds a step of every window, after the warm-up; every other turn goes backwards."""
    now = CLOCKS[options.clock]
    synchronize = machine.synchronizer(torch.device(options.device))
    for side in sides.values():
        side.window(options.warmup, now, synchronize)
    seconds: dict[str, list[float]] = {key: [] for key in sides}
    for turn in range(options.windows):
        for key in list(sides)[:: -1 if turn % 2 else 1]:
            seconds[key].append(sides[key].window(options.steps, now, synchronize))
    return seconds


# -- reporting ---------------------------------------------------------------------------------------


def tables(results: Sequence[Result]) -> str:
    """A table for each list of parameters, 80 columns wide."""
    lines = []
    for name in dict.fromkeys(r.parameters for r in results):
        of = [r for r in results if r.parameters == name]
        lines += [f"{name}: {of[-1].arrays} tensors, {of[-1].numbers:,} numbers"]
        lines += [f"{'':20}{'µs':>10}{'/foreach':>10}{'/fused':>10}{'/library':>10}{'goal':>8}  tensors"]
        lines += [_line(r) for r in of]
        lines += [f"  {r.method}: {r.note}" for r in of if r.note] + [""]
    return "\n".join(lines[:-1])


def _line(r: Result) -> str:
    ratios = "".join(f"{_shown(v):>10}" for v in (r.to_foreach, r.to_fused, r.to_library))
    return f"{r.method:20}{r.us:>10,.0f}{ratios}{_shown(r.goal):>8}{_missed(r):2}{r.tensors:>7.3g}"


def _missed(r: Result) -> str:
    """A mark where the goal, or the library, is missed by more than a rounded digit."""
    late = r.goal is not None and round(r.to_foreach, 2) > round(r.goal, 2)
    return " !" if late or (r.to_library is not None and round(r.to_library, 2) > 1) else ""


def markdown(results: Sequence[Result]) -> str:
    """One table of all ratios, as Markdown."""
    lines = [
        "| parameters | method | µs | / foreach | / fused | / library | goal | tensors | note |",
        "|---|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    for r in results:
        ratios = " | ".join(_shown(v) for v in (r.to_foreach, r.to_fused, r.to_library, r.goal))
        lines.append(
            f"| {r.parameters} | {r.method} | {r.us:,.0f} | {ratios} | {r.tensors:.3g} "
            f"| {'misses' if _missed(r) else ''}{'; ' if _missed(r) and r.note else ''}{r.note} |"
        )
    return "\n".join(lines)


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 2 for bad input."""
    options = _options(argv)
    machine.configure(options.threads, deterministic=False)
    keep_freed_memory()
    try:
        chosen = options.methods or methods()
        for name in chosen:
            if name not in methods():
                raise UserError(f"no optimizer or wrapper is called {name!r}; {nearest(name, methods())}")
        results = []
        for name, method in itertools.product(options.lists, chosen):
            print(f"{name}, {method} …", file=sys.stderr)
            results.append(measure(method, name, options))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.csv:
        writer = csv.DictWriter(sys.stdout, [f.name for f in fields(Result)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(r) for r in results)
        return 0
    print(markdown(results) if options.markdown else tables(results))
    facts = {"clock": options.clock, "device": options.device, **conditions(options.threads)}
    print(
        f"\n{options.windows} windows of {options.steps} steps a side after {options.warmup} to warm up, "
        + ", ".join(f"{key} {value}" for key, value in facts.items())
    )
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.bench_step", epilog=__doc__)
    add = parser.add_argument
    add("--methods", type=_names, help="by commas; all optimizer and wrapper parts if left out")
    add("--lists", type=_names, default=list(LISTS), help=f"of parameters, by commas: {', '.join(LISTS)}")
    add("--side", type=int, default=SIDE, help="of the matrices")
    add("--warmup", type=int, default=20, help="steps")
    add("--windows", type=int, default=6)
    add("--steps", type=int, default=20, help="of a window")
    add("--clock", choices=sorted(CLOCKS), help="cpu (default on one): less the time without a core")
    add("--device", default="cpu")
    add("--threads", type=int, default=1, help="torch threads")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print all columns by commas")
    form.add_argument("--markdown", action="store_true", help="print a Markdown table")
    options = parser.parse_args(argv)
    if not set(options.lists) <= set(LISTS):
        parser.error(f"--lists must be of {', '.join(LISTS)}")
    if min(options.warmup, options.windows, options.steps, options.threads) < 1 or options.side < 2:
        parser.error("--warmup, --windows, --steps and --threads must be at least 1, --side at least 2")
    options.clock = options.clock or ("cpu" if options.device == "cpu" else "wall")
    return options


def _names(text: str) -> list[str]:
    return text.split(",")


if __name__ == "__main__":
    sys.exit(main())

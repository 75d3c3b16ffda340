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
import copy
import csv
import functools
import inspect
import itertools
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from operator import truediv
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from runner import machine, presets
from runner.batch import Info
from runner.build import NOT_ARGUMENTS, build_part
from runner.config import compose
from runner.errors import UserError, nearest
from runner.stream import Stream
from runner.task import Task
from scripts.bench_loop import CLOCKS, conditions, keep_freed_memory

KINDS = ("optimizer", "wrapper")
COUNT, SIDE, MATRIX_SIDE, OBSERVED_SIDE = 8, 512, 256, 64  # matrices, and their sides
LISTS = {  # name -> the workload that the parameters are from
    "matrices": [],
    "resnet20": ["workload=cifar10_synthetic", "workload.model=resnet20"],
    "lm": ["workload=tiny_lm_pydocs"],
}
ADAMW_TENSORS, SIMPLE_GOAL = 7, 1.3
PROGRESS = 0.4  # of the budget: warm-ups are over, late phases have not begun
GRADIENTS = 4  # sets of them, in turn by window
ARGUMENTS = {  # what pytorch_optimizer calls our arguments
    "trust": "trust_coefficient",
    "growth": "growth_rate",
    "use_bias_correction": "bias_correction",
}
SAME = 1e-3  # relative difference of five steps up to which two implementations are of one rule
Specs = dict[str, Any]


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


@dataclass(frozen=True)
class Traits:
    """What a step was seen to do.

    Attributes:
        states: state tensors per parameter.
        tensors: tensors read and written, as the goal counts them.
        reduces: whether it has sums over tensors.
        multiplies: whether it has products of matrices.
    """

    states: int
    tensors: float
    reduces: bool
    multiplies: bool

    @property
    def goal(self) -> float | None:
        """Largest ratio to AdamW (foreach); None where products of matrices decide the time."""
        if self.multiplies:
            return None
        return SIMPLE_GOAL if self.states <= 2 and not self.reduces else self.tensors / ADAMW_TENSORS


class Side:
    """An optimizer on parameters of its own, and the gradients that it is given.

    Args:
        task: a task of its own.
        specs: configs of ``groups``, ``optimizer`` and, perhaps, ``wrapper``.
    """

    def __init__(self, task: Task, specs: Specs) -> None:
        groups = build_part("groups", specs["groups"])(task)
        self.params, self.windows = list(task.params), 0
        self.optimizer = build_part("optimizer", specs["optimizer"], groups)
        for name, spec in (specs.get("wrapper") or {}).items():
            self.optimizer = build_part(f"wrapper.{name}", spec, self.optimizer)
        if hasattr(self.optimizer, "setup"):
            self.optimizer.setup(task)
        device = self.params[0].device
        needs_loss = getattr(self.optimizer, "needs_loss", False)
        given = {"loss": torch.ones((), device=device)} if needs_loss else {}
        self.calls: list[Callable[[], Any]] = [functools.partial(self.optimizer.step, **given)]
        if hasattr(self.optimizer, "after_step"):
            self.calls.append(functools.partial(self.optimizer.after_step, task))
        like = {"generator": torch.Generator(device).manual_seed(0), "device": device}
        self.gradients = [
            [1e-2 * torch.randn(p.shape, **like) for p in self.params] for _ in range(GRADIENTS)
        ]

    def window(self, steps: int, now: Callable[[], float], synchronize: Callable[[], None]) -> float:
        """Seconds a step."""
        gradients = self.gradients[self.windows % GRADIENTS]
        self.windows += 1
        for p, g in zip(self.params, gradients, strict=True):
            p.grad = g.clone()  # some implementations write into it
        synchronize()
        started = now()
        for _ in range(steps):
            for call in self.calls:
                call()
        synchronize()
        return (now() - started) / steps

    def states(self) -> list[dict[str, Tensor]]:
        """Tensors in the shape of a parameter that belong to it, by parameter and name."""
        found: list[dict[str, Tensor]] = [{} for _ in self.params]
        optimizer, depth = self.optimizer, 0
        while optimizer is not None:
            for p, of in zip(self.params, found, strict=True):
                entries = optimizer.state[p].items() if p in optimizer.state else ()
                of |= {f"{depth}.{k}": v for k, v in entries if isinstance(v, Tensor) and v.shape == p.shape}
            optimizer, depth = vars(optimizer).get("base"), depth + 1
        return found


# -- what a step does --------------------------------------------------------------------------------


class Observer(TorchDispatchMode):
    """Counts the numbers that reductions take, and looks for products of matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.reduced, self.multiplies = 0, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.multiplies |= func.overloadpacket in flop_registry
        taken = _numbers(args)
        if not func.is_view and 0 < 8 * _numbers(out) <= taken:
            self.reduced += taken
        return out


def _numbers(values: Any) -> int:
    if isinstance(values, Tensor):
        return values.numel()
    return sum(map(_numbers, values)) if isinstance(values, list | tuple) else 0


def observe(specs: Specs) -> Traits:
    """The traits of a rule, from a step on small matrices."""
    side = Side(fresh("matrices", OBSERVED_SIDE, "cpu"), specs)
    for _ in range(2):
        side.window(1, CLOCKS["cpu"], lambda: None)
    before = [{key: value.clone() for key, value in state.items()} for state in side.states()]
    with Observer() as seen:
        side.window(1, CLOCKS["cpu"], lambda: None)
    # The last parameter: what wraps an optimizer may leave the first one alone.
    old, new = before[-1], side.states()[-1]
    changed = sum(not torch.equal(old[key], new[key]) for key in old)
    reduced = round(seen.reduced / sum(p.numel() for p in side.params), 1)
    return Traits(len(old), 3 + len(old) + changed + reduced, reduced > 0, seen.multiplies)


# -- parameters --------------------------------------------------------------------------------------


def matrices(side: int, device: str = "cpu") -> Task:
    """A task whose model is eight square matrices."""
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(side, side, bias=False) for _ in range(COUNT))).to(device)
    info = Info(
        "multiclass", "mlp", "loss", None, minimize=True, num_train=1, num_classes=side, input_shape=(side,),
        input_range=None, batch_size=1, budget_samples=1000,
        param_kind={name: "hidden" for name, _ in model.named_parameters()},
    )  # fmt: skip
    rows = torch.zeros(1, side, device=device), torch.zeros(1, dtype=torch.int64, device=device)
    return Task(lambda: model, Stream(*rows, 1, 0), info, seed=0)


@functools.cache
def of_workload(name: str, device: str) -> Task:
    """The task of a workload in :data:`LISTS`."""
    config = compose([*LISTS[name], "algorithm=adamw", f"device={device}"])["workload"]
    workload = build_part("workload", config, prefix="")
    workload.prepare(Path())
    return workload.build(0, torch.device(device))[0]


def fresh(name: str, side: int, device: str) -> Task:
    """A task with parameters of its own, its budget partly used."""
    task = matrices(side, device) if name == "matrices" else of_workload(name, device)
    mine = Task(lambda: copy.deepcopy(task.model), task.data, task.info, seed=0)
    mine.cost.drawn = round(PROGRESS * task.info.budget_samples)
    return mine


# -- sides -------------------------------------------------------------------------------------------


def methods() -> list[str]:
    """Every optimizer part, then every wrapper."""
    found = [(KINDS.index(kind), path.stem) for kind, path in presets.parts() if kind in KINDS]
    return [name for _, name in sorted(found)]


def specs_of(method: str) -> Specs:
    """Configs of groups, optimizer and wrapper: the preset's."""
    algorithm = compose(["workload=digits", f"algorithm={method}", "device=cpu"])["algorithm"]
    return {key: algorithm[key] for key in ("groups", *KINDS) if algorithm.get(key) is not None}


def adamw(**changes: Any) -> Specs:
    """AdamW in the default groups."""
    specs = specs_of("adamw")
    return specs | {"optimizer": specs["optimizer"] | changes}


def library(method: str, specs: Specs) -> Specs | None:
    """pytorch_optimizer's class of that name at the same hyperparameters; None where it has no other one."""
    try:
        from pytorch_optimizer import load_optimizer  # pyright: ignore[reportMissingImports]

        cls = load_optimizer(method.replace("_", ""))
    except (ImportError, NotImplementedError):
        return None
    target = f"{cls.__module__}.{cls.__qualname__}"
    if cls.__module__.startswith("torch."):
        return None
    known = inspect.signature(cls).parameters
    ours = {k: v for k, v in specs["optimizer"].items() if k not in NOT_ARGUMENTS and v is not None}
    given = {ARGUMENTS.get(key, key): value for key, value in ours.items()}
    return {**specs, "optimizer": {"_target_": target} | {k: v for k, v in given.items() if k in known}}


def difference(a: Specs, b: Specs) -> float:
    """Relative difference of the displacements after five steps each on small matrices."""
    ends = []
    for specs in (a, b):
        side = Side(fresh("matrices", OBSERVED_SIDE, "cpu"), specs)
        start = [p.detach().clone() for p in side.params]
        for _ in range(5):
            side.window(1, CLOCKS["cpu"], lambda: None)
        ends.append(torch.stack(torch._foreach_sub([p.detach() for p in side.params], start)))
    return float((ends[0] - ends[1]).norm() / ends[0].norm())


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

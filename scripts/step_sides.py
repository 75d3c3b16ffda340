"""What ``scripts/bench_step.py`` times: an optimizer on parameters of its own, and what its step does."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from runner.compose import presets
from runner.compose.config import compose
from runner.contract.batch import Info
from runner.contract.instantiate import NOT_ARGUMENTS, build_part
from runner.contract.stream import Stream
from runner.contract.task import Task
from scripts.bench_loop import CLOCKS

KINDS = ("optimizer", "wrapper")
COUNT, OBSERVED_SIDE = 8, 64  # matrices, and the side of those on which a step is observed
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
Specs = dict[str, Any]


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

"""Try every optimizer and schedule of a library in a YAML of its name alone; says why one does not work.

python scripts/try_library.py torch.optim pytorch_optimizer torch.optim.lr_scheduler
python scripts/try_library.py timm.scheduler --only CosineLRScheduler --markdown table.md

Each trains breast_cancer for 60 steps, repeats a short run and resumes it from a checkpoint, bit for bit.
What the harness advises where something is missing is followed, and named in the table.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import inspect
import io
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from runner import allowances
from runner.check.result import Result
from runner.check.subject import Subject
from runner.check.trajectory import check_repeat, check_resume
from runner.config import compose
from runner.errors import UserError, one_line
from runner.stepped import optimizer_argument
from runner.targets import locate

TRIES = 5  # pieces of advice that are followed for one class
# Where the harness advises this, that is done: (choices of parts, keys of the YAML).
ADVICE: Mapping[str, tuple[dict[str, str], dict[str, Any]]] = {
    "algorithm/schedule=null": ({"schedule": "null"}, {}),
    "algorithm/groups=muon_groups says": ({"groups": "muon_groups"}, {}),
    "`others: ": ({}, {"others": {"_target_": "torch.optim.AdamW", "lr": 1e-3}}),
    "`closure: after_gradient`": ({}, {"closure": "after_gradient"}),
    "`closure: true`": ({}, {"closure": True}),
    "`create_graph: true`": ({}, {"create_graph": True}),
    "`model: ${setup:model}`": ({}, {"model": "${setup:model}"}),
}
# What an argument without a default gets, by its name.
GIVEN: Mapping[str, Any] = {
    "lr": 0.01,
    **dict.fromkeys(("num_iterations", "num_training_steps", "T_max", "total_steps", "t_max", "t_initial",
                     "first_cycle_steps", "num_steps", "max_t"), "${setup:steps}"),
    "num_data": "${setup:rows}",
    **dict.fromkeys(("num_warmup_steps", "num_stable_steps", "num_decay_steps", "T_0", "step_size",
                     "step_size_up", "decay_t", "decay_rate_t"), "${setup:0.1 * steps}"),
    "milestones": [20, 40],
    "gamma": 0.9,
    "max_lr": 0.01,
    "base_lr": 0.001,
    "decay_rate": 0.5,
    "value": 0.5,
    "lr_lambda": {"_target_": "math.pow", "_partial_": True, "_args_": [0.99]},
    "anneal_epochs": 5,
    "swa_lr": 0.005,
    "schedulers": [{"_target_": "torch.optim.lr_scheduler.LinearLR", "total_iters": 10},
                   {"_target_": "torch.optim.lr_scheduler.ExponentialLR", "gamma": 0.99},
                   {"_target_": "torch.optim.lr_scheduler.ConstantLR", "total_iters": 10}],
    "num_epochs": "${setup:steps}",
}  # fmt: skip


BASES = ("LRScheduler", "Scheduler")  # of schedules


@dataclass(frozen=True)
class Outcome:
    """What became of one class.

    Attributes:
        name: the class.
        kind: ``optimizer`` or ``schedule``.
        fault: why it does not work; None where it does.
        with_: what it needed beside its name.
    """

    name: str
    kind: str
    fault: str | None
    with_: tuple[str, ...] = ()


def members(module: str) -> Iterator[tuple[str, str]]:
    """(name, kind) of every optimizer and every schedule that a module gives."""
    loaded = locate(module)
    top = module.partition(".")[0]
    for name, item in sorted(vars(loaded).items()):
        if name.startswith("_"):
            continue
        if inspect.isclass(item) and issubclass(item, torch.optim.Optimizer):
            if item is not torch.optim.Optimizer and not _wraps(item):
                yield name, "optimizer"
        elif str(getattr(item, "__module__", "")).startswith(top) and _schedules(name, item):
            yield name, "schedule"


def _wraps(item: type) -> bool:
    """Whether a class stands around another optimizer: no part of this kind."""
    arguments = inspect.signature(item).parameters
    inner = (arguments[name] for name in ("optimizer", "base_optimizer", "base") if name in arguments)
    return any(a.default is a.empty and "Iterable" not in str(a.annotation) for a in inner)


def _schedules(name: str, item: Any) -> bool:
    if optimizer_argument(item) is None or "WithOptimizer" in name:
        return False
    if inspect.isclass(item):
        methods = all(hasattr(item, method) for method in ("step", "state_dict", "load_state_dict"))
        moves = (
            methods and "closure" in inspect.signature(vars(item).get("step", item)).parameters
        )  # it wraps an optimizer
        return methods and not moves and not inspect.isabstract(item) and name not in BASES
    return "schedule" in name


def attempt(module: str, name: str, kind: str) -> Outcome:
    """Train one class, following advice where there is some."""
    target = locate(f"{module}.{name}")
    spec: dict[str, Any] = {"_target_": f"{module}.{name}", **_needed(target)}
    outcome = Outcome(
        name, kind, None, tuple(f"`{key}: {_short(value)}`" for key, value in list(spec.items())[1:])
    )
    parts: dict[str, str] = {}
    for _ in range(TRIES):
        outcome = replace(outcome, fault=_fault(kind, spec, parts))
        if (allow := re.search(r"--allow (\w+)", outcome.fault or "")) and allow[0] not in outcome.with_:
            with _allowed(allow[1]):
                outcome = replace(outcome, fault=_fault(kind, spec, parts))
            outcome = replace(outcome, with_=(*outcome.with_, f"`{allow[0]}`"))
        found = next((a for a in ADVICE if outcome.fault is not None and a in outcome.fault), None)
        if found is None:
            return outcome
        more_parts, more_keys = ADVICE[found]
        if (parts | more_parts, spec | more_keys) == (parts, spec):
            return outcome
        parts, spec = parts | more_parts, spec | more_keys
        said = [f"`algorithm/{key}={value}`" for key, value in more_parts.items()]
        said += [f"`{key}: {_short(value)}`" for key, value in more_keys.items()]
        outcome = replace(outcome, with_=(*outcome.with_, *said))
    return outcome


@contextlib.contextmanager
def _allowed(package: str) -> Iterator[None]:
    before = os.environ.get(allowances.VARIABLE, "")
    allowances.hand_over([package])
    try:
        yield
    finally:
        os.environ[allowances.VARIABLE] = before


def _needed(target: Any) -> dict[str, Any]:
    arguments = list(inspect.signature(target).parameters.values())
    if optimizer_argument(target) is None:
        arguments = arguments if arguments[0].name in GIVEN else arguments[1:]
    needed = {
        a.name: copy.deepcopy(GIVEN[a.name]) for a in arguments if a.default is a.empty and a.name in GIVEN
    }
    if "max_lr" in needed and "total_steps" in inspect.signature(target).parameters:
        needed["total_steps"] = "${setup:steps}"
    return needed


def _short(value: Any) -> str:
    return "{…}" if isinstance(value, dict) else "[…]" if isinstance(value, list) else str(value).lower()


def _fault(kind: str, spec: Mapping[str, Any], parts: Mapping[str, str]) -> str | None:
    algorithm = copy.deepcopy(_base(tuple(sorted(parts.items()))))
    algorithm["algorithm"][kind] = dict(spec)
    subject = Subject(algorithm["algorithm"], algorithm["workload"], label=spec["_target_"])
    quiet = contextlib.redirect_stdout(io.StringIO())
    try:
        with warnings.catch_warnings(), quiet, contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            return _trained(subject)
    except UserError as error:
        return str(error)
    except Exception as error:
        return one_line(f"{type(error).__name__}: {error}")


def _trained(subject: Subject) -> str | None:
    if subject.refusal is not None:
        return subject.refusal
    if subject.long.ended != "budget":
        return f"ends as {subject.long.ended}"
    before, after = (row["validation/loss"] for row in (subject.long.rows[0], subject.long.rows[-1]))
    if before == after:
        return "the weights stand still"
    checks: tuple[Callable[[Subject], Result], ...] = (check_repeat, check_resume)
    results = (check(subject) for check in checks)
    return next((result.message for result in results if result.status == "failed"), None)


@functools.cache
def _base(parts: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    chosen = [f"algorithm/{kind}={name}" for kind, name in parts]
    return compose(["algorithm=adamw", "workload=breast_cancer", *chosen])


def markdown(tried: Mapping[str, Sequence[Outcome]]) -> str:
    """The counts of each module, then what did not work or needed more than its name."""
    lines = ["| library | kind | works | of |", "|---|---|--:|--:|"]
    for module, outcomes in tried.items():
        for kind in ("optimizer", "schedule"):
            own = [o for o in outcomes if o.kind == kind]
            if own:
                works = sum(o.fault is None for o in own)
                lines.append(f"| `{module}` | {kind} | {works} | {len(own)} |")
    lines += ["", "| class | needs, beside its name | does not work |", "|---|---|---|"]
    for module, outcomes in tried.items():
        for o in outcomes:
            if o.fault or o.with_:
                fault = one_line(o.fault or "", 160).replace("|", "/")
                lines.append(f"| `{module}.{o.name}` | {', '.join(o.with_)} | {fault} |")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Try what is named; returns 1 where something does not work."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="+", help="modules that give optimizers or schedules")
    parser.add_argument("--only", nargs="+", help="these classes alone")
    parser.add_argument("--markdown", type=Path, help="write the table here")
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    tried: dict[str, list[Outcome]] = {}
    for module in given.modules:
        for name, kind in members(module):
            if given.only and name not in given.only:
                continue
            outcome = attempt(module, name, kind)
            tried.setdefault(module, []).append(outcome)
            said = outcome.fault or "ok"
            print(f"{module}.{name}: {said} {' '.join(outcome.with_)}".rstrip(), flush=True)
    for module, outcomes in tried.items():
        print(f"{module}: {sum(o.fault is None for o in outcomes)} of {len(outcomes)} work")
    if given.markdown:
        given.markdown.write_text(markdown(tried), encoding="utf-8")
    return int(any(o.fault for outcomes in tried.values() for o in outcomes))


if __name__ == "__main__":
    sys.exit(main())

"""Try every optimizer, schedule, loss and average of a library by its name alone; says why one does not work.

python scripts/try_library.py torch.optim pytorch_optimizer torch.optim.lr_scheduler
python scripts/try_library.py timm.scheduler --only CosineLRScheduler --markdown table.md
python scripts/try_library.py pytorch_optimizer --check

Each trains a small workload for 60 steps (a loss one of each task), repeats a short run and resumes it from a
checkpoint, bit for bit. What the harness advises where something is missing is followed, and named in the
table. --check holds what works to all of runner.check, too.
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
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from runner.base.errors import UserError, one_line
from runner.check.result import Result
from runner.check.subject import Subject
from runner.check.subjects import SMALL, small_workload
from runner.check.suite import run_check, run_checks
from runner.check.trajectory import check_repeat, check_resume
from runner.compose.config import compose
from runner.contract.placeholders import example
from runner.contract.targets import arguments, locate
from runner.parts.averages import UPDATES
from runner.parts.hints import NO_GROUPS
from runner.parts.loss_forms import INPUTS
from runner.parts.stepped import optimizer_argument
from runner.provenance import allowances

KINDS = ("optimizer", "schedule", "loss", "average")
TASKS = {"classes": "digits", "binary": "breast_cancer", "numbers": "least_squares"}
TRIES = 5  # pieces of advice that are followed for one class
# Where the harness advises this, that is done: (choices of parts, keys of the YAML).
ADVICE: Mapping[str, tuple[dict[str, str], dict[str, Any]]] = {
    "algorithm/schedule=null": ({"schedule": "null"}, {}),
    "algorithm/groups=muon_groups says": ({"groups": "muon_groups"}, {}),
    "`others: ": ({}, {"others": {"_target_": "torch.optim.AdamW", "lr": 1e-3}}),
    "`closure: after_gradient`": ({}, {"closure": "after_gradient"}),
    "`closure: true`": ({}, {"closure": True}),
    "`create_graph: true`": ({}, {"create_graph": True}),
    **{f"`{first}: {example(known)}`": ({}, {first: example(known)}) for first, known in NO_GROUPS.items()},
    **{f"can be called with {word} or": ({}, {"inputs": word}) for word in INPUTS},
}
WAITS = {"syncs_every": 1}  # where a check advises it
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
    "name": "cosine",
    "min_lr": 1e-4,
}  # fmt: skip


BASES = ("LRScheduler", "Scheduler")  # of schedules


@dataclass(frozen=True)
class Outcome:
    """What became of one class.

    Attributes:
        name: the class.
        kind: of :data:`KINDS`.
        fault: why it does not work; None where it does.
        with_: what it needed beside its name.
        algorithm: the config in which it was tried last.
        workload: on what.
        allowed: packages whose objects checkpoints may hold.
        checks: what :mod:`runner.check` says, by check.
    """

    name: str
    kind: str
    fault: str | None
    with_: tuple[str, ...] = ()
    algorithm: Mapping[str, Any] = field(default_factory=dict)
    workload: str = ""
    allowed: tuple[str, ...] = ()
    checks: Mapping[str, Result] = field(default_factory=dict)


def members(module: str) -> Iterator[tuple[str, str]]:
    """(name, kind) of every optimizer, schedule, loss and average that a module gives."""
    loaded = locate(module)
    top = module.partition(".")[0]
    for name, item in sorted(vars(loaded).items()):
        if name.startswith("_"):
            continue
        if inspect.isclass(item) and issubclass(item, torch.optim.Optimizer):
            if item is not torch.optim.Optimizer and not _wraps(item):
                yield name, "optimizer"
        elif str(getattr(item, "__module__", "")).startswith(top):
            kind = next((kind for kind, is_one in RECOGNIZED.items() if is_one(name, item)), None)
            if kind is not None:
                yield name, kind


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
    return inspect.isfunction(item) and "schedule" in name


def _loses(name: str, item: Any) -> bool:
    if inspect.isclass(item):
        return issubclass(item, torch.nn.Module) and re.search("Loss|Entropy", name) is not None
    called = inspect.isfunction(item) and re.search("loss|entropy", name) is not None
    return called and len([a for a in arguments(item).values() if a.default is a.empty]) > 1


def _averages(name: str, item: Any) -> bool:
    if inspect.isclass(item):
        return any(hasattr(item, method) for method in UPDATES) and "model" in arguments(item)
    return name.endswith("avg_fn")


RECOGNIZED: Mapping[str, Callable[[str, Any], bool]] = {
    "schedule": _schedules, "loss": _loses, "average": _averages,
}  # fmt: skip


def attempt(module: str, name: str, kind: str) -> Outcome:
    """Train one class, following advice where there is some; a loss on each kind of task."""
    tasks = TASKS if kind == "loss" else {"binary": TASKS["binary"]}
    tried = {task: _attempt(f"{module}.{name}", name, kind, workload) for task, workload in tasks.items()}
    fits = [task for task, outcome in tried.items() if outcome.fault is None]
    outcome = tried[fits[0]] if fits else next(iter(tried.values()))
    only = (f"a task of {' or '.join(fits)}",) if 0 < len(fits) < len(tried) else ()
    return replace(outcome, with_=(*only, *outcome.with_))


def _attempt(dotted: str, name: str, kind: str, workload: str) -> Outcome:
    spec: dict[str, Any] = {"_target_": dotted, **_needed(locate(dotted))}
    given = tuple(f"`{key}: {_short(value)}`" for key, value in list(spec.items())[1:])
    outcome = Outcome(name, kind, None, given, workload=workload)
    parts: dict[str, str] = {}
    for _ in range(TRIES):
        outcome = _tried(outcome, spec, parts)
        if allow := re.search(r"--allow (\w+)", outcome.fault or ""):
            with_ = (*outcome.with_, f"`{allow[0]}`")
            outcome = _tried(replace(outcome, with_=with_, allowed=(allow[1],)), spec, parts)
        if outcome.fault is None:
            return outcome
        more_parts, more_keys = _advice(outcome.fault, locate(dotted), spec)
        if (parts | more_parts, spec | more_keys) == (parts, spec):
            return outcome
        parts, spec = parts | more_parts, spec | more_keys
        said = [f"`algorithm/{key}={value}`" for key, value in more_parts.items()]
        said += [f"`{key}: {_short(value)}`" for key, value in more_keys.items()]
        outcome = replace(outcome, with_=(*outcome.with_, *said))
    return outcome


def _advice(fault: str, target: Any, spec: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
    """What the harness advises; else an argument that the complaint names, as far as one is known to fit."""
    if (found := next((advice for advice in ADVICE if advice in fault), None)) is not None:
        return ADVICE[found]
    named = (word for word in re.findall(r"\w+", fault) if word in GIVEN and word not in spec)
    wanted = next((word for word in named if word in arguments(target)), None)
    return ({}, {}) if wanted is None else ({}, {wanted: copy.deepcopy(GIVEN[wanted])})


def _tried(outcome: Outcome, spec: Mapping[str, Any], parts: Mapping[str, str]) -> Outcome:
    chosen = tuple(f"algorithm/{kind}={name}" for kind, name in sorted(parts.items()))
    algorithm = {**_base(outcome.workload, chosen)["algorithm"], outcome.kind: dict(spec)}
    outcome = replace(outcome, algorithm=algorithm)
    return replace(outcome, fault=_fault(outcome))


def check(outcome: Outcome) -> Outcome:
    """The same with all of :mod:`runner.check`; a wait is declared where that is advised."""
    with _undisturbed(outcome.allowed):
        found = dict(run_checks(_subject(outcome)))
        if found["syncs"].status == "failed":
            own = {**outcome.algorithm[outcome.kind], **WAITS}
            waits = replace(outcome, algorithm={**outcome.algorithm, outcome.kind: own})
            found["syncs"] = run_check("syncs", _subject(waits))
    return replace(outcome, checks=found)


def _subject(outcome: Outcome) -> Subject:
    workload = copy.deepcopy(_base(outcome.workload, ())["workload"])
    label = outcome.algorithm[outcome.kind]["_target_"]
    return Subject(copy.deepcopy(outcome.algorithm), workload, label, tuple(map(small_workload, SMALL)))


@contextlib.contextmanager
def _undisturbed(allowed: Sequence[str]) -> Iterator[None]:
    """Says nothing and warns of nothing; checkpoints may hold objects of ``allowed``."""
    quiet, silent = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with _allowing(allowed), warnings.catch_warnings(), quiet, silent:
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _allowing(packages: Sequence[str]) -> Iterator[None]:
    before = os.environ.get(allowances.VARIABLE, "")
    allowances.hand_over(packages)
    try:
        yield
    finally:
        os.environ[allowances.VARIABLE] = before


def _needed(target: Any) -> dict[str, Any]:
    taken = list(arguments(target).values())
    if optimizer_argument(target) is None and taken:
        taken = taken if taken[0].name in GIVEN else taken[1:]
    needed = {a.name: _given(a) for a in taken if a.default is a.empty and a.name in GIVEN}
    if "max_lr" in needed and "total_steps" in arguments(target):
        needed["total_steps"] = "${setup:steps}"
    is_loss = inspect.isfunction(target) and _loses(target.__name__, target)
    return needed | ({"_partial_": True} if is_loss else {})


def _given(argument: inspect.Parameter) -> Any:
    """A value by its name, or by its type: a list is one of milestones."""
    listed = "list" in str(argument.annotation).lower() and isinstance(
        GIVEN[argument.name], (int, float, str)
    )
    return copy.deepcopy(GIVEN["milestones" if listed else argument.name])


def _short(value: Any) -> str:
    return "{…}" if isinstance(value, dict) else "[…]" if isinstance(value, list) else str(value).lower()


def _fault(outcome: Outcome) -> str | None:
    try:
        with _undisturbed(outcome.allowed):
            return _trained(_subject(outcome))
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
def _base(workload: str, chosen: tuple[str, ...]) -> dict[str, Any]:
    return compose(["algorithm=adamw", f"workload={workload}", *chosen])


def markdown(tried: Mapping[str, Sequence[Outcome]]) -> str:
    """The counts of each module, then what did not work or needed more than its name."""
    lines = ["| library | kind | works | of |", "|---|---|--:|--:|"]
    for module, outcomes in tried.items():
        for kind in KINDS:
            own = [o for o in outcomes if o.kind == kind]
            if own:
                works = sum(o.fault is None for o in own)
                lines.append(f"| `{module}` | {kind} | {works} | {len(own)} |")
    lines += ["", "| class | needs, in addition to its name | why it does not work |", "|---|---|---|"]
    for module, outcomes in tried.items():
        for o in outcomes:
            if o.fault or o.with_:
                fault = one_line(o.fault or "", 160).replace("|", "/")
                lines.append(f"| `{module}.{o.name}` | {', '.join(o.with_)} | {fault} |")
    return "\n".join([*lines, *_of_checks(tried)]) + "\n"


def _of_checks(tried: Mapping[str, Sequence[Outcome]]) -> list[str]:
    """How many checks hold, and each that does not."""
    names = {
        f"{module}.{o.name}": o.checks for module, outcomes in tried.items() for o in outcomes if o.checks
    }
    if not names:
        return []
    counts = Counter(result.status for checks in names.values() for result in checks.values())
    lines = ["", f"{counts['ok']} of {counts['ok'] + counts['failed']} checks hold.", ""]
    lines += ["| class | check | |", "|---|---|---|"]
    for name, checks in names.items():
        failed = {check: result for check, result in checks.items() if result.status == "failed"}
        lines += [f"| `{name}` | {check} | {result.message} |" for check, result in failed.items()]
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Try what is named; returns 1 where something does not work."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "modules", nargs="+", help="modules that give optimizers, schedules, losses, averages"
    )
    parser.add_argument("--only", nargs="+", help="these classes alone")
    parser.add_argument("--check", action="store_true", help="hold what works to all of runner.check")
    parser.add_argument("--markdown", type=Path, help="write the tables here")
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    tried: dict[str, list[Outcome]] = {module: [] for module in given.modules}
    for module in given.modules:
        for name, kind in members(module):
            if given.only and name not in given.only:
                continue
            outcome = attempt(module, name, kind)
            tried[module].append(check(outcome) if given.check and outcome.fault is None else outcome)
            said = outcome.fault or "ok"
            print(f"{module}.{name}: {said} {' '.join(outcome.with_)}".rstrip(), flush=True)
    for module, outcomes in tried.items():
        print(f"{module}: {sum(o.fault is None for o in outcomes)} of {len(outcomes)} work")
    print("\n".join(_of_checks(tried)))
    if given.markdown:
        given.markdown.write_text(markdown(tried), encoding="utf-8")
    return int(any(o.fault for outcomes in tried.values() for o in outcomes))


if __name__ == "__main__":
    sys.exit(main())

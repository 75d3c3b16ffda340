"""Cards: what a method's docstring (or, for a class of torch's, its YAML) declares."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from runner.base.paths import CONF
from runner.check.origin import is_project
from runner.check.result import Result, failed, verdict
from runner.check.subject import Subject
from runner.compose import presets

SECTIONS = ("Paper", "Update", "Defaults", "State", "Cost", "Pitfalls", "Deviations")
COST = re.compile(r"Cost:\s+([\d.]*\d) forward, ([\d.]*\d) backward(?:, ([\d.]*\d) hvp)?\.(?!\d)")


class Rows(NamedTuple):
    """Rows passed forward, backward and through Hessian-vector products, for each row drawn."""

    forward: float
    backward: float
    hvp: float


def check_card(subject: Subject) -> Result:
    """Every part can be built, has a YAML with a one-line summary, and a complete card."""
    algorithm = subject.build_algorithm()
    if not hasattr(algorithm, "step"):
        return failed(f"{type(algorithm).__name__} has no step(): it is no algorithm")
    faults = (_fault(kind, target, subject.config_dirs) for kind, target in subject.targets())
    return verdict(next((fault for fault in faults if fault is not None), None))


def _fault(kind: str, target: str, config_dirs: Sequence[Path] = ()) -> str | None:
    files = yamls(target, config_dirs)
    if target.startswith("algorithms.") and not files:
        return f"{kind} ({target}): no YAML under conf/algorithm/ names it as its _target_"
    for path in files:
        if not presets.summary(path):
            return f"{path.name}: the first line must be a comment that sums the method up"
    return None if not is_project(_module(target)) else _card_fault(target)


def _card_fault(target: str) -> str | None:
    card = _docstring(target)
    if not card.split("\n", 1)[0].strip() or card.startswith(tuple(f"{name}:" for name in SECTIONS)):
        return f"{target}: its docstring must begin with a one-line summary"
    missing = [name for name in SECTIONS if not re.search(rf"^{name}:\s*\S", card, re.MULTILINE)]
    if missing:
        return f"{target}: its card lacks {', '.join(missing)}"
    if COST.search(card) is None:
        return f"{target}: its card's cost must read `Cost: F forward, B backward[, H hvp].`, in numbers"
    return None


def declared(target: str, config_dirs: Sequence[Path] = ()) -> Rows | None:
    """The cost that a target's card declares, or the comments of its YAML; None where neither does."""
    texts = (
        [_docstring(target)]
        if is_project(_module(target))
        else [path.read_text("utf-8") for path in yamls(target, config_dirs)]
    )
    for text in texts:
        if (found := COST.search(text)) is not None:
            return Rows(*(float(number or 0) for number in found.groups()))
    return None


def yamls(target: str, config_dirs: Sequence[Path] = ()) -> list[Path]:
    """The files under conf/algorithm, and under ``algorithm`` in the user's folders, that name ``target``."""
    return _by_target(tuple(config_dirs)).get(target, [])


@functools.cache
def _by_target(config_dirs: tuple[Path, ...]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in _files(config_dirs):
        for target in re.findall(r"^_target_:\s*['\"]?([\w.]+)", path.read_text("utf-8"), re.MULTILINE):
            found.setdefault(target, []).append(path)
    return found


def _files(config_dirs: Sequence[Path]) -> Iterator[Path]:
    for folder in (CONF, *config_dirs):
        yield from sorted((folder / "algorithm").glob("*.yaml"))
    yield from (path for _, path in presets.parts(config_dirs))


def _docstring(target: str) -> str:
    import inspect

    from hydra.utils import get_object

    part: Any = get_object(target)
    return inspect.cleandoc(part.__doc__ or "")


def _module(target: str) -> str:
    from hydra.utils import get_object

    return getattr(get_object(target), "__module__", target.rpartition(".")[0])

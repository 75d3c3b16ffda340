"""Whose classes may be built from a stored config, or read from a checkpoint: docs/security.md is the model.

A results folder may come from elsewhere, so what it names is looked up only where that is a class

- of this project, of ``torch.optim`` or ``torch.nn``: :data:`OURS`, by where the class is *defined*; nothing
  is imported to find that out,
- of a package, or of a name, that the user has allowed (:mod:`runner.provenance.allowances`).

For configs there is :func:`check`. For anything that names classes, such as a pickle, there are two
questions: :func:`allowed` (may it? by the name alone) and :func:`resolved` (then which class is it?), so
``safe_globals([resolved(name) for name in get_unsafe_globals_in_checkpoint(file) if allowed(name)])``.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from runner.base.errors import UserError, one_line
from runner.base.paths import is_ours, shown
from runner.contract.moved import present
from runner.contract.placeholders import is_placeholder
from runner.contract.targets import locate
from runner.provenance import allowances, scripts
from runner.provenance.definitions import definition
from runner.provenance.source import homes, module_file, source_file

PARTS = ("algorithms", "workloads", "runner.parts.composed", "runner.diagnostics", "runner.logs")
LAYERS = ("torch.optim", "torch.nn", "torchvision.models", "torchvision.ops")
FUNCTIONS = "torch.nn.functional"  # the one module whose functions are allowed, too: they only compute
OURS = (*PARTS, *LAYERS)
MODEL = "docs/security.md"
HOW_TO_ALLOW = f"if you trust it, run it once yourself, or add its folder to {allowances.VARIABLE} ({MODEL})"
# A config that one has composed oneself allows nothing more of them.
NOT_REMEMBERED = (*sys.stdlib_module_names, "torch")


def allowed(name: str) -> bool:
    """Whether a class of this dotted name may be built or unpickled; nothing is imported.

    Of a package that the user has allowed, what the name leads to is only seen by :func:`resolved`.
    """
    return _is_ours(name) or name in (known := allowances.names()) or _is_below(name, known)


def resolved(name: str) -> Any:
    """The class of an allowed name. What was allowed by its very name may be a function, too.

    Raises:
        UserError: for a name that is not allowed, or one that leads out of the package, as
            ``my_package.os.system`` does.
        ImportError: where there is no such thing, or its module does not run.
    """
    if not allowed(name):
        raise UserError(refusal(name))
    found = locate(name)
    if _is_ours(name) or name in allowances.names():
        return found
    home = f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
    if not inspect.isclass(found) or not allowed(home):
        raise UserError(f"{name} is not a class of {_top(name)} ({MODEL})")
    return found


def add_option(parser: argparse.ArgumentParser) -> None:
    """``--allow``, the same for every command; :func:`allow` takes what it was given."""
    parser.add_argument(
        "--allow", action="append", default=[], metavar="PACKAGE",
        help=f"allow stored configs to use this package's classes from now on ({MODEL}); repeatable",
    )  # fmt: skip


def allow(packages: Iterable[str]) -> None:
    """What ``--allow`` names: allowed, and remembered in this user's settings.

    Raises:
        UserError: for what is no dotted name.
    """
    wanted = list(packages)
    for name in wanted:
        if not allowances.is_name(name):
            raise UserError(
                f"--allow {one_line(name, 80)}: expected the name of a package, such as my_package"
            )
    try:
        allowances.remember([*wanted, *homes(filter(module_file, map(_top, wanted)))])
    except OSError as error:
        print(f"warning: --allow is not remembered: {one_line(str(error))}", file=sys.stderr)


def check(config: Any) -> None:
    """See that everything that a stored config would build is allowed, by the names alone.

    Raises:
        UserError: names the key, the class, and what to do.
    """
    for where, target in targets(config):
        if not (isinstance(target, str) and allowed(target)):
            raise UserError(f"{where} names {refusal(target)}")
    for file in scripts.named(config.get("algorithm") if isinstance(config, Mapping) else None):
        if not _is_known(file):
            raise UserError(f"algorithm runs {shown(file)}, code you have not run: {HOW_TO_ALLOW}")
    for where, text in _texts(config):
        if "${" in text and not is_placeholder(text):  # what builds models would resolve it
            raise UserError(
                f"{where} holds {one_line(text, 80)}, which does not belong in a resolved config ({MODEL})"
            )


def check_parts(config: Any) -> None:
    """The same, and what the names lead to, whose packages are imported.

    Raises:
        UserError: as :func:`check`, and where a package cannot be imported.
    """
    check(config)
    for where, target in targets(config):
        if not _is_ours(target):
            try:
                resolved(target)
            except ImportError as error:
                raise UserError(f"{where} ({target}): {one_line(str(error))}") from error


def own(config: Mapping[str, Any], modules: Mapping[str, str]) -> None:
    """Remember what a config names that this user has composed: to run it oneself is to allow it.

    Of one's own code that is the package and the folder that holds it; of a file that an algorithm runs its
    folder; of installed packages the class alone; of Python's own modules and torch nothing, but for the
    processes that are started from here.

    Args:
        config: the cell's.
        modules: the modules that it imports: those that lie outside have folders.
    """
    named = {t for _, t in targets(config) if isinstance(t, str) and not _is_ours(t)}
    folders = {str(file.parent) for file in scripts.named(config.get("algorithm")) if not _is_known(file)}
    allowances.hand_over(named)
    lasting = {name for name in named if _top(name) not in NOT_REMEMBERED}
    packages = {_top(name) for name in lasting if module_file(_top(name))}
    if lasting or folders:
        with contextlib.suppress(OSError):  # a later retry asks for --allow
            allowances.remember({*lasting, *packages, *folders, *(homes(modules) if lasting else ())})


def targets(tree: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, what it names) of every ``_target_`` in a config, whatever is written there."""
    if isinstance(tree, Mapping):
        if "_target_" in tree:
            yield where or "config", present(tree["_target_"])
        for key, value in tree.items():
            yield from targets(value, f"{where}.{key}".lstrip("."))
    elif isinstance(tree, (list, tuple)):
        for place, value in enumerate(tree):
            yield from targets(value, f"{where}.{place}")


def _texts(tree: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, text) of every text in a config, its keys included."""
    if isinstance(tree, str):
        yield where or "config", tree
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield where or "config", str(key)
            yield from _texts(value, f"{where}.{key}".lstrip("."))
    elif isinstance(tree, (list, tuple)):
        for place, value in enumerate(tree):
            yield from _texts(value, f"{where}.{place}")


def refusal(target: Any) -> str:
    """What to say of a name that is not allowed."""
    name = one_line(str(target), 80)
    if not allowances.is_name(name) or _is_below(f"{name}.", OURS):
        return f"{name}, which is not a part's class ({MODEL})"
    return f"{name}, code you have not allowed: if you trust it, add --allow {_top(name)} ({MODEL})"


def _is_ours(name: str) -> bool:
    """Whether a file of :data:`OURS` defines that class: what such a file has imported does not count."""
    if not _is_below(name, OURS):
        return False
    found = definition(name)
    if found is None or not (isinstance(found.node, ast.ClassDef) or found.module == FUNCTIONS):
        return False
    if not _is_below(f"{found.module}.", PARTS):
        return _is_below(f"{found.module}.", LAYERS)
    file = source_file(found.module)  # in a folder with modules of these names Python finds those
    return file is not None and is_ours(file)


def _is_known(script: Path) -> bool:
    """Whether a file of Python lies in the project, or in a folder from which this user has run code."""
    return is_ours(script) or str(script.parent) in allowances.folders()


def _top(name: str) -> str:
    return name.partition(".")[0]


def _is_below(name: str, packages: Iterable[str]) -> bool:
    return any(name.startswith(f"{package}.") for package in packages)

"""Cards of methods and data sets: what a docstring says, read from its file without running it."""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runner.paths import CONF, ROOT

KNOWN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+")
HOMES = ("algorithms", "workloads", "runner")  # packages whose files are read


def targets(config: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(part, dotted path of its class), of a resolved config; the whole is called ``algorithm``."""
    if not isinstance(config, Mapping):
        return
    if isinstance(target := config.get("_target_"), str):
        yield prefix or "algorithm", target
    for key, value in config.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            yield from targets(value, name)
        elif isinstance(value, list):
            for item in value:
                yield from targets(item, name)


def card(target: str) -> str:
    """The docstring of a class or function; of a library's, the comments of the YAML that names it."""
    if not KNOWN.fullmatch(target):
        return ""
    module, _, name = target.rpartition(".")
    return _docstring(module, name) or _comments().get(target, "")


@functools.cache
def _docstring(module: str, name: str) -> str:
    if module.partition(".")[0] not in HOMES:
        return ""
    base = ROOT.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return _of_file(path, name)
    return ""


def _of_file(path: Path, name: str) -> str:
    try:
        tree = ast.parse(path.read_text())
    except (OSError, ValueError, SyntaxError):
        return ""
    kinds = (ast.ClassDef, ast.FunctionDef)
    found = next((node for node in tree.body if isinstance(node, kinds) and node.name == name), None)
    return inspect.cleandoc((found and ast.get_docstring(found)) or "")


@functools.cache
def _comments() -> dict[str, str]:
    """Dotted path -> leading comments of the YAML under ``conf/`` whose ``_target_`` it is."""
    found: dict[str, str] = {}
    for path in sorted(CONF.rglob("*.yaml")):
        text = path.read_text()
        lines = [
            line[1:].strip() for line in text.splitlines() if line.startswith("#") and "@package" not in line
        ]
        for target in re.findall(r"^_target_:\s*['\"]?([\w.]+)", text, re.MULTILINE):
            found.setdefault(target, "\n".join(lines))
    return found

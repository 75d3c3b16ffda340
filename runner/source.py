"""Which of the project's own files a cell's numbers depend on, and a hash of what they say.

Imports are followed statically, so that nothing is executed and nothing heavy is imported. Comments,
docstrings and layout do not count.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

ENTRY = "runner.execute"  # what a worker runs


def source_hashes(config: Mapping[str, Any]) -> dict[str, str]:
    """Module name -> hash, for every project module that the cell of this config imports, transitively."""
    # Where a cell logs to is no part of its numbers.
    todo, found = [ENTRY, *targets({key: config.get(key) for key in ("algorithm", "workload")})], {}
    while todo:
        name = todo.pop()
        if name in found:
            continue
        path = module_file(name)
        if path is None:
            continue
        found[name], imports = _read(path, name, path.stat().st_mtime_ns)
        todo += imports
    return dict(sorted(found.items()))


def combined(hashes: Mapping[str, str]) -> str:
    """One hash for all of them."""
    text = "\n".join(f"{name} {value}" for name, value in sorted(hashes.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def targets(tree: Any) -> Iterator[str]:
    """Modules named by the ``_target_`` keys of a config."""
    if isinstance(tree, Mapping):
        if isinstance(tree.get("_target_"), str):
            yield tree["_target_"].rpartition(".")[0]
        for value in tree.values():
            yield from targets(value)


def module_file(name: str) -> Path | None:
    """The source file of a project module; None for the standard library and installed packages."""
    return _find(name, tuple(sys.path))


@functools.lru_cache(maxsize=4096)
def _find(name: str, _search_path: tuple[str, ...]) -> Path | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    path = Path(spec.origin).resolve()
    return None if any(path.is_relative_to(root) for root in _installed()) else path


@functools.lru_cache(maxsize=1)
def _installed() -> tuple[Path, ...]:
    paths = {sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    paths |= {p for p in sys.path if p.endswith(("site-packages", "dist-packages"))}
    return tuple(Path(p).resolve() for p in paths if p)


@functools.lru_cache(maxsize=4096)
def _read(path: Path, name: str, _mtime: int) -> tuple[str, tuple[str, ...]]:
    tree = ast.parse(path.read_text(), filename=str(path))
    imports = tuple(_imports(tree, name, path.name == "__init__.py"))
    _strip_docstrings(tree)
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:16], imports


def _imports(tree: ast.AST, name: str, is_package: bool) -> Iterator[str]:
    package = name.split(".") if is_package else name.split(".")[:-1]
    for depth in range(1, len(package) + 1):
        yield ".".join(package[:depth])
    for node in _executed(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *(node.module.split(".") if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _executed(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those under ``if TYPE_CHECKING:``."""
    todo = [tree]
    while todo:
        node = todo.pop()
        yield node
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            todo += node.orelse
        else:
            todo += ast.iter_child_nodes(node)


def _strip_docstrings(tree: ast.AST) -> None:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body
            if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
                node.body = body[1:] or [ast.Pass()]


def changed_modules(before: Mapping[str, str], now: Mapping[str, str]) -> Iterable[str]:
    """Names of the modules whose hash differs, appeared or went."""
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))

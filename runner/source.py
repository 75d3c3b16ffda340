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
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

ENTRY = "runner.execute"  # what a worker runs


def source_hashes(config: Mapping[str, Any]) -> dict[str, str]:
    """Module name -> hash, for every project module that the cell of this config imports, transitively."""
    # Where a cell logs to is no part of its numbers.
    roots = ENTRY, *targets({key: config.get(key) for key in ("algorithm", "workload")})
    key = roots, tuple(sys.path)
    known = _walked.get(key)
    # A grid asks thousands of times for a few sets of roots: what was found stands while no file has changed.
    if known is None or known[0] != _stamps(known[0]):
        found = _walk(roots)
        known = _walked[key] = _stamps(path for name in found if (path := module_file(name))), found
    return dict(known[1])


_walked: dict[tuple[tuple[str, ...], tuple[str, ...]], tuple[dict[Path, int], dict[str, str]]] = {}


def _stamps(files: Iterable[Path]) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns if file.exists() else 0 for file in files}


def _walk(roots: Iterable[str]) -> dict[str, str]:
    todo, found = list(roots), {}
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
def _find(name: str, search_path: tuple[str, ...]) -> Path | None:
    spec = _spec(name, search_path)
    path = None if spec is None else _python_file(spec)
    return None if path is None or any(path.is_relative_to(root) for root in _installed()) else path


def source_file(name: str) -> Path | None:
    """The source file of any module, also of an installed one; None where it has none in Python."""
    spec = _spec(name, tuple(sys.path))
    return None if spec is None else _python_file(spec)


def _python_file(spec: ModuleSpec) -> Path | None:
    return Path(spec.origin).resolve() if spec.origin is not None and spec.origin.endswith(".py") else None


@functools.lru_cache(maxsize=4096)
def _spec(name: str, search_path: tuple[str, ...]) -> ModuleSpec | None:
    """What would be imported; unlike importlib's own, this never imports the packages around it."""
    parent = name.rpartition(".")[0]
    try:
        if not parent:
            return importlib.util.find_spec(name)
        above = _spec(parent, search_path)
        if above is None or above.submodule_search_locations is None:
            return None
        return PathFinder.find_spec(name, above.submodule_search_locations)
    except (ImportError, ValueError, AttributeError):
        return None


@functools.lru_cache(maxsize=1)
def _installed() -> tuple[Path, ...]:
    paths = {sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    paths |= {p for p in sys.path if p.endswith(("site-packages", "dist-packages"))}
    return tuple(Path(p).resolve() for p in paths if p)


@functools.lru_cache(maxsize=4096)
def _read(path: Path, name: str, _mtime: int) -> tuple[str, tuple[str, ...]]:
    tree = ast.parse(path.read_bytes(), filename=str(path))
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


_loaded: dict[str, str] = {}


def loaded_hashes(config: Mapping[str, Any]) -> dict[str, str]:
    """:func:`source_hashes` of what this process runs: a file edited since stays as it was first seen."""
    return {name: _loaded.setdefault(name, value) for name, value in source_hashes(config).items()}


def outdated(recorded: Mapping[str, str]) -> bool:
    """Whether a module of those recorded says something else by now, or is gone.

    A module that is imported only now needs no look: the module that imports it has changed.
    """
    return any(current(name) != value for name, value in recorded.items())


def current(name: str) -> str | None:
    """Hash of a project module as it is now; None where there is none."""
    path = module_file(name)
    return None if path is None else _read(path, name, path.stat().st_mtime_ns)[0]


def changed_modules(before: Mapping[str, str], now: Mapping[str, str]) -> Iterable[str]:
    """Names of the modules whose hash differs, appeared or went."""
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))

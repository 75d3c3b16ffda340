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
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from runner.base.paths import ROOT, is_ours
from runner.contract.moved import present
from runner.provenance import allowances, data_files, scripts

ENTRY = "runner.train.session"  # what a worker runs
UNAVAILABLE = "unavailable"  # the state of a finished cell that could not be trained again from here


def source_hashes(config: Mapping[str, Any]) -> dict[str, str]:
    """Module name -> hash, for every project module that the cell of this config imports, transitively.

    Files that its algorithm runs (:mod:`runner.provenance.scripts`) go by their own names.
    """
    # Where a cell logs to is no part of its numbers.
    files = map(scripts.name, scripts.named(config.get("algorithm")))
    roots = ENTRY, *targets({key: config.get(key) for key in ("algorithm", "workload")}), *files
    key = roots, tuple(sys.path)
    known = _walked.get(key)
    # A grid asks thousands of times for a few sets of roots: what was found stands while no file has changed.
    if known is None or known[0] != _stamps(known[0]):
        found = _walk(roots)
        known = _walked[key] = _stamps(_looked_at(found)), found
    return dict(known[1])


_walked: dict[tuple[tuple[str, ...], tuple[str, ...]], tuple[dict[Path, int], dict[str, str]]] = {}


def _looked_at(modules: Iterable[str]) -> set[Path]:
    """Their files, and the folders in which a file that was not there yet would be found."""
    files = {path for name in modules if (path := module_file(name))}
    searched = {Path(entry) for entry in sys.path if not _is_installed(Path(entry).resolve())}
    return files | {path.parent for path in files} | searched


def _stamps(paths: Iterable[Path]) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns if path.exists() else 0 for path in paths}


def _walk(roots: Iterable[str]) -> dict[str, str]:
    todo, found = list(roots), {}
    while todo:
        name = todo.pop()
        if name in found:
            continue
        if (script := scripts.file_of(name)) is not None:
            todo += _walk_script(script, found)
            continue
        path = module_file(name)
        if path is None:
            continue
        found[name], imports = _read(path, name, path.stat().st_mtime_ns)
        todo += imports
    return dict(sorted(found.items()))


def _walk_script(main: Path, found: dict[str, str]) -> list[str]:
    """Add a file and what it imports from its own folder to ``found``; returns the modules from elsewhere."""
    folder, todo, elsewhere = main.parent, [main], []
    while todo:
        path = todo.pop()
        key, within = scripts.name(path), ".".join(path.relative_to(folder).with_suffix("").parts)
        if key in found:
            continue
        found[key], imports = _read(path, within.removesuffix(".__init__"), path.stat().st_mtime_ns)
        for name in imports:
            near = scripts.beside(name, folder) or _by_its_end(name, folder)
            todo += [near] if near else []
            elsewhere += [] if near else [name]
    return elsewhere


def files_of(script: Path) -> list[Path]:
    """A file of Python and those of its folder that it imports, transitively."""
    found: dict[str, str] = {}
    _walk_script(script, found)
    return [path for name in found if (path := scripts.file_of(name))]


def _by_its_end(name: str, folder: Path) -> Path | None:
    end = None if has_code(_top(name)) else scripts.within(name, folder)
    return None if end is None else scripts.beside(end, folder)


def _top(name: str) -> str:
    return name.partition(".")[0]


def combined(hashes: Mapping[str, str]) -> str:
    """One hash for all of them."""
    text = "\n".join(f"{name} {value}" for name, value in sorted(hashes.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def targets(tree: Any) -> Iterator[str]:
    """Modules named by the ``_target_`` keys of a config."""
    if isinstance(tree, Mapping):
        if isinstance(tree.get("_target_"), str):
            yield present(tree["_target_"]).rpartition(".")[0]
        for value in tree.values():
            yield from targets(value)


def module_file(name: str) -> Path | None:
    """The source file of a project module; None for the standard library and installed packages."""
    if scripts.is_name(name):
        return scripts.file_of(name)
    path = _find(name)
    if path is not None and not path.exists():  # it was moved since it was found
        _spec.cache_clear()
        path = _find(name)
    return path


def _find(name: str) -> Path | None:
    path = source_file(name)
    return None if path is None or _is_installed(path) else path


def source_file(name: str) -> Path | None:
    """The source file of any module, also of an installed one; None where it has none in Python."""
    try:
        return _python_file(_spec(name, tuple(sys.path)).origin)
    except ModuleNotFoundError:
        return None


@functools.lru_cache(maxsize=8192)
def _python_file(origin: str | None) -> Path | None:
    return Path(origin).resolve() if origin is not None and origin.endswith(".py") else None


@functools.lru_cache(maxsize=8192)
def _spec(name: str, search_path: tuple[str, ...]) -> ModuleSpec:
    """What would be imported; unlike importlib's own, this never imports the packages around it.

    Raises:
        ModuleNotFoundError: where there is nothing; that is not remembered, since it may be written yet.
    """
    parent = name.rpartition(".")[0]
    try:
        if not parent:
            spec = importlib.util.find_spec(name)
        else:
            spec = PathFinder.find_spec(name, _spec(parent, search_path).submodule_search_locations or [])
    except (ImportError, ValueError, AttributeError, KeyError):  # the last: a folder in a mere folder
        spec = None
    if spec is None:
        raise ModuleNotFoundError(name)
    return spec


@functools.lru_cache(maxsize=8192)
def _is_installed(path: Path) -> bool:
    """Whether a file is a library's: what it says is known by a version, and it is not followed."""
    return not is_ours(path) and any(path.is_relative_to(root) for root in _installed())


@functools.lru_cache(maxsize=1)
def _installed() -> tuple[Path, ...]:
    paths = {sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    paths |= {p for p in sys.path if p.endswith(("site-packages", "dist-packages"))}
    return tuple(Path(p).resolve() for p in paths if p)


@functools.lru_cache(maxsize=4096)
def _read(path: Path, name: str, _mtime: int) -> tuple[str, tuple[str, ...]]:
    text = path.read_bytes()
    try:
        tree = ast.parse(text, filename=str(path))
    except (SyntaxError, ValueError):  # who imports it hears of it
        return hashlib.sha256(text).hexdigest()[:16], ()
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


def edited_since_loaded(config: Mapping[str, Any]) -> list[str]:
    """Modules of a cell that this process has trained with, and that say something else by now."""
    return sorted(name for name, now in source_hashes(config).items() if _loaded.get(name, now) != now)


# -- methods from outside the project --------------------------------------------------------------


def homes(modules: Iterable[str]) -> list[str]:
    """Folders that Python has to search to find those of these modules that lie outside the project."""
    found = {_home(name) for name in {module.partition(".")[0] for module in modules}}
    return sorted(str(folder) for folder in found if folder not in (None, ROOT))


def _home(top: str) -> Path | None:
    try:
        spec = _spec(top, tuple(sys.path))
    except ModuleNotFoundError:
        return None
    for folder in spec.submodule_search_locations or ():
        return Path(folder).resolve().parent
    return None if spec.origin is None else Path(spec.origin).resolve().parent


def reach(folders: Any) -> None:
    """Let this process import from folders that a cell's manifest names, behind all others.

    From those alone that this user has run code from: a results folder may come from elsewhere.
    """
    known = allowances.folders() if folders else ()
    for folder in folders if isinstance(folders, list) else ():
        if folder in known and folder not in sys.path and Path(folder).is_dir():
            sys.path.append(folder)


def unreachable(recorded: Mapping[str, str], config: Mapping[str, Any]) -> list[str]:
    """Modules of a config's parts that a cell was trained with, and that cannot be found from here."""
    parts = targets({key: config.get(key) for key in ("algorithm", "workload")})
    named = {*parts, *scripts.texts(config.get("algorithm"))}
    return sorted({name for name in named if name in recorded and not is_there(name)})


def is_there(name: str) -> bool:
    """Whether Python would find a module from here."""
    if module_file(name) is not None:
        return True
    try:
        return bool(_spec(name, tuple(sys.path)))
    except ModuleNotFoundError:
        return False


def standing(manifest: Mapping[str, Any], config: Callable[[], Mapping[str, Any]]) -> str | None:
    """What a finished cell is besides finished.

    Args:
        manifest: the cell's.
        config: gives its config, which is asked for where a module is not found.

    Returns:
        ``stale``: its source or a data file has changed since · ``unavailable``: its algorithm or
        workload cannot be imported here, so that it could not be trained again · None: neither.
    """
    recorded = manifest.get("sources") or {}
    moved = data_files.changed(manifest.get("files") or {})
    if not outdated(recorded):
        return "stale" if moved else None
    reach(manifest.get("paths"))
    if not all(map(is_there, recorded)) and unreachable(recorded, config()):
        return UNAVAILABLE
    return "stale" if moved or outdated(recorded) else None


def has_code(top: str) -> bool:
    """Whether Python would find a module or a package of that name from here, and no mere folder."""
    try:
        return _spec(top, tuple(sys.path)).origin is not None
    except ModuleNotFoundError:
        return False


def not_here(modules: Iterable[str]) -> str:
    """What to say of a finished cell whose parts cannot be imported."""
    named = ", ".join(modules)
    return f"{named} cannot be imported here: set PYTHONPATH to its folder; the result is kept"


# -- what has changed ------------------------------------------------------------------------------


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

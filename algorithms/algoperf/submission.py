"""A submission's file: looked at without running it, run, and called with what it imports in place."""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.abc
import pickle
import sys
from collections import namedtuple
from collections.abc import Iterator, Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import torch

from algorithms.algoperf.helpers import PACKAGES, stand_ins
from runner.base.errors import UserError, described, one_line
from runner.provenance import scripts, source

FUNCTIONS = ("init_optimizer_state", "update_params", "data_selection", "get_batch_size")
JAX = ("jax", "jaxlib", "flax", "optax")
INSTALL = {"absl": "absl-py"}  # packages whose name in the index is another one
PLAIN = (bool, int, float, str, list, tuple, dict, set, torch.Tensor)


def look_at(path: Path) -> None:
    """See that a file can be a PyTorch submission; nothing of it runs.

    Raises:
        UserError: what it is instead.
    """
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{path} is no Python that can be read: {one_line(str(error), 120)}") from error
    tops = {name.partition(".")[0] for name in _imported(tree)}
    if tops & {*JAX} and "torch" not in tops:
        raise UserError(
            f"{path} is a JAX submission (it imports {min(tops & {*JAX})}): only PyTorch can be run"
        )
    defined, all_told = _defined(tree)
    if all_told and (missing := [name for name in FUNCTIONS if name not in defined]):
        raise UserError(f"{path} is no AlgoPerf submission: it defines no {', '.join(missing)}")


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module


def _defined(tree: ast.Module) -> tuple[set[str], bool]:
    """The names that a file binds at its top level, and whether these are all."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    simple = all(not isinstance(node, (ast.If, ast.Try, ast.With)) for node in tree.body)
    return names, simple and "*" not in names


class Submission:
    """The code of one file, loaded afresh, with its modules where they can be found only while it runs.

    Args:
        path: the file.
        device: what it is to train on.

    Raises:
        UserError: where it does not load: which package is missing, or what it raises.

    Attributes:
        module: the loaded file.
        spec: the specification that it uses.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        self.path, self._folder = path, path.parent
        self._finder = _Neighbours(path)
        self._modules: dict[str, ModuleType] = {}
        hidden = {name for name in sys.modules if scripts.beside(name.partition(".")[0], self._folder)}
        self._hidden = {name for name in hidden if not _lies_in(sys.modules[name], self._folder)}
        self._modules |= stand_ins(device)
        with self.running():
            self.module = self._load()
            family = next((name for name in PACKAGES if f"{name}.spec" in sys.modules), PACKAGES[0])
            self.spec: Any = importlib.import_module(f"{family}.spec")
        if missing := [name for name in FUNCTIONS if not hasattr(self.module, name)]:
            raise UserError(f"{path} is no AlgoPerf submission: it defines no {', '.join(missing)}")
        self._data = self.data()

    def _load(self) -> ModuleType:
        try:
            return importlib.import_module(self.path.stem)
        except ModuleNotFoundError as error:
            raise UserError(f"{self.path} {_missing(error)}") from error
        except Exception as error:
            raise UserError(f"{self.path} does not load: {one_line(described(error), 200)}") from error

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Inside, the submission's modules are imported, and its folder is searched first."""
        before = {name: sys.modules[name] for name in (*self._modules, *self._hidden) if name in sys.modules}
        for name in self._hidden:
            sys.modules.pop(name, None)
        sys.modules.update(self._modules)
        known = {*sys.modules}
        sys.path.insert(0, str(self._folder))
        sys.meta_path.append(self._finder)
        try:
            yield
        finally:
            if len(sys.modules) != len(known):
                self._take(sys.modules.keys() - known)
            sys.meta_path.remove(self._finder)
            sys.path.remove(str(self._folder))
            for name in self._modules:
                sys.modules.pop(name, None)
            sys.modules.update(before)

    def _take(self, new: set[str]) -> None:
        """Of the modules that are new, keep those of the submission as its own."""
        made = (name for name in new if self._finder.made(name) or _lies_in(sys.modules[name], self._folder))
        self._modules |= {name: sys.modules[name] for name in made}

    def data(self) -> dict[str, bytes]:
        """What the submission's modules hold beside code, by name, to be compared."""
        files = (module for module in self._modules.values() if getattr(module, "__file__", None))
        own = {id(module): module for module in files if _lies_in(module, self._folder)}
        return {
            f"{module.__name__}.{key}": held
            for module in own.values()
            for key, value in vars(module).items()
            if not key.startswith("__") and (held := _stamp(value)) is not None
        }

    def moved(self) -> str | None:
        """A variable of a module that training has changed, which no checkpoint holds; None for none."""
        now = self.data()
        return next((name for name in {**self._data, **now} if self._data.get(name) != now.get(name)), None)


def _stamp(value: Any) -> bytes | None:
    value = vars(value) if isinstance(value, FunctionType) else value
    if not isinstance(value, PLAIN):
        return None
    try:
        return pickle.dumps(value)
    except Exception:
        return None


def _lies_in(module: ModuleType, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    place = Path(file) if isinstance(file, str) else None
    if place is None:
        return any(Path(entry).is_relative_to(folder) for entry in getattr(module, "__path__", ()))
    return place.is_relative_to(folder) and "site-packages" not in place.parts


def _missing(error: ModuleNotFoundError) -> str:
    name = error.name or str(error)
    top = name.partition(".")[0]
    if top in PACKAGES:
        return f"needs {name}, which only AlgoPerf itself has: install it"
    if top in JAX:
        return f"needs {top}, which is not installed: only what PyTorch submissions need is known here"
    return f"needs {name}, which is not installed: pip install {INSTALL.get(top, top)}"


class _Neighbours(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds, behind all others, modules of the folder by absolute names of another place."""

    def __init__(self, script: Path) -> None:
        self._folder = script.parent
        self._ends: dict[str, str] = {}
        for file in source.files_of(script):
            with contextlib.suppress(SyntaxError, ValueError):
                self._learn(ast.parse(file.read_bytes()))
        self._parents = {name[:dot] for name in self._ends for dot in _dots(name)}
        self._specs: dict[str, Any] = {}

    def _learn(self, tree: ast.AST) -> None:
        for name in _imported(tree):
            if not source.has_code(name.partition(".")[0]) and (end := scripts.within(name, self._folder)):
                self._ends[name] = end

    def made(self, name: str) -> bool:
        """Whether a module has come from here."""
        return name in self._ends or name in self._parents

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """See :class:`importlib.abc.MetaPathFinder`."""
        if fullname in self._ends:
            return ModuleSpec(fullname, self)
        if fullname in self._parents:
            return ModuleSpec(fullname, None, is_package=True)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module of the folder itself, so that there is but one."""
        module = importlib.import_module(self._ends[spec.name])
        self._specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It has run; only its own spec comes back."""
        assert module.__spec__ is not None
        module.__spec__ = self._specs[module.__spec__.name]


def _dots(name: str) -> Iterator[int]:
    return (place for place, letter in enumerate(name) if letter == ".")


def named_tuple(values: Mapping[str, Any]) -> Any:
    """Hyperparameters as AlgoPerf hands them over; None where there are none."""
    return namedtuple("Hyperparameters", values)(**values) if values else None

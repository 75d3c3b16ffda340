"""Classes and functions by their dotted paths, as their sources define them; nothing is imported."""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runner.provenance.source import source_file

HOPS = 8  # re-exports that are followed
ANY = "**"  # the name of all other arguments
NULL = re.compile(r"\b(None|Optional|Any|object)\b")


@dataclass(frozen=True)
class Definition:
    """What defines a target.

    Attributes:
        node: the class or function.
        module: the module that has it.
    """

    node: ast.ClassDef | ast.FunctionDef
    module: str


def definition(target: str, hops: int = HOPS) -> Definition | None:
    """Where ``target`` is defined, through re-exports; None where no source is to be found."""
    module, _, name = target.rpartition(".")
    tree = _tree(module) if module and hops else None
    if tree is None:
        return None
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name:
            return Definition(node, module)
    found = (definition(origin, hops - 1) for origin in _origins(tree, module, name))
    return next((one for one in found if one is not None), None)


def docstring(target: str) -> str:
    """What a class or function says of itself, also by an assigned ``__doc__``, as in torch."""
    found = definition(target)
    if found is None:
        return ""
    return inspect.cleandoc(ast.get_docstring(found.node) or _assigned(found))


def docstring_of_module(target: str) -> str:
    """What the module says that defines a class or function."""
    found = definition(target)
    tree = None if found is None else _tree(found.module)
    return "" if tree is None else inspect.cleandoc(ast.get_docstring(tree) or "")


def _assigned(found: Definition) -> str:
    tree = _tree(found.module)
    for node in tree.body if tree is not None else ():
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == f"{found.node.name}.__doc__":
            texts = (part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant))
            return "".join(text for text in texts if isinstance(text, str))
    return ""


def takes(target: str, argument: str) -> bool:
    """Whether a class or function has an argument of that name; True also where no source says."""
    found = definition(target)
    return found is None or _argument(found, argument) is not None


def takes_null(target: str, argument: str) -> bool:
    """Whether a class or function takes None for ``argument``: by its annotation, or as its default.

    True also where no source says: then building it decides.
    """
    found = definition(target)
    return found is None or ((arg := _argument(found, argument)) is not None and arg.nullable)


@dataclass(frozen=True)
class Argument:
    """An argument of a class or function, and whether it may be None."""

    name: str
    nullable: bool


def _argument(found: Definition, name: str) -> Argument | None:
    """Its own argument of that name, that of a class that it inherits from, or its ``**kwargs``."""
    own = {one.name: one for one in _arguments(found.node)}
    if name in own or not isinstance(found.node, ast.ClassDef):
        return own.get(name, own.get(ANY))
    above = (definition(_path(base, found.module)) for base in found.node.bases)
    inherited = (_argument(one, name) for one in above if one is not None)
    return next((one for one in inherited if one is not None), own.get(ANY))


def _path(base: ast.expr, module: str) -> str:
    return f"{module}.{base.id}" if isinstance(base, ast.Name) else ast.unparse(base)


def _arguments(node: ast.ClassDef | ast.FunctionDef) -> Iterator[Argument]:
    function = node if isinstance(node, ast.FunctionDef) else _constructor(node)
    if function is None:
        return
    given = function.args
    plain = [*given.posonlyargs, *given.args]
    defaults = [*[None] * (len(plain) - len(given.defaults)), *given.defaults, *given.kw_defaults]
    for arg, default in zip([*plain, *given.kwonlyargs], defaults, strict=True):
        annotated = arg.annotation is not None and NULL.search(ast.unparse(arg.annotation)) is not None
        by_default = isinstance(default, ast.Constant) and default.value is None
        yield Argument(arg.arg, annotated or by_default)
    if given.kwarg is not None:
        yield Argument(ANY, nullable=True)


def _constructor(node: ast.ClassDef) -> ast.FunctionDef | None:
    return next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)


def _origins(tree: ast.Module, module: str, name: str) -> Iterator[str]:
    """Where a module may have taken ``name`` from."""
    for node in (n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)):
        for alias in node.names:
            if alias.name == "*" or (alias.asname or alias.name) == name:
                yield f"{_absolute(node, module)}.{name if alias.name == '*' else alias.name}"


def _absolute(node: ast.ImportFrom, module: str) -> str:
    """The module that an import names, which stands in ``module``."""
    if not node.level:
        return node.module or ""
    file = source_file(module)
    parts = module.split(".")
    up = node.level - (file is not None and file.name == "__init__.py")
    return ".".join([*parts[: len(parts) - up], *([node.module] if node.module else [])])


def _tree(module: str) -> ast.Module | None:
    path = source_file(module)
    return None if path is None or not path.is_file() else _parsed(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _parsed(path: Path, _mtime: int) -> ast.Module | None:
    try:
        return ast.parse(path.read_bytes(), filename=str(path))
    except (ValueError, SyntaxError):
        return None

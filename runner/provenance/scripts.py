"""Files of Python that an algorithm's config names: they are run as they are, with the folder they lie in.

Such a file is found from the working directory, or in the project. What it imports from its own folder goes
by the names that it uses, also by those of the place where it was written: ``their.place.helper``, or
``helper`` alone, is ``a/helper.py`` in the folder, where there is no package ``their`` or ``helper``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runner.base import paths
from runner.base.paths import ROOT, is_ours

SUFFIX = ".py"
DEEPEST = 5  # folders in one another


def named(tree: Any) -> Iterator[Path]:
    """The files that an algorithm's config names, and that are there."""
    return (file for text in texts(tree) if (file := found(text)) is not None)


def texts(tree: Any) -> Iterator[str]:
    """What in an algorithm's config is a file of Python by its name."""
    if isinstance(tree, str) and tree.endswith(SUFFIX):
        yield tree
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from texts(value)


def found(text: str) -> Path | None:
    """The file of that name, as :func:`runner.base.paths.found` finds it, resolved."""
    file = paths.found(text)
    return None if file is None else file.resolve()


def settled(tree: Any) -> Any:
    """A config whose files are named the same from every folder, in the project and wherever it lies."""
    if isinstance(tree, dict):
        return {key: settled(value) for key, value in tree.items()}
    if isinstance(tree, str) and tree.endswith(SUFFIX) and (file := found(tree)) is not None:
        return name(file)
    return tree


def name(file: Path) -> str:
    """What configs and manifests call a file: in the project as seen from its root, else in full."""
    return str(file.relative_to(ROOT) if is_ours(file) else file)


def is_name(text: str) -> bool:
    """Whether that is a file's name and no module's."""
    return "/" in text


def file_of(text: str) -> Path | None:
    """The file that :func:`name` called so; None for a module's name, and where it is gone."""
    file = ROOT / text
    return file if is_name(text) and file.is_file() else None


def beside(module: str, folder: Path) -> Path | None:
    """The file of a module in ``folder``; None where it is not there."""
    place = folder.joinpath(*module.split("."))
    files = (place.with_name(f"{place.name}{SUFFIX}"), place / f"__init__{SUFFIX}")
    return next((file for file in files if file.is_file()), None)


def within(module: str, folder: Path) -> str | None:
    """The name that a module of ``folder`` has there, where it is imported by that of another place.

    ``a.helper`` for ``their.place.a.helper`` and for ``helper``; None where nothing in the folder fits.
    """
    parts = module.split(".")
    ends = (".".join(parts[start:]) for start in range(1, len(parts)))
    near = next((end for end in ends if beside(end, folder) is not None), None)
    return near or min(
        (name for name in _modules(folder) if name.endswith(f".{module}")), key=len, default=None
    )


def _modules(folder: Path) -> Iterator[str]:
    """Dotted names of the modules in a folder, as far down as submissions nest theirs."""
    for place, folders, files in os.walk(folder):
        inside = Path(place).relative_to(folder).parts
        plain = (name for name in folders if not name.startswith(".") and name != "site-packages")
        folders[:] = sorted(plain) if len(inside) < DEEPEST else []
        yield from (".".join((*inside, file.removesuffix(SUFFIX))) for file in files if file.endswith(SUFFIX))

"""Commands that messages print: made in one place, so that each works when it is pasted into a shell."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from runner.base.paths import shown
from runner.compose.overrides import assignment

CONFIG_DIR = "--config-dir"


def command(module: str, *words: str | Path, config_dirs: Iterable[str | Path] = ()) -> str:
    """``python -m module words…``, quoted for a shell, with the config directories that it needs.

    Paths are given from the folder one is in.
    """
    folders = config_words({"config_dirs": [*config_dirs]})
    said = [shown(word) if isinstance(word, Path) else word for word in words]
    return shlex.join(["python", "-m", module, *folders, *map(str, said)])


def config_words(manifest: Mapping[str, Any]) -> list[str]:
    """The words that give a cell's config directories, by its manifest."""
    return [word for folder in manifest.get("config_dirs") or () for word in (CONFIG_DIR, str(folder))]


def again(words: Sequence[str]) -> str:
    """A command line that :func:`typed` recorded."""
    first, *rest = words or ["python -m runner"]
    return " ".join([first, *map(shlex.quote, rest)])


def typed() -> list[str]:
    """This process's command line, in words that a shell would take again."""
    return sys.argv if sys.argv[0].startswith("python ") else ["python", *sys.orig_argv[1:]]


def places(experiment: Path) -> list[str]:
    """The overrides that put cells into an experiment's folder."""
    parent = shown(experiment.parent)
    elsewhere = [] if parent == Path("results") else [assignment("results_dir", str(parent))]
    return [assignment("name", experiment.resolve().name), *elsewhere]

"""Where the project's own files are, and how paths are read that people give."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent.parent
ROOT = PACKAGE.parent  # of a checkout; where the wheel is installed, the folder of all that is installed
CONF = next(filter(Path.is_dir, (PACKAGE / "conf", ROOT / "conf")), ROOT / "conf")  # a wheel has its own
PACKAGES = ("runner", "workloads", "algorithms", "hydra_plugins")
FOLDERS = ("results_dir", "data_dir")  # keys of a config


def is_ours(path: Path) -> bool:
    """Whether a file is the project's: in a checkout, or where the wheel has put it beside other packages."""
    return path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[:1] in [(name,) for name in PACKAGES]


def own_folders() -> list[Path]:
    """Folders beside ``conf/`` that ``$BENCH_CONF`` names, parted as in ``$PATH``."""
    return [expanded(folder) for folder in os.environ.get("BENCH_CONF", "").split(os.pathsep) if folder]


def expanded(path: str | Path) -> Path:
    """A path as a person gives it: ``~`` and ``~user`` are homes; where there is no such user, a name."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def found(text: str) -> Path | None:
    """The file that a config names, seen from the working directory or from the project, if there is one."""
    return next((place for place in (expanded(text), ROOT / text) if place.is_file()), None)


def settled(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config whose folders are absolute, so that no later change of directory moves them.

    A workload's or an algorithm's own paths, which are relative to ``data_dir``, lose their ``~``.
    """
    folders = {
        key: str(expanded(config[key]).absolute()) for key in FOLDERS if isinstance(config.get(key), str)
    }
    own = {key: _without_home(config[key]) for key in ("workload", "algorithm")}
    return {**config, **folders, **own}


def _without_home(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_home(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_without_home(value) for value in tree]
    return str(expanded(tree)) if isinstance(tree, str) and tree.startswith("~") else tree


def shown(path: Path) -> Path:
    """A path for a person to read and paste: relative where it lies under the working directory."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def utc(seconds: float) -> str:
    """``20261025T013000Z``, to name a file by: the same in every time zone, and no hour comes twice."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))

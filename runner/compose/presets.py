"""Presets: what ``algorithm=<name>`` may say, and the one-line summaries that ``--help`` shows.

Every part without a hand-written preset becomes one under its own name: the default algorithm with that
part put in. No registry to edit: the YAML files are the list.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from runner.base.errors import UserError
from runner.base.paths import CONF

PROVIDER = "parts"  # of the presets that Hydra's store has from us
BASE = "composed"  # the default algorithm that presets build on; not itself a name on the command line


def register(config_dirs: Sequence[Path] = ()) -> None:
    """Tell Hydra's ConfigStore about the presets that follow from parts.

    Raises:
        UserError: when two parts claim one name, or two files.
    """
    from hydra.core.config_store import ConfigStore

    for folder in config_dirs:
        _refuse_namesakes(folder)

    store = ConfigStore.instance()
    nodes: Any = store.repo.get("algorithm", {})
    for file in [name for name, node in nodes.items() if node.provider == PROVIDER]:
        del nodes[file]  # of a call with other folders, in one process
    for name, (kind, _) in implied(config_dirs).items():
        defaults = [BASE, {f"override {kind}": name}, "_self_"]
        store.store(group="algorithm", name=name, node={"defaults": defaults}, provider=PROVIDER)


def _refuse_namesakes(folder: Path) -> None:
    """A name means the same to everybody who reads a board: no file of one's own takes one of ours.

    A copy of one of ours may stand beside it.
    """
    ours = algorithms()
    for path in folder.rglob("*.yaml"):
        name = path.relative_to(folder)
        if path.name.startswith(".") or not path.is_file():
            continue
        same = CONF / name
        if same.is_file() and same.read_bytes() != path.read_bytes():
            raise UserError(
                f"{path}: {name.with_suffix('')} already exists in {CONF} with other contents; rename yours"
            )
        if name.parts[0] == "algorithm" and path.stem in ours and not same.is_file():
            raise UserError(f"{path}: algorithm={path.stem} already exists in {CONF}; rename yours")


def implied(config_dirs: Sequence[Path] = ()) -> dict[str, tuple[str, Path]]:
    """Preset name -> (kind of part, its YAML), for parts that no hand-written preset names."""
    written = set(_written(config_dirs))
    found: dict[str, tuple[str, Path]] = {}
    for kind, path in parts(config_dirs):
        name = path.stem
        if name in found and found[name][0] != kind:
            raise UserError(
                f"two parts are called {name!r}: {found[name][1]} and {path}; rename one, "
                f"or write conf/algorithm/{name}.yaml to say which one the preset means"
            )
        if name not in written:
            found[name] = (kind, path)
    return found


def algorithms(config_dirs: Sequence[Path] = ()) -> dict[str, str]:
    """Every name that ``algorithm=`` takes, with its one-line summary."""
    names = {name: summary(path) for name, path in _written(config_dirs).items() if name != BASE}
    names |= {name: summary(path) for name, (_, path) in implied(config_dirs).items()}
    return dict(sorted(names.items()))


def workloads(config_dirs: Sequence[Path] = ()) -> dict[str, str]:
    """Every name that ``workload=`` takes, with its one-line summary."""
    return listed("workload", config_dirs)


def listed(group: str, config_dirs: Sequence[Path] = ()) -> dict[str, str]:
    """Every file of a group of ``conf/``, by name (``folder/name`` below it), with its one-line summary."""
    names: dict[str, str] = {}
    for folder in _folders(group, config_dirs):
        for path in folder.rglob("[!_.]*.yaml"):
            names[path.relative_to(folder).with_suffix("").as_posix()] = summary(path)
    return dict(sorted(names.items()))


def embedded(config_dirs: Sequence[Path] = ()) -> list[str]:
    """Workloads whose data is always there: small by contract, so that methods are checked on them."""
    pattern = re.compile(r"^data: (embedded|synthetic)\b", re.MULTILINE)
    return [path.stem for path in _yamls("workload", config_dirs) if pattern.search(_text(path))]


def parts(config_dirs: Sequence[Path] = ()) -> Iterator[tuple[str, Path]]:
    """(kind, YAML) of every part."""
    for folder in _folders("algorithm", config_dirs):
        for path in sorted(folder.glob("*/[!_.]*.yaml")):
            yield path.parent.name, path


@functools.cache
def kinds() -> tuple[str, ...]:
    """The kinds of parts: ``optimizer``, ``loss``, …"""
    return tuple(sorted(folder.name for folder in (CONF / "algorithm").iterdir() if folder.is_dir()))


def summary(path: Path) -> str:
    """The first comment line of a YAML that is not a Hydra package header."""
    for line in _text(path).splitlines():
        if line.startswith("# @package"):
            continue
        return line[1:].strip() if line.startswith("#") else ""
    return ""


def comments(path: Path) -> list[str]:
    """The comment lines in front of everything else in a YAML, less a Hydra package header."""
    leading = itertools.takewhile(lambda line: line.startswith("#"), _text(path).splitlines())
    return [line[1:].removeprefix(" ") for line in leading if not line.startswith("# @package")]


def _text(path: Path) -> str:
    # What is not UTF-8 is refused where it is chosen; a list of names goes on without it.
    return path.read_text("utf-8", errors="replace")


def _written(config_dirs: Sequence[Path]) -> dict[str, Path]:
    return {path.stem: path for path in _yamls("algorithm", config_dirs)}


def _yamls(group: str, config_dirs: Sequence[Path]) -> list[Path]:
    """Its files, by name; a leading underscore marks what only other files take in,
    a leading dot an editor's."""
    found = [path for folder in _folders(group, config_dirs) for path in folder.glob("[!_.]*.yaml")]
    return sorted(found, key=lambda path: path.stem)


def _folders(group: str, config_dirs: Sequence[Path]) -> list[Path]:
    return [base / group for base in (CONF, *config_dirs) if (base / group).is_dir()]

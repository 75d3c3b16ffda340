"""The house as docs/architecture.md draws it: no import goes in a circle, none goes up."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
LAYERS = [re.findall(r"`(\w+)/`", line) for line in re.findall(r"^\d+\. (.*)$", PAGE, re.MULTILINE)]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
PLUGINS = ("algorithms", "workloads")
TOPS = ("runner", *PLUGINS, "hydra_plugins", "scripts")


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Dotted name -> file."""
    found = (path for top in TOPS for path in (root / top).rglob("*.py") if "templates" not in path.parts)
    return {".".join(p.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): p for p in found}


def imports(path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """Modules of the project that a file imports, wherever in it and for whatever purpose."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in known else node.module for name in names)


KNOWN = modules()
GRAPH = {name: set(imports(path, KNOWN)) - {name} for name, path in KNOWN.items()}


def room(module: str) -> str:
    """``cells`` of ``runner.cells.lock``; ``""`` of a command, which stands above all rooms."""
    top, _, rest = module.partition(".")
    if top != "runner":
        return top
    return rest.partition(".")[0] if rest.partition(".")[0] in LEVEL else ""


def rising(graph: Mapping[str, set[str]]) -> list[str]:
    """Imports from a room into one above it; ``runner`` itself imports nothing until it is asked."""
    top = len(LAYERS)
    return [
        f"{one} -> {other}"
        for one, others in graph.items()
        for other in others
        if one.startswith("runner.") and other != "runner"
        if LEVEL.get(room(one), top) < LEVEL.get(room(other), top)
    ]


def circles(graph: Mapping[str, set[str]]) -> list[str]:
    """Modules that no order puts behind all that they import."""
    left = {name: set(others) & set(graph) for name, others in graph.items()}
    while free := [name for name, others in left.items() if not others]:
        left = {name: others.difference(free) for name, others in left.items() if name not in free}
    return sorted(left)


def test_no_import_goes_up() -> None:
    assert rising(GRAPH) == []


def test_no_import_goes_in_a_circle() -> None:
    # What `runner` exports is imported when it is asked for.
    assert circles({name: others - {"runner"} for name, others in GRAPH.items() if name != "runner"}) == []


def test_nothing_of_the_runner_imports_a_plugin() -> None:
    ours = {name: others for name, others in GRAPH.items() if room(name) not in (*PLUGINS, "scripts")}
    found = [f"{one} -> {o}" for one, others in ours.items() for o in others if room(o) in PLUGINS]
    assert found == []


def test_what_hydra_keeps_to_itself_is_used_through_one_file() -> None:
    users = [name for name, path in KNOWN.items() if "hydra._internal" in path.read_text("utf-8")]
    assert users == ["runner.compose.hydra_internals"]


def test_every_room_is_on_the_page_and_every_room_of_the_page_is_there() -> None:
    rooms = {p.name for p in (ROOT / "runner").iterdir() if p.is_dir() and not p.name.startswith(("_", "."))}
    assert set(LEVEL) == rooms - {"conf"}
    assert all(f"`{path.stem}`" in PAGE for path in (ROOT / "runner").glob("[!_]*.py"))


def test_files_that_the_page_names_are_there() -> None:
    named = re.findall(rf"`((?:{'|'.join(TOPS)}|conf|tests|docs)/[\w./]*)`", PAGE)
    assert len(named) > 20 and [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize(
    ("one", "other", "check"),
    [
        ("runner.base.files", "runner.cells.lock", rising),
        ("runner.train.clock", "runner.train.loop", circles),
    ],
)
def test_a_wrong_arrow_is_seen(one: str, other: str, check: object) -> None:
    planted = {**GRAPH, one: GRAPH[one] | {other}}
    clean = {name: others - {"runner"} for name, others in planted.items() if name != "runner"}
    assert check(clean) != []  # type: ignore[operator]

"""Every method, from the YAML files under ``conf/`` and the docstrings of the classes that they name."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runner.base.paths import CONF, ROOT
from runner.compose import presets
from runner.methods.card import Card, words
from runner.provenance.source import module_file

KINDS = {
    "optimizer": "how weights move, given gradients",
    "schedule": "the learning rate over time",
    "loss": "the loss of one example",
    "objective": "the loss, with forward passes of its own, or of a whole batch",
    "reweighting": "how much each example counts",
    "sampler": "which rows a step sees, and how many",
    "estimator": "how the gradient is made",
    "transform": "the gradient, before the optimizer sees it",
    "wrapper": "any optimizer, from outside",
    "groups": "which parameters share settings",
    "average": "which weights are evaluated",
    "surgery": "the model itself",
    "whole": "all of it",
    "diagnostic": "numbers beside the metric, off the clock",
    "preset": "several parts under one name",
}
NOT_SETTINGS = ("_target_", "defaults", "time_factor")


@dataclass(frozen=True)
class Setting:
    """A hyperparameter, as the YAML writes it.

    Attributes:
        default: its value; None where the YAML only searches it.
        search: its range or choices in the search space, or empty.
        allowed: its bounds, or empty.
        note: the comment beside it, or empty.
    """

    default: str | None = None
    search: str = ""
    allowed: str = ""
    note: str = ""


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        name: what the command line calls it.
        kind: of :data:`KINDS`.
        summary: the YAML's first comment.
        yaml: the file.
        target: dotted path of its class; empty for a preset.
    """

    name: str
    kind: str
    summary: str
    yaml: Path
    target: str

    @property
    def folder(self) -> Path:
        """``conf/``, or the folder of one's own that has the YAML."""
        return self.yaml.parents[1 if self.kind in ("whole", "preset", "diagnostic") else 2]

    @functools.cached_property
    def source(self) -> Path | None:
        """The file with its class; None where a library brings it."""
        return module_file(self.target.rpartition(".")[0]) if self.target else None

    @functools.cached_property
    def card(self) -> Card:
        """Its class's, or the YAML's comments; as the report shows it."""
        return Card.parse(words(self.target, self.comments))

    @functools.cached_property
    def comments(self) -> str:
        """What the YAML begins with."""
        return "\n".join(map(str.strip, presets.comments(self.yaml)))

    @functools.cached_property
    def limits(self) -> str:
        """The source of its class's word on where it fits, or empty."""
        body = self._node[0].body if isinstance(self._node[0], ast.ClassDef) else []
        found = (n for n in body if isinstance(n, ast.FunctionDef) and n.name == "compatible")
        return "".join(map(ast.unparse, found))

    @functools.cached_property
    def parts(self) -> dict[str, str]:
        """Of a preset: kind -> the part that it puts in, or ``null``."""
        return dict(
            re.findall(r"^  - override (\w+): *(.+?) *(?:#.*)?$", self.yaml.read_text("utf-8"), re.MULTILINE)
        )

    @functools.cached_property
    def settings(self) -> dict[str, Setting]:
        """Hyperparameters by name; of a preset, those that it sets, by path."""
        found: dict[str, dict[str, str]] = {}
        for key, aspect, value in _aspects(self._content):
            found.setdefault(key, {})[aspect] = value
        notes = re.findall(r"^(\w+):.*?\s#\s*(.+)$", self.yaml.read_text("utf-8"), re.MULTILINE)
        for key, note in notes:
            found.get(key, {})["note"] = note
        return {key: Setting(**aspects) for key, aspects in found.items()}

    def as_json(self) -> dict[str, Any]:
        """It for a program: values are text, as the YAML writes them."""
        card = self.card
        return {
            "name": self.name, "kind": self.kind, "summary": self.summary, "target": self.target or None,
            "yaml": from_home(self.yaml), "source": self.source and from_home(self.source),
            "paper": card.paper._asdict(), "cost": card.cost, "time_factor": self.time_factor or None,
            "card": card.fields, "parts": self.parts,
            "settings": {name: asdict(setting) for name, setting in self.settings.items()},
        }  # fmt: skip

    @property
    def time_factor(self) -> str:
        """How many times as long as a plain one a step is said to take, or empty."""
        return str(self._content.get("time_factor", ""))

    @functools.cached_property
    def _content(self) -> Mapping[str, Any]:
        import yaml

        # Every scalar stays as it is written: 1e-3, true, null.
        return yaml.load(self.yaml.read_text("utf-8"), getattr(yaml, "CBaseLoader", yaml.BaseLoader)) or {}

    @functools.cached_property
    def _node(self) -> tuple[ast.ClassDef | ast.FunctionDef | None, ast.Module | None]:
        if self.source is None:
            return None, None
        tree = ast.parse(self.source.read_bytes())
        name = self.target.rpartition(".")[2]
        nodes = (n for n in tree.body if isinstance(n, (ast.ClassDef, ast.FunctionDef)) and n.name == name)
        return next(nodes, None), tree


def methods(config_dirs: Sequence[Path] = ()) -> list[Method]:
    """All of them, by kind and name; a file in ``conf/`` goes before one of the same name elsewhere."""
    found: dict[tuple[str, str], Method] = {}
    for kind, path in _files(config_dirs):
        method = _method(kind, path)
        found.setdefault((method.kind, method.name), method)
    order = {kind: place for place, kind in enumerate(KINDS)}
    return sorted(found.values(), key=lambda m: (order.get(m.kind, len(order)), m.kind, m.name))


def from_home(path: Path) -> str:
    """A path from the project's folder on, or from the current one."""
    home = next((h for h in (ROOT, Path.cwd()) if path.resolve().is_relative_to(h)), None)
    return (path if home is None else path.resolve().relative_to(home)).as_posix()


def _files(config_dirs: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    yield from presets.parts(config_dirs)
    for base in (CONF, *config_dirs):
        written = sorted((base / "algorithm").glob("[!_]*.yaml"))
        yield from (("preset", path) for path in written if path.stem != presets.BASE)
        yield from (("diagnostic", path) for path in sorted((base / "diagnostics").glob("[!_]*.yaml")))


def _method(kind: str, path: Path) -> Method:
    target = re.search(r"^_target_:\s*['\"]?([\w.]+)", path.read_text("utf-8"), re.MULTILINE)
    if kind == "preset" and target:
        kind = "whole"
    return Method(path.stem, kind, presets.summary(path), path, target[1] if target else "")


def _aspects(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(hyperparameter, ``default``, ``search`` or ``allowed``, what the YAML says)."""
    for key, value in tree.items():
        if key in ("search_space", "bounds"):
            aspect, word = ("search", _range) if key == "search_space" else ("allowed", _bounds)
            yield from ((f"{prefix}{name}", aspect, word(entry)) for name, entry in value.items())
        elif isinstance(value, Mapping):
            yield from _aspects(value, f"{prefix}{key}.")
        elif key not in NOT_SETTINGS:
            yield f"{prefix}{key}", "default", _flat(value)


def _range(entry: Any) -> str:
    if not isinstance(entry, Mapping):
        return ""  # null: taken out
    if "choices" in entry:
        return " | ".join(map(_flat, entry["choices"]))
    return f"{entry.get('min')} to {entry.get('max')}{', log' if entry.get('scale') == 'log' else ''}"


def _bounds(entry: Any) -> str:
    return " to ".join(map(_flat, entry)) if isinstance(entry, list) else _flat(entry)


def _flat(value: Any) -> str:
    return f"[{', '.join(map(_flat, value))}]" if isinstance(value, list) else str(value)

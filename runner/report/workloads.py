"""A section for every workload: its recipe, its target, and how that was set."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from runner.base.errors import one_line
from runner.base.paths import CONF
from runner.boards.sheets import number
from runner.cells.tables import hyperparameters
from runner.report import cards
from runner.report.html import Html, el
from runner.report.material import NO_FOLDERS, Group, Material, Record, first, numbers
from runner.report.svg import cut
from runner.report.tables import facts, folded, none

HOW = ("how", "source", "n", "date", "machine", "commit", "command")  # of a target, in conf/targets


def section(material: Material) -> list[Html]:
    """One fold per workload."""
    parts: list[Html] = []
    for group, heading in material.each():
        parts += [*heading, *(_workload(material, group, name) for name in group.workloads)]
    return parts


def _workload(material: Material, group: Group, name: str) -> Html:
    own = group.cells.loc[group.cells["workload"] == name]
    config = next((c for (workload, _), c in material.configs.items() if workload == name), None)
    metric, target = first(own, "metric"), first(own, "target")
    sign = "≤" if first(own, "minimize") else "≥"
    goal = f"{metric} {sign} {float(target):g}" if target is not None else "no target"
    summary = el("span", f"{cut(name, 90)} ", el("small", goal))
    budget = numbers(own, "budget")
    budget = budget[np.isfinite(budget)]
    basics = [
        ("target", goal),
        ("budget, trained samples", number(float(budget.max()), "—") if len(budget) else "not recorded"),
    ]
    return folded(
        summary, facts(basics), *_recipe(config), el("h5", "How the target was set"), *_how(own, name, target)
    )


def _recipe(config: Mapping[str, Any] | None) -> list[Html]:
    if config is None:
        return [none(f"no recipe: {NO_FOLDERS}, or its config cannot be read")]
    recipe = config.get("workload")
    if not isinstance(recipe, Mapping):
        return [none("no recipe: its config has none")]
    parts = [(part, target) for part, target, _ in cards.targets(recipe, "workload")]
    said = [
        el("p", el("code", target), f": {cards.card(target).partition(chr(10))[0] or 'no description'}")
        for _, target in parts
    ]
    listed = [
        (key, one_line(str(value), 200))
        for key, value in hyperparameters(recipe).items()
        if value is not None
    ]
    return [el("h5", "Recipe"), *said, facts(listed)]


def _how(own: Any, name: str, target: Any) -> list[Html]:
    version = first(own, "targets")
    if version is None:
        came = "the tables name no target list; the target came with the results"
        return [none("there is none" if target is None else came)]
    entry = targets(str(version)).get(name)
    if not isinstance(entry, Mapping):
        return [none(f"not listed in conf/targets/{one_line(str(version), 40)}.yaml here")]
    pairs = [(key, one_line(str(entry[key]), 600)) for key in HOW if entry.get(key) is not None]
    if isinstance(tuned := entry.get("algorithms"), Mapping):
        pairs.append(("set with", ", ".join(map(str, tuned))))
    if entry.get("provisional"):
        pairs.append(("provisional", "published elsewhere, not reproduced here"))
    return [facts([("list", version), *pairs]), *_unlike(entry.get("target"), target)]


def _unlike(listed: Any, given: Any) -> list[Html]:
    """A word where the cells' target is not the one that the list holds now."""
    if not isinstance(listed, (int, float)) or given is None or float(given) == listed:
        return []
    return [none(f"these cells used {float(given):g}; the list has {listed:g}")]


@functools.lru_cache(maxsize=8)
def targets(version: str) -> dict[str, Record]:
    """Workload -> what ``conf/targets/<version>.yaml`` says of its target; empty where there is none."""
    import yaml

    path = CONF / "targets" / f"{version}.yaml"
    if path.parent != CONF / "targets" or "/" in version or not path.is_file():
        return {}
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        values = (yaml.load(path.read_text(encoding="utf-8"), Loader=loader) or {}).get("values")
    except (OSError, yaml.YAMLError, AttributeError):
        return {}
    return values if isinstance(values, dict) else {}

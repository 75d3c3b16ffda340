"""Cards, YAMLs and classes say the same."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
import yaml
from hydra.utils import get_object

from runner.cells.cell import Cell
from runner.check.origin import is_project
from runner.check.subjects import small_workload, subject
from runner.compose.config import algorithm_names, compose, hydra_ready
from runner.compose.expand import expand
from runner.compose.search import samples
from runner.compose.values import flatten
from runner.methods.catalogue import Method, methods

CARDS = [method for method in methods() if method.kind not in ("preset", "diagnostic")]


@pytest.fixture(scope="module")
def configs() -> dict[str, dict[str, Any]]:
    with hydra_ready():
        return {name: compose([f"algorithm={name}"]) for name in algorithm_names()}


def test_every_search_space_contains_the_default(configs: dict[str, dict[str, Any]]) -> None:
    outside = []
    for name, config in configs.items():
        defaults = flatten(config["algorithm"])
        for path, entry in config["search_space"].items():
            default, values = defaults.get(path), samples(entry)
            if default is None:  # the class finds a value of its own
                continue
            inside = default in values if "choices" in entry else values[0] <= default <= values[-1]
            outside += [] if inside else [f"{name}: {path} is {default}, searched: {entry}"]
    assert outside == []


@pytest.mark.parametrize(("name", "published"), [("lion", "61cd2cc172"), ("muon", "da913f60ed")])
def test_the_experiment_of_the_published_board_searches_as_it_did(name: str, published: str) -> None:
    place = {f"algorithm={name}", "workload=digits", "study=1", "trial=2"}
    (overrides,) = (o for o in expand(["+experiment=leaderboard"]) if place <= set(o))
    cell = Cell.from_overrides([*overrides, "device=cpu"])
    assert (cell.id, cell.config["label"]) == (published, name)


@pytest.mark.parametrize("name", ["maxmin", "polyrelu"])
def test_the_row_that_set_up_passes_is_counted(name: str) -> None:
    pieces = subject(compose([f"algorithm={name}", "workload=digits"]), [small_workload("digits")]).pieces()
    assert pieces.task.cost.state_dict()["forward"] == 1


@pytest.mark.parametrize("method", CARDS, ids=lambda method: method.name)
def test_a_card_says_where_the_yaml_has_other_defaults_than_the_class(method: Method) -> None:
    target = get_object(method.target)
    if not is_project(target.__module__):
        return  # there the YAML's comments are the card
    said = method.card.fields["Defaults"]
    ours = " ".join(re.findall(r"YAML's ([^.]*?) (?:is|are)\b", said))
    for name, argument in inspect.signature(target).parameters.items():
        setting = method.settings.get(name)
        if setting is None or setting.default is None or argument.default is inspect.Parameter.empty:
            continue
        if not same(yaml.safe_load(setting.default), argument.default):
            assert re.search(rf"\b{name}\b", ours), (
                f"{name}: {setting.default} in the YAML, {argument.default}"
            )


def same(written: Any, default: Any) -> bool:
    if isinstance(default, tuple):
        return [float(value) for value in written] == list(default)
    if isinstance(default, float):
        return float(written) == default
    return written == default or str(written) == default

"""Search spaces hold their defaults, and published cells keep their ids."""

from __future__ import annotations

from typing import Any

import pytest

from runner.cells.cell import Cell
from runner.check.subjects import small_workload, subject
from runner.compose.config import algorithm_names, compose, hydra_ready
from runner.compose.expand import expand
from runner.compose.search import samples
from runner.compose.values import flatten


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

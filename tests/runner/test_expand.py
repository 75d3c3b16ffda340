"""What rulesets and structured grids make of an override list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner.base.errors import UserError
from runner.compose.commandline import split
from runner.compose.config import compose
from runner.compose.expand import expand, expand_all
from runner.compose.overrides import assignment

ROUND_TRIPS: list[Any] = [
    "lion", "two words", "a,b", "k=v", "{a: b}", "[x]", "null", "True", "nan", "1e-3", "0012", "", " ",
    "it's", 'say "hi"', "back\\slash", "ends\\", "\\'", "a\nb", "~x", "$x", "häßlich", "path/to-a.file",
    "a:b", "(x)", "#c", None, True, False, 0, -3, 10**20, 1e-5, 2.5e300, -0.0, float("inf"), [0.9, 0.95], [],
    [[1, 2], ["a,b", None]], {"a": 1, "b": [True, "x y"]}, {}, [{"k": "null"}],
]  # fmt: skip


@pytest.mark.parametrize("value", ROUND_TRIPS, ids=repr)
def test_a_value_comes_back_as_it_went_in(value: Any) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    parsed = OverridesParser.create().parse_overrides([assignment("key", value)])[0]
    assert not parsed.is_sweep_override()
    cfg = OmegaConf.create({"key": None})
    OmegaConf.update(cfg, "key", parsed.value())
    back = (OmegaConf.to_container(cfg, resolve=True) or {})["key"]  # pyright: ignore[reportCallIssue, reportArgumentType]
    assert back == value and type(back) is type(value)


def counts(overrides: list[str]) -> list[str]:
    return [o for o in overrides if o.startswith(("study=", "trial="))]


def test_external_tuning_is_studies_times_trials_of_the_search() -> None:
    cells = [counts(o) for o in expand(["algorithm=lion", "ruleset=external_tuning"])]
    assert cells == [[f"study={s}", f"trial={t}"] for s in range(3) for t in range(1, 6)]


def test_a_rulesets_numbers_may_be_changed() -> None:
    cells = list(expand(["ruleset=external_tuning", "ruleset.studies=5", "ruleset.trials=20"]))
    assert len(cells) == 100 and counts(cells[-1]) == ["study=4", "trial=20"]


@pytest.mark.parametrize("number", [200_001, 10**20])
def test_a_grid_that_nobody_could_run_is_refused_at_once(number: int) -> None:
    with pytest.raises(UserError, match=f"ruleset: studies={number}, trials=5: a grid has at most 1,000,000"):
        list(expand(["ruleset=external_tuning", f"ruleset.studies={number}"]))
    with pytest.raises(UserError, match="more than 1,000,000 values"):
        split([f"study=range(0,{number * 10})"])
    with pytest.raises(UserError, match="a grid of more than 1,000,000 cells"):
        split(["study=range(0,2000)", "algorithm.optimizer.lr=range(1,2000)"])


def test_what_the_user_says_of_study_and_trial_wins() -> None:
    cells = list(expand(["ruleset=external_tuning", "study=7"]))
    assert [counts(o) for o in cells] == [["study=7", f"trial={t}"] for t in range(1, 6)]
    assert list(expand(["ruleset=external_tuning", "study=7", "trial=0"])) == [
        ["ruleset=external_tuning", "study=7", "trial=0"]
    ]


def test_self_tuning_runs_the_defaults_for_longer_under_the_same_label() -> None:
    (cell, *_rest) = list(expand(["ruleset=self_tuning"]))
    plain, tuned = compose(["study=0"]), compose(cell)
    assert len(_rest) == 2 and tuned["trial"] == 0
    assert tuned["workload"]["budget_samples"] == 1.5 * plain["workload"]["budget_samples"]
    assert tuned["max_seconds"] == 1.5 * plain["max_seconds"]
    assert (tuned["label"], tuned["workload_label"]) == (plain["label"], plain["workload_label"])
    assert (tuned["ruleset"], plain["ruleset"]) == ("self_tuning", None)


def test_the_sequence_is_the_rulesets() -> None:
    lrs = {
        sequence: compose(["ruleset=external_tuning", f"ruleset.sequence={sequence}", "trial=2"])[
            "algorithm"
        ]["optimizer"]["lr"]
        for sequence in ("scrambled", "algoperf")
    }
    assert lrs["scrambled"] == compose(["trial=2"])["algorithm"]["optimizer"]["lr"] != lrs["algoperf"]


# -- sub-grids ---------------------------------------------------------------------------------------


@pytest.fixture
def experiment(tmp_path: Path) -> Any:
    """Write an experiment's YAML; its overrides and config folders come back."""

    def write(yaml: str) -> tuple[list[str], list[Path]]:
        (tmp_path / "experiment").mkdir(exist_ok=True)
        (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{yaml}")
        return ["+experiment=mine"], [tmp_path]

    return write


LINKED = """
grid:
  - {algorithm: adamw, algorithm.optimizer.lr: [1e-3, 3e-3], algorithm.optimizer.weight_decay: [0, 0.1]}
  - {algorithm: lion, algorithm.optimizer.lr: 3e-4, algorithm/loss: [null, label_smoothing]}
"""


def test_every_sub_grid_is_a_product_of_its_own(experiment: Any) -> None:
    overrides, dirs = experiment(LINKED)
    cells = [compose(cell, dirs) for cell in expand(overrides, dirs)]
    assert [cell["label"] for cell in cells] == [
        "adamw[lr=0.001,weight_decay=0]", "adamw[lr=0.001,weight_decay=0.1]", "adamw[weight_decay=0]",
        "adamw[weight_decay=0.1]", "lion[lr=0.0003]", "lion+label_smoothing[lr=0.0003]",
    ]  # fmt: skip
    assert not any("grid" in cell for cell in cells)


def test_a_ruleset_multiplies_every_sub_grid(experiment: Any) -> None:
    overrides, dirs = experiment(LINKED)
    cells = list(expand([*overrides, "ruleset=external_tuning", "ruleset.studies=2"], dirs))
    assert len(cells) == 6 * 2 * 5


def test_a_key_of_the_command_line_wins_and_makes_no_cell_twice(experiment: Any) -> None:
    overrides, dirs = experiment(LINKED)
    cells = list(expand([*overrides, "algorithm.optimizer.lr=0.5"], dirs))
    assert len(cells) == 4 and not any(o.startswith("algorithm.optimizer.lr=") for c in cells for o in c[2:])


def test_a_file_picked_on_the_command_line_selects_the_sub_grids_that_list_it(experiment: Any) -> None:
    overrides, dirs = experiment(LINKED)
    labels = {compose(c, dirs)["label"] for c in expand([*overrides, "algorithm=lion"], dirs)}
    assert labels == {"lion[lr=0.0003]", "lion+label_smoothing[lr=0.0003]"}
    assert len(list(expand([*overrides, "algorithm=nadamw"], dirs))) == 6  # none lists it: all take it


def test_jobs_of_a_sweep_share_no_cell(experiment: Any) -> None:
    overrides, dirs = experiment("grid: [{study: [0, 1]}, {study: 1}]")
    jobs = [[*overrides, "algorithm=lion"], [*overrides, "algorithm=adamw"], [*overrides, "algorithm=lion"]]
    assert [cell[1:] for cell in expand_all(jobs, dirs)] == [
        ["algorithm=lion", "study=0"], ["algorithm=lion", "study=1"],
        ["algorithm=adamw", "study=0"], ["algorithm=adamw", "study=1"],
    ]  # fmt: skip


def test_a_value_that_is_a_list_is_written_nested(experiment: Any) -> None:
    overrides, dirs = experiment("grid: [{algorithm.optimizer.betas: [[0.8, 0.9]], label: 'x, y = {z}'}]")
    (cell,) = [compose(cell, dirs) for cell in expand(overrides, dirs)]
    assert cell["algorithm"]["optimizer"]["betas"] == [0.8, 0.9] and cell["label"] == "x, y = {z}"


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("grid: 3", r"^grid: got 3, expected a list of mappings"),
        ("grid: []", r"^grid: got \[\], expected a list of mappings"),
        ("grid: {algorithm: lion}", r"^grid: got \{'algorithm': 'lion'\}, expected a list"),
        ("grid: [lion]", r"^grid\[0\]: got 'lion', expected a mapping"),
        ("grid: [{}, {algorithm.optimizer.lrr: 1}]", r"^grid\[1\]: unknown key 'algorithm.optimizer.lrr'"),
        ("grid: [{algorithm: muon, algorithm.optimizer.dampening: 1}]", r"^grid\[0\]: unknown key"),
        ("grid: [{algorithm: [lion, lio]}]", r"^grid\[0\]: unknown algorithm 'lio': did you mean lion"),
        ("grid: [{algorithm/optimiser: lion}]", r"^grid\[0\]: unknown group 'algorithm/optimiser'"),
        ("grid: [{study: []}]", r"^grid\[0\].study: got \[\], expected a value"),
        ("grid: [{ruleset: self_tuning}]", r"^grid\[0\].ruleset: belongs next to grid"),
        ("grid: [{workers: 2}]", r"^grid\[0\].workers: belongs next to grid"),
        ("ruleset: {trials: 0}\ndefaults: [override /ruleset: self_tuning]", r"^ruleset.trials: got 0"),
    ],
)  # fmt: skip
def test_a_grid_that_is_none_is_refused_in_one_line(experiment: Any, yaml: str, message: str) -> None:
    overrides, dirs = experiment(yaml)
    with pytest.raises(UserError, match=message) as caught:
        list(expand(overrides, dirs))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["ruleset=external"], r"unknown ruleset 'external': did you mean external_tuning"),
        (["ruleset.studies=3"], r"unknown key 'ruleset.studies': choose a ruleset first: ruleset=ext"),
        (["ruleset=self_tuning", "ruleset.studdies=3"], r"did you mean ruleset.studies"),
        (["ruleset=self_tuning", "ruleset.studies=1.5"], r"ruleset.studies: got 1.5, expected an integer"),
        (["ruleset=self_tuning", "ruleset.sequence=sobol"], r"ruleset.sequence: got 'sobol', expected one"),
    ],
)  # fmt: skip
def test_a_ruleset_that_is_none_is_refused_in_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        list(expand(overrides))


def test_without_grid_and_ruleset_a_list_stands_for_itself() -> None:
    assert list(expand(["algorithm=lion", "study=2"])) == [["algorithm=lion", "study=2"]]
    assert list(expand(["ruleset=null"])) == [["ruleset=null"]]


@pytest.mark.parametrize(
    ("experiment", "name", "cells"),
    [("linked", "linked", 16), ("leaderboard", "embedded-v1", 10 * 4 * 5 * 5)],
)
def test_the_experiments_that_come_with_it(experiment: str, name: str, cells: int) -> None:
    found = list(expand([f"+experiment={experiment}"]))
    assert len(found) == cells
    assert compose(found[-1])["name"] == name

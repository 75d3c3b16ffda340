"""Searches that end where they should go on: hand-made tables, commands that work, and what chance does."""

from __future__ import annotations

import shlex
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tuning_tables import MISS, draws, one_study, trials

from runner.base.errors import UserError
from runner.compose.config import algorithm_names, compose
from runner.stats.axes import Axis
from runner.stats.edges import edges
from runner.stats.widen import grid, overrides

LR = "optimizer.lr"
SPACE: dict[str, dict[str, Any]] = {LR: {"min": 1e-4, "max": 3e-2, "scale": "log"}}


def search(best: float, **columns: object) -> pd.DataFrame:
    """Two studies of 5 trials of adamw on digits; the fastest of all has lr ``best``."""
    lr = [1e-3, 2e-3, 4e-4, best, 6e-3, 1.5e-3, 3e-3, 5e-4, 8e-3, 1e-2]
    times = [9, 8, MISS, 3, 7, 9, 5, 9, 8, MISS]
    rows = [("digits", "adamw", i // 5, i % 5 + 1, float(time)) for i, time in enumerate(times)]
    return trials(rows, **{f"hparam/{LR}": lr}, **columns)


# -- rows --------------------------------------------------------------------------------------------


def test_a_best_trial_in_the_outer_strip_is_a_truncated_search() -> None:
    """log(0.028 / 1e-4) / log(300) = 0.988: in the outer 5 %. One of ten trials is there: q = 0.1."""
    row = edges(search(0.028), {"adamw": SPACE}, experiment="results/mine").iloc[0]
    assert dict(row) == {
        "workload": "digits", "label": "adamw", "hyperparameter": LR, "side": "max", "value": 0.028,
        "bound": 0.03, "declared": True, "best_by": "time", "studies": 2, "studies_at_border": 1,
        "chance": pytest.approx(0.1),
        "warning": "tuning truncated", "overrides": "algorithm.optimizer.search_space.lr.max=0.3",
        "command": "python -m runner -m algorithm=adamw workload=digits ruleset=external_tuning "
        "ruleset.studies=2 ruleset.trials=5 algorithm.optimizer.search_space.lr.max=0.3 "
        "label=adamw_wide name=mine",
    }  # fmt: skip


def test_a_best_trial_inside_is_none() -> None:
    assert not len(edges(search(2.2e-3), {"adamw": SPACE}))


def test_the_lower_bound_is_a_border_too() -> None:
    row = edges(search(1.1e-4), {"adamw": SPACE}).iloc[0]
    assert (row["side"], row["bound"], row["overrides"]) == (
        "min",
        1e-4,
        "algorithm.optimizer.search_space.lr.min=1e-05",
    )


def spread(winners: list[float]) -> pd.DataFrame:
    """A study for each winner, of 10 trials; the others lie between 1e-3 and 1e-2."""
    rng = np.random.default_rng(0)
    lr = [[*10 ** rng.uniform(-3, -2, 9), winner] for winner in winners]
    rows = [
        ("w", "a", study, trial, 5.0 + study if trial == 10 else 50.0)
        for study in range(len(winners))
        for trial in range(1, 11)
    ]
    return trials(rows, **{f"hparam/{LR}": np.concatenate(lr)})


def test_the_outermost_that_was_tried_is_a_border_where_it_is_no_chance() -> None:
    """Nothing was tried beyond 0.013: with 5 winners of 50 out there, 3 trials are the outermost 5 %."""
    frame = edges(spread([0.013, 0.0129, 0.0128, 5e-3, 5e-3]), {"a": SPACE})
    assert frame["studies_at_border"].tolist() == [3] and frame["studies"].tolist() == [5]
    q = 3 / 50
    assert frame["chance"].iloc[0] == pytest.approx(q * (6 * q**2 * (1 - q) ** 2 + 4 * q**3 * (1 - q) + q**4))
    alone = edges(spread([0.013, 5e-3, 5e-3, 5e-3, 5e-3]), {"a": SPACE}, level=0.999)
    assert not len(alone), "one of five is likely enough by chance"


def test_where_nothing_hit_the_metric_says_which_is_best() -> None:
    cells = search(0.028).assign(samples_to_target=MISS, hit=False, ended="budget", minimize=True)
    cells = cells.assign(best_metric=[0.5, 0.4, 0.9, 0.1, 0.3, 0.5, 0.4, 0.9, 0.2, 0.8])
    row = edges(cells, {"adamw": SPACE}).iloc[0]
    assert (row["best_by"], row["value"]) == ("metric", 0.028)
    assert not len(edges(cells.assign(minimize=False), {"adamw": SPACE})), "0.9 is inside"
    assert not len(edges(cells.drop(columns="best_metric"), {"adamw": SPACE})), "nothing is best"


def test_time_says_which_is_best_before_the_metric() -> None:
    """Runs that stopped at the target have the metric of where they stopped."""
    metric = [0.1] * 3 + [0.9] + [0.1] * 6
    assert len(edges(search(0.028, best_metric=metric, minimize=True), {"adamw": SPACE})) == 1


def test_choices_have_a_border_where_they_are_numbers_and_many_studies_agree() -> None:
    rows = [
        ("w", "a", study, trial, 5.0 if trial == 3 else 50.0) for study in range(5) for trial in (1, 2, 3)
    ]
    cells = trials(rows, **{"hparam/optimizer.momentum": [0.8, 0.9, 0.98] * 5, "hparam/seed": range(15)})
    space = {"optimizer.momentum": {"choices": [0.8, 0.9, 0.98]}, "seed": {"min": -100, "max": 100}}
    row = edges(cells, {"a": space}).iloc[0]
    assert (row["side"], row["value"], row["studies_at_border"]) == ("max", 0.98, 5)
    assert row["overrides"] == "'algorithm.optimizer.search_space.momentum.choices=[0.8,0.9,0.98,0.996]'"
    one = edges(cells.loc[cells["study"] == 0], {"a": space})
    assert not len(one), "the last of three choices is the best one time in three"
    words = cells.assign(**{"hparam/optimizer.momentum": ["x", "y", "z"] * 5})
    assert not len(edges(words, {"a": {"optimizer.momentum": {"choices": ["x", "y", "z"]}}}))


def test_studies_that_share_their_points_are_one() -> None:
    rows = [
        ("w", "a", study, trial, 5.0 if trial == 3 else 50.0) for study in range(5) for trial in (1, 2, 3)
    ]
    cells = trials(rows, **{f"hparam/{LR}": [1e-3, 2e-3, 5e-3] * 5})
    assert not len(edges(cells, {"a": SPACE})), "the best of three points is the outermost one time in three"


def test_a_natural_bound_is_no_truncation() -> None:
    cells = one_study([5.0, 9, 9, 9], **{"hparam/optimizer.dropout": [0.001, 0.2, 0.3, 0.4]})
    row = edges(cells, {"a": {"optimizer.dropout": {"min": 0.0, "max": 0.5}}}).iloc[0]
    assert (row["warning"], row["overrides"], row["command"]) == ("on a natural bound", "", "")


def test_without_a_space_there_is_a_warning_and_no_override() -> None:
    row = edges(spread([0.013, 0.0129, 0.0128, 5e-3, 5e-3])).iloc[0]
    assert (row["declared"], row["overrides"], row["warning"]) == (False, "", "tuning truncated")


# -- overrides and commands --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axis", "side", "override"),
    [
        (Axis("lr", 0.1, 100, log=True, declared=True), "max", "algorithm.search_space.lr.max=1000"),
        (Axis("o.lr", 0.05, 0.2, log=True, declared=True), "min", "algorithm.o.search_space.lr.min=0.0125"),
        (Axis("o.warmup", 0.0, 0.1, declared=True), "max", "algorithm.o.search_space.warmup.max=0.2"),
        (Axis("o.warmup", 0.0, 0.8, declared=True), "max", "algorithm.o.search_space.warmup.max=0.98"),
        (Axis("o.temperature", 1.0, 3.0, declared=True), "min", "algorithm.o.search_space.temperature.min=0"),
        (
            Axis("o.lr", choices=("0.1", "0.2", "0.4"), declared=True),
            "max",
            "algorithm.o.search_space.lr.choices=[0.1,0.2,0.4,0.8]",
        ),
        (
            Axis("o.lr", choices=("0", "0.2", "0.4"), declared=True),
            "max",
            "algorithm.o.search_space.lr.choices=[0,0.2,0.4,0.8]",
        ),
    ],
)
def test_what_widens_an_axis(axis: Axis, side: Any, override: str) -> None:
    assert overrides(axis, (side,)) == [override]


@pytest.mark.parametrize(
    "axis",
    [
        Axis("o.warmup", 0.0, 0.1, declared=True),
        Axis("o.w", choices=("0", "1", "2"), declared=True),
        Axis("o.lr", 1.0, 2.0),
    ],
)
def test_what_nothing_widens(axis: Axis) -> None:
    assert overrides(axis, ("min",)) == []


def test_one_command_widens_every_border_of_an_algorithm_on_all_its_workloads() -> None:
    low, high = search(1.1e-4), search(0.028).assign(workload="breast_cancer")
    frame = edges(pd.concat([low, high]), {"adamw": SPACE})
    assert len(frame) == 2 and frame["command"].nunique() == 1
    assert "workload=breast_cancer,digits " in frame["command"].iloc[0]
    assert "lr.max=0.3 algorithm.optimizer.search_space.lr.min=1e-05 " in frame["command"].iloc[0]


def test_a_label_that_is_no_plain_name_needs_its_origin() -> None:
    cells = search(0.028).assign(label="adamw+ema[lr=1]")
    space = {"adamw+ema[lr=1]": SPACE}
    assert edges(cells, space)["command"].iloc[0] == ""
    made = {"adamw+ema[lr=1]": ["algorithm=adamw", "algorithm/average=ema", "a=$(rm x)"]}
    command = edges(cells, space, origins=made)["command"].iloc[0]
    assert shlex.split(command)[4:7] == made["adamw+ema[lr=1]"] and "label=adamw_ema_lr_1__wide" in command


NESTED = ["adamw", "normalized_lr_gd", "mechanic", "sam", "linupper", "clip_norm", "label_smoothing"]


@pytest.mark.parametrize("name", NESTED)
def test_the_override_is_where_the_config_has_the_space(name: str) -> None:
    """Spaces of the algorithm itself, of parts, and of parts in a list: only those bounds change."""
    assert name in algorithm_names()
    before = compose([f"algorithm={name}", "workload=digits"])["search_space"]
    ranges = [key for key, entry in before.items() if "min" in entry]
    axes = [
        Axis(k, before[k]["min"], before[k]["max"], before[k]["scale"] == "log", declared=True)
        for k in ranges
    ]
    wider = [text for axis in axes for text in overrides(axis, ("max",))]
    after = compose([f"algorithm={name}", "workload=digits", *wider])["search_space"]
    assert wider and {key for key in before if after[key] != before[key]} == set(ranges)
    assert all(after[key]["max"] > before[key]["max"] for key in ranges)


def test_the_command_composes_with_points_of_the_wider_space() -> None:
    command = shlex.split(edges(search(0.028), {"adamw": SPACE})["command"].iloc[0])
    assert command[:4] == ["python", "-m", "runner", "-m"]
    wanted = [text for text in command[4:] if not text.startswith("ruleset")]
    config = compose([*wanted, "study=0", "trial=2"])
    assert config["label"] == "adamw_wide" and config["search_space"][LR]["max"] == 0.3
    narrow = compose(["algorithm=adamw", "workload=digits", "study=0", "trial=2"])
    assert config["algorithm"]["optimizer"]["lr"] > narrow["algorithm"]["optimizer"]["lr"]


# -- by chance, and for real -------------------------------------------------------------------------


def test_how_often_a_hyperparameter_that_does_not_matter_is_on_a_border() -> None:
    """Two strips of 5 %, and by agreement of studies beyond them hardly more."""
    rng = np.random.default_rng(0)
    times, lr = rng.random((400, 25)) * 100, 1e-4 * 300 ** rng.random((400, 25))
    share = len(edges(draws(times, {LR: lr}, studies=5), {"a": SPACE})) / 400
    assert 0.07 < share < 0.2


def test_an_optimum_beyond_the_bound_is_found() -> None:
    """The time falls all the way to the upper bound, with noise."""
    rng = np.random.default_rng(1)
    unit = rng.random((100, 25))
    times = np.exp(-3 * unit + 0.1 * rng.standard_normal(unit.shape))
    frame = edges(draws(times, {LR: 1e-4 * 300**unit}, studies=5), {"a": SPACE})
    assert len(frame) > 75 and set(frame["side"]) == {"max"}


# -- degenerate tables -------------------------------------------------------------------------------


def test_empty_hostile_and_bad() -> None:
    empty = edges(search(0.028).iloc[:0], {"adamw": SPACE})
    assert not len(empty) and {"warning", "command"} <= set(empty.columns)
    name = "';<script>\n" * 30
    row = edges(search(0.028).assign(label=name, workload=name), {name: SPACE}).iloc[0]
    assert row["command"] == "" and row["overrides"] == "algorithm.optimizer.search_space.lr.max=0.3"
    hostile = one_study([5.0, 9, 9], **{f"hparam/{name}": [0.099, 0.01, 0.02]})
    wider = edges(hostile, {"a": {name: {"min": 0.01, "max": 0.1}}})["overrides"].iloc[0]
    assert len(shlex.split(wider)) == 1
    assert not len(edges(one_study([5.0, MISS])))
    with pytest.raises(UserError):
        edges(search(0.028), level=2)


def test_a_grid_of_nothing_wider_is_no_command() -> None:
    assert grid("adamw", search(0.028), [], None, None) == ""

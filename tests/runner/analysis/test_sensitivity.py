"""Maps, good regions and importance: hand-made tables, and simulated searches of known truth."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tuning_tables import MISS, draws, one_study, trials, within

from runner.base.errors import UserError
from runner.stats.axes import Axis, axes
from runner.stats.importance import importance
from runner.stats.sensitivity import good_region, map_axes, sensitivity_map

LR = "optimizer.lr"
SPACE: dict[str, dict[str, Any]] = {LR: {"min": 1e-4, "max": 1.0, "scale": "log"}}


def at(frame: pd.DataFrame, key: str) -> pd.Series:
    return frame.loc[frame["hyperparameter"] == key].iloc[0]


def table(times: list[float], **hparams: list[Any]) -> pd.DataFrame:
    return one_study(times, **{f"hparam/{key.replace('__', '.')}": values for key, values in hparams.items()})


# -- axes --------------------------------------------------------------------------------------------


def test_axes_show_lr_and_weight_decay_first_and_leave_out_what_is_fixed() -> None:
    cells = table(
        [1, 2, 3],
        eps=[1e-8] * 3,
        beta=[0.1, 0.5, 0.9],
        optimizer__weight_decay=[0.1, 0.2, 0.3],
        lr=[1, 2, 30],
    )
    assert [axis.key for axis in axes(cells)] == ["lr", "optimizer.weight_decay", "beta"]
    assert [axis.log for axis in axes(cells)] == [True, False, False]
    assert list(map_axes(cells)) == ["a"]


def test_an_axis_is_what_the_space_says_it_is() -> None:
    cells = table([1, 2], optimizer__lr=[0.01, 0.02], betas=["[0.9, 0.99]", "[0.9, 0.999]"])
    space = {**SPACE, "betas": {"choices": [[0.9, 0.99], [0.9, 0.999], [0.95, 0.99]]}}
    lr, betas = axes(cells, space)
    assert lr == Axis(LR, 1e-4, 1.0, log=True, declared=True)
    assert list(lr.unit(np.array([1e-4, 1e-2, 1.0, -1.0]))) == pytest.approx(
        [0, 0.5, 1, math.nan], nan_ok=True
    )
    assert betas.choices == ("[0.9, 0.99]", "[0.9, 0.999]", "[0.95, 0.99]") and betas.declared


@pytest.mark.parametrize(
    "entry", [None, 3, {}, {"min": 2, "max": 1}, {"min": "x", "max": 1}, {"min": 0, "max": 1, "scale": "log"}]
)
def test_a_damaged_space_is_read_off_the_trials(entry: object) -> None:
    (axis,) = axes(table([1, 2, 3], optimizer__lr=[0.5, 1.0, 2.0]), {LR: entry})  # pyright: ignore
    assert (axis.low, axis.high, axis.declared) == (0.5, 2.0, False)


def test_few_numbers_tried_often_are_choices() -> None:
    (axis,) = axes(table([1] * 6, momentum=[0.9, 0.8, 0.9, 0.8, 0.9, 0.8]))
    assert axis.choices == ("0.8", "0.9") and (axis.bound("min"), axis.bound("max")) == (0.8, 0.9)


# -- maps --------------------------------------------------------------------------------------------


def test_a_map_shows_misses_and_the_defaults() -> None:
    cells = trials([("w", "a", 0, 0, 5), ("w", "a", 0, 1, MISS), ("w", "b", 0, 1, 4)])
    cells = cells.assign(**{"hparam/lr": [0.1, 0.2, 0.3], "hparam/wd": [1.0, 2.0, math.nan]})
    frame = sensitivity_map(cells, "lr", "wd")
    assert frame.to_dict("list") == {
        "workload": ["w", "w"], "label": ["a", "a"], "study": [0, 0], "trial": [0, 1], "x": [0.1, 0.2],
        "y": [1.0, 2.0], "time": [5.0, MISS], "missed": [False, True],
    }  # fmt: skip
    assert len(sensitivity_map(cells, "lr", "lr", label="b")) == 1
    with pytest.raises(UserError, match="no hyperparameter lrr in the table: did you mean lr"):
        sensitivity_map(cells, "lrr", "wd")


# -- the good region ---------------------------------------------------------------------------------


def test_the_width_of_a_hand_made_region() -> None:
    """Good: 4 of 8, from 1e-3 to 1e-2, so a quarter of the four decades, times 5/3; one bad inside."""
    lr = [1e-4, 1e-3, 2e-3, 4e-3, 5e-3, 1e-2, 1e-1, 1.0]
    frame = good_region(table([MISS, 10, 20, MISS, 15, 12, 21, MISS], optimizer__lr=lr), {"a": SPACE})
    row = frame.iloc[0]
    assert (row["settings"], row["good"], row["best"], row["share"]) == (8, 4, 10, 0.5)
    assert (row["low"], row["high"]) == (1e-3, 1e-2) and row["inside"] == 4 / 5
    assert row["width"] == pytest.approx(0.25 * 5 / 3)
    # range ÷ width ~ Beta(3, 2): 2.5 % and 97.5 % at 0.1941 and 0.9324.
    assert (row["width_low"], row["width_high"]) == pytest.approx((0.25 / 0.9324, 1.0), abs=1e-3)
    assert (row["share_low"], row["share_high"]) == pytest.approx((0.1570, 0.8430), abs=1e-3)


def test_a_width_of_choices_is_the_share_that_works() -> None:
    frame = good_region(
        table([5, 6, MISS, MISS], betas=["x", "y", "z", "z"]),
        {"a": {"betas": {"choices": ["x", "y", "z", "u"]}}},
    )
    assert frame["width"].iloc[0] == 0.5 and frame["kind"].iloc[0] == "choices"


def test_two_good_settings_have_no_width_and_no_hit_no_region() -> None:
    frame = good_region(table([5, 6, MISS], lr=[1.0, 2.0, 3.0]))
    assert "2 good" in frame["reason"].iloc[0] and math.isnan(frame["width"].iloc[0])
    assert good_region(table([MISS] * 3, lr=[1.0, 2.0, 3.0]))["reason"].iloc[0] == "no trial hit"
    assert "none varies" in good_region(table([1, 2], lr=[1.0, 1.0]))["reason"].iloc[0]
    assert "none varies" in good_region(one_study([1, 2]))["reason"].iloc[0]


def test_a_setting_in_several_studies_counts_once_with_its_median() -> None:
    rows = [("w", "a", study, trial, 10.0 * trial + study) for study in range(3) for trial in (1, 2, 3)]
    frame = good_region(trials(rows, **{"hparam/lr": [1.0, 2.0, 3.0] * 3}))
    assert (frame["settings"].iloc[0], frame["good"].iloc[0], frame["best"].iloc[0]) == (3, 2, 11)


def region(rng: np.random.Generator, n: int, taper: bool = False) -> tuple[pd.DataFrame, float]:
    """300 searches in two dimensions; good where lr is in 0.3 to 0.7 of its scale (and wd in half of its)."""
    u, v = rng.random((2, 300, n))
    radius = ((u - 0.5) / 0.2) ** 2 + ((v - 0.5) / 0.25) ** 2
    good = radius < 1 if taper else (np.abs(u - 0.5) < 0.2) & (np.abs(v - 0.5) < 0.25)
    times = np.where(good, rng.uniform(10, 19, u.shape), MISS)
    cells = draws(times, {LR: 1e-4 * 1e4**u, "wd": v})
    return cells.loc[cells.groupby("workload")["samples_to_target"].transform("min") < MISS], 0.4


def test_the_width_is_unbiased_and_its_interval_covers_in_a_box() -> None:
    cells, truth = region(np.random.default_rng(0), 50)
    frame = good_region(cells, {"a": {**SPACE, "wd": {"min": 0, "max": 1}}})
    own = frame.loc[(frame["hyperparameter"] == LR) & frame["width"].notna()]
    assert len(own) > 280
    assert own["width"].mean() == pytest.approx(truth, abs=0.015)
    assert 0.92 <= within(own["width_low"], truth, own["width_high"]) <= 0.98
    assert 0.5 < own["inside"].mean() < 0.6, "half of wd, and the outermost good one at each end"
    assert own["share"].mean() == pytest.approx(0.2, abs=0.02)


def test_the_width_is_on_the_low_side_where_the_region_thins_out() -> None:
    cells, truth = region(np.random.default_rng(1), 50, taper=True)
    own = good_region(cells, {"a": {**SPACE, "wd": {"min": 0, "max": 1}}})
    width = own.loc[own["hyperparameter"] == LR, "width"].mean()
    assert 0.85 * truth < width < truth


# -- importance --------------------------------------------------------------------------------------


def test_the_effect_of_a_hand_made_table() -> None:
    """Ranks 1 to 10 in two groups, the five lowest in one: η² = 62.5 / 82.5."""
    frame = importance(table([float(t) for t in range(1, 11)], lr=[float(v) for v in range(1, 11)]))
    row = frame.iloc[0]
    # Between: 10 · 2.5² = 62.5 of 82.5; corrected 1 − (20 / 82.5) · 9 / 8. Of 252 splits, 2 are as extreme.
    assert row["groups"] == 2 and row["share"] == pytest.approx(1 - (20 / 82.5) * 9 / 8)
    assert row["p"] == pytest.approx(2 / 252, abs=0.01) and row["matters"]


def test_choices_are_groups_and_misses_are_one_rank() -> None:
    times = [1.0, 2, 3, 4, 5] + [MISS] * 5
    frame = importance(table(times, sort=["good"] * 5 + ["bad"] * 5, lr=[3.0, 1, 4, 2, 8, 9, 5, 7, 6, 0]))
    # Ranks 1…5 and five times 8: between 10 · 2.5² = 62.5, within 10.
    assert at(frame, "sort")["share"] == pytest.approx(1 - (10 / 72.5) * 9 / 8)


def test_importance_of_the_metric_where_nothing_was_cut() -> None:
    values = [0.1 * v for v in range(10)]
    cells = table([MISS] * 10, lr=[float(v) for v in range(1, 11)]).assign(best_metric=values, minimize=False)
    assert importance(cells)["reason"].iloc[0] == "no trial hit"
    assert importance(cells, of="metric")["share"].iloc[0] == pytest.approx(1 - (20 / 82.5) * 9 / 8)
    cut = cells.assign(hit=[True] + [False] * 9, ended=["target"] + ["budget"] * 9)
    assert "stopped at the target" in importance(cut, of="metric")["reason"].iloc[0]
    with pytest.raises(UserError, match="time or metric"):
        importance(cells, of="loss")  # pyright: ignore


def test_too_few_settings_have_no_importance() -> None:
    assert (
        "9 settings: 10 are needed"
        in importance(table([1.0] * 9, lr=[float(v) for v in range(9)]))["reason"].iloc[0]
    )
    assert (
        "all times are equal"
        in importance(table([1.0] * 12, lr=[float(v) for v in range(12)]))["reason"].iloc[0]
    )


def test_hyperparameters_varied_together_are_told() -> None:
    rng = np.random.default_rng(0)
    lr = rng.random(25)
    cells = table(
        list(lr + 1), lr=list(lr), other=list(rng.random(25)), twin=["low" if v < 0.5 else "high" for v in lr]
    )
    frame = importance(cells)
    assert at(frame, "lr")["confounded"] == "twin" and at(frame, "twin")["confounded"] == "lr"
    assert at(frame, "other")["confounded"] == ""


def shares(rng: np.random.Generator, count: int, n: int) -> pd.DataFrame:
    """log time = 2 x₁ + x₂ + noise, x₃ nothing, misses above 2: ``count`` searches of n trials."""
    x = rng.random((3, count, n))
    log = 2 * x[0] + x[1] + 0.2 * rng.standard_normal((count, n))
    times = np.where(log < 2, np.exp(log), MISS)
    return importance(draws(times, {"x1": x[0], "x2": x[1], "x3": x[2]}))


def test_importance_finds_the_shares_of_a_known_function() -> None:
    truth = shares(np.random.default_rng(1), 1, 2_000).set_index("hyperparameter")["share"]
    frame = shares(np.random.default_rng(2), 100, 25)
    mean = frame.groupby("hyperparameter")["share"].mean()
    assert truth["x1"] > 0.6 and 0.1 < truth["x2"] < 0.3 and truth["x3"] < 0.02
    assert abs(mean["x1"] - truth["x1"]) < 0.05 and abs(mean["x2"] - truth["x2"]) < 0.05
    assert mean["x3"] < 0.08, "shares do not go below 0, so that chance alone leaves something"
    found = frame.assign(matters=frame["matters"].astype(bool)).groupby("hyperparameter")["matters"].mean()
    assert found["x1"] > 0.9 and found["x3"] < 0.05


def test_what_does_not_matter_is_seldom_said_to() -> None:
    rng = np.random.default_rng(3)
    times = np.where(rng.random((300, 25)) < 0.5, rng.integers(1, 9, (300, 25)).astype(float), MISS)
    frame = importance(draws(times, {"x": rng.random(times.shape)}))
    assert (frame["p"] <= 0.05).mean() < 0.08


def test_row_order_does_not_matter() -> None:
    frame = shares(np.random.default_rng(4), 2, 25)
    assert frame.equals(shares(np.random.default_rng(4), 2, 25))


# -- degenerate tables -------------------------------------------------------------------------------


def test_empty_tables_and_hostile_names() -> None:
    empty = table([1.0, 2.0], lr=[1.0, 2.0]).iloc[:0]
    name = "';<script>\n" * 30
    hostile = table([1.0, 2, 3], lr=[1.0, 2.0, 4.0]).assign(
        workload=name, label=name, **{f"hparam/{name}": ["a", "'b\n", None]}
    )
    for function in (good_region, importance):
        assert not len(function(empty)) and "reason" in function(empty)
        assert set(function(hostile)["label"]) == {name}
    assert not len(sensitivity_map(empty, "lr", "lr"))


def test_bad_arguments() -> None:
    cells = table([1.0, 2.0], lr=[1.0, 2.0])
    for bad in (
        lambda: good_region(cells, factor=0.5),
        lambda: good_region(cells, level=0),
        lambda: importance(cells, level=1),
    ):
        with pytest.raises(UserError):
            bad()

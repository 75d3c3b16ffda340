"""One setting for all: hand-made tables, and a simulation of what choosing on the same runs does."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from tuning_tables import MISS, trials

from runner.base.errors import UserError
from runner.stats.one_setting import best_setting, one_setting, one_setting_by_workload, workloads_needed


def runs(times: dict[str, list[float]], **columns: object) -> pd.DataFrame:
    """Algorithm ``a``: workload -> the time of trial 1, 2, … of one study, with lr 1, 2, …"""
    rows = [
        (workload, "a", 0, trial, time)
        for workload, own in times.items()
        for trial, time in enumerate(own, 1)
    ]
    return trials(rows, **{"hparam/lr": [float(row[3]) for row in rows], "hparam/eps": 1e-8, **columns})


HAND = {"u": [10, 20, 40], "v": [30, 10, 40], "w": [MISS, 30, 10], "x": [MISS, MISS, MISS]}


def test_the_best_single_setting_by_hand() -> None:
    """Ratios: lr 1: 1, 3, miss; lr 2: 2, 1, 3; lr 3: 4, 4, 1. lr 2 hits three at ∛6, lr 3 at ∛16."""
    row = one_setting(runs(HAND)).iloc[0]
    assert json.loads(row["setting"]) == {"lr": 2.0}
    assert (row["study"], row["trial"], row["settings"], row["workloads"], row["hits"]) == (0, 2, 3, 3, 3)
    assert row["ratio"] == pytest.approx(6 ** (1 / 3))


def test_the_held_out_choice_by_hand() -> None:
    """Products without u: lr 2 3, lr 3 4; without v: lr 2 6, lr 3 4; without w: lr 1 3, lr 2 2."""
    frame = one_setting_by_workload(runs(HAND)).set_index("workload")
    assert list(frame.index) == ["u", "v", "w"]
    assert list(frame["tuned"]) == [10, 10, 10] and list(frame["tuned_trial"]) == [1, 2, 3]
    assert list(frame["time"]) == [20, 10, 30] and list(frame["ratio"]) == [2, 1, 3]
    assert list(frame["held_out_trial"]) == [2, 3, 2] and list(frame["held_out_ratio"]) == [2, 4, 3]
    row = one_setting(runs(HAND)).iloc[0]
    assert row["held_out_hits"] == 3 and row["held_out_ratio"] == pytest.approx(24 ** (1 / 3))


def test_more_hits_come_before_a_better_mean() -> None:
    ratios = np.array([[1.0, 1.0, math.inf], [2.0, 3.0, 4.0], [2.0, 3.0, 4.0]])
    assert best_setting(ratios) == 1, "the first of equals"
    row = one_setting(runs({"u": [10, 20], "v": [10, 20], "w": [MISS, 20]})).iloc[0]
    assert (row["trial"], row["hits"]) == (2, 3)


def test_a_miss_of_the_held_out_choice_counts() -> None:
    row = one_setting(runs({"u": [1.0, 3.0], "v": [MISS, 5.0]})).iloc[0]
    assert (row["hits"], row["held_out_hits"]) == (2, 1)
    frame = one_setting_by_workload(runs({"u": [1.0, 3.0], "v": [MISS, 5.0]}))
    assert list(frame["held_out_ratio"]) == [3, math.inf]


def test_only_settings_of_all_workloads_compete() -> None:
    cells = runs({"u": [10, 20, 5], "v": [30, 10, 40]})
    unfinished = cells["workload"].eq("u") & cells["trial"].eq(3)
    row = one_setting(cells.assign(status=cells["status"].mask(unfinished, "running"))).iloc[0]
    assert (row["settings"], row["trial"]) == (2, 2)


def test_settings_are_their_hyperparameters_else_study_and_trial() -> None:
    cells = runs({"u": [10, 20], "v": [30, 10]})
    again = pd.concat([cells, cells.assign(study=1, samples_to_target=cells["samples_to_target"] * 3)])
    same, row = one_setting(cells).iloc[0], one_setting(again).iloc[0]
    assert (row["settings"], row["ratio"]) == (2, pytest.approx(same["ratio"])), "medians of two studies"
    unknown = one_setting(again.drop(columns=["hparam/lr", "hparam/eps"])).iloc[0]
    assert (unknown["settings"], unknown["setting"]) == (4, "{}")


def test_what_follows_from_the_workload_is_no_part_of_a_setting() -> None:
    cells = runs({"u": [10, 20], "v": [30, 10]})
    cells["hparam/steps"] = cells["workload"].map({"u": 100, "v": 200})
    assert one_setting(cells)["settings"].tolist() == [2]


def test_a_time_of_zero_compares_with_zero_alone() -> None:
    row = one_setting(runs({"u": [0.0, 5.0], "v": [10.0, 10.0]})).iloc[0]
    assert (row["trial"], row["hits"], row["ratio"]) == (1, 2, 1)


def test_what_cannot_be_said_has_a_reason() -> None:
    assert "one workload" in one_setting(runs({"u": [1.0, 2.0]}))["reason"].iloc[0]
    assert "no setting hit" in one_setting(runs({"u": [MISS], "v": [MISS]}))["reason"].iloc[0]
    apart = pd.concat([runs({"u": [1.0]}), runs({"v": [1.0, 2.0]}).iloc[1:]])
    assert "finished on all" in one_setting(apart)["reason"].iloc[0]
    one = one_setting(runs({"u": [1.0, 2.0], "v": [MISS, MISS]})).iloc[0]
    assert one["workloads"] == 1 and pd.isna(one["held_out_hits"])
    for function in (one_setting, one_setting_by_workload):
        assert not len(function(runs(HAND).iloc[:0])) and "label" in function(runs(HAND).iloc[:0])
    name = "';<script>\n" * 30
    assert one_setting(runs(HAND).assign(label=name))["label"].tolist() == [name]


def test_row_order_does_not_matter() -> None:
    cells = runs(HAND)
    assert one_setting(cells.sample(frac=1, random_state=0)).equals(one_setting(cells))


def test_workloads_needed() -> None:
    assert workloads_needed(15, 0.1, 0.05) == 320
    with pytest.raises(UserError):
        workloads_needed(0)


def simulated(luck: float, count: int = 50) -> pd.DataFrame:
    """25 settings on 6 workloads: log time = setting + setting on workload + luck of the run.

    Mean log ratios and, without luck, what the chosen settings truly cost against the truly best.
    """
    rng, tables, regrets = np.random.default_rng(0), [], []
    for i in range(count):
        expected = 0.5 * rng.standard_normal((25, 1)) + 0.3 * rng.standard_normal((25, 6))
        times = np.exp(5 + expected + luck * rng.standard_normal((25, 6)))
        tables.append(runs({f"w{j}": list(times[:, j]) for j in range(6)}).assign(label=f"a{i:03d}"))
        regrets.append(expected - expected.min(axis=0))
    cells = pd.concat(tables)
    frame, each = one_setting(cells), one_setting_by_workload(cells)
    held = each["held_out_trial"].to_numpy(int).reshape(count, 6) - 1
    return pd.DataFrame(
        {
            "chosen": np.log(frame["ratio"]),
            "held_out": np.log(frame["held_out_ratio"]),
            "truth": [own[trial - 1].mean() for own, trial in zip(regrets, frame["trial"], strict=True)],
            "held_out_truth": [own[h, np.arange(6)].mean() for own, h in zip(regrets, held, strict=True)],
        }
    )


def test_without_luck_the_regret_is_the_true_one_and_holding_out_costs_more() -> None:
    frame = simulated(luck=0.0)
    assert np.allclose(frame["chosen"], frame["truth"])
    assert np.allclose(frame["held_out"], frame["held_out_truth"])
    assert frame["held_out"].mean() > frame["chosen"].mean() + 0.02


def test_luck_makes_both_figures_too_high_as_they_say() -> None:
    """The best of n on a workload is lucky as well as good."""
    mean = simulated(luck=0.3).mean()
    assert mean["chosen"] > mean["truth"] + 0.05 and mean["held_out"] > mean["held_out_truth"] + 0.05
    assert mean["held_out"] > mean["chosen"]

"""Tuning curves: hand-made tables, every subset there is, and simulated searches of known chance."""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import pandas as pd
import pytest
from tuning_tables import MISS, draws, one_study, trials, within

from runner.base.errors import UserError
from runner.stats.best_metric import expected_best
from runner.stats.tuning import hit_curves, hit_probability, marks, subset_cdf, tuning_cost


def at(frame: pd.DataFrame, k: int) -> pd.Series:
    return frame.loc[frame["k"] == k].iloc[0]


# -- the chance to hit -------------------------------------------------------------------------------


def test_one_hit_in_three_and_two_trials_give_two_thirds() -> None:
    frame = hit_probability(one_study([5, 9, MISS]), {"w": {"six": 6}})
    assert at(frame, 2)["probability"] == pytest.approx(0.666667, abs=5e-7)
    assert list(frame["probability"]) == pytest.approx([1 / 3, 2 / 3, 1])
    assert dict(at(frame, 2)[["at", "time", "trials", "hits", "points", "reason"]]) == {
        "at": "six", "time": 6, "trials": 3, "hits": 1, "points": 3, "reason": "",
    }  # fmt: skip


def test_the_chance_is_the_mean_over_every_subset() -> None:
    times = [3, 8, MISS, 5, MISS, 9, 20]
    frame = hit_probability(one_study(times), {"w": {"t": 8}})
    for k in range(1, 8):
        subsets = list(itertools.combinations(times, k))
        assert at(frame, k)["probability"] == pytest.approx(statistics.fmean(min(s) <= 8 for s in subsets))


def test_the_band_is_clopper_and_pearsons_and_carried_over() -> None:
    # 1 of 3: the standard interval is 0.008404 to 0.905701.
    frame = hit_probability(one_study([5, MISS, MISS]))
    assert list(at(frame, 1)[["low", "high"]]) == pytest.approx([0.008404, 0.905701], abs=1e-6)
    assert at(frame, 2)["low"] == pytest.approx(1 - (1 - 0.008404) ** 2, abs=1e-6)
    assert at(frame, 3)["high"] == 1.0, "the band holds the estimate"


def test_nothing_and_everything_hit() -> None:
    none, all_of = (hit_probability(one_study([time] * 4)) for time in (MISS, 7.0))
    assert list(none["probability"]) == [0] * 4 and (none["low"] == 0).all() and (none["high"] > 0.6).all()
    assert (
        list(all_of["probability"]) == [1] * 4 and (all_of["high"] == 1).all() and (all_of["low"] < 1).all()
    )


def test_a_curve_over_time_steps_at_the_hits() -> None:
    frame = hit_curves(one_study([5, 9, 5, MISS]), trials=[1, 2, 9])
    assert [tuple(row) for row in frame[["time", "k", "hits"]].to_numpy()] == [
        (5, 1, 2), (5, 2, 2), (9, 1, 3), (9, 2, 3),
    ]  # fmt: skip
    assert list(frame["probability"]) == pytest.approx([1 / 2, 5 / 6, 3 / 4, 1])


def test_studies_are_one_pool_where_each_has_its_own_points_else_a_pool_each() -> None:
    rows = [
        ("w", "a", study, trial, 5.0 if (study, trial) == (0, 1) else MISS)
        for study in (0, 1)
        for trial in (1, 2)
    ]
    own = trials(rows, **{"hparam/lr": [1.0, 2.0, 3.0, 4.0]})
    shared = trials(rows, **{"hparam/lr": [1.0, 2.0, 1.0, 2.0]})
    pooled, apart = hit_probability(own), hit_probability(shared)
    assert list(pooled["probability"]) == pytest.approx([1 / 4, 1 / 2, 3 / 4, 1])
    assert list(apart["probability"]) == pytest.approx([1 / 4, 1 / 2]), (
        "one study hits for certain, one never"
    )
    assert at(pooled, 1)["points"] == 4 and at(apart, 1)["points"] == 2
    assert at(apart, 1)["high"] > at(pooled, 1)["high"], "two points are less sure than four"


def test_the_defaults_are_no_trial() -> None:
    cells = trials([("w", "a", 0, 0, 5), ("w", "a", 0, 1, MISS), ("w", "b", 0, 0, 5), ("w", "b", 1, 0, 6)])
    frame = hit_probability(cells)
    assert list(frame["label"]) == ["a", "b"] and frame["probability"].iloc[0] == 0
    assert "trial 0" in frame["reason"].iloc[1] and math.isnan(frame["probability"].iloc[1])
    assert "trial 0" in tuning_cost(cells)["reason"].iloc[1]


def test_marks_are_the_budget_and_medians() -> None:
    cells = trials([("w", "a", 0, 1, 8), ("w", "b", 0, 1, 6), ("v", "a", 0, 1, MISS), ("v", "b", 0, 1, 3)])
    assert marks(cells) == {
        "v": {"budget": math.inf, "median of b": 3.0, "2 × median of b": 6.0},
        "w": {"budget": math.inf, "median of b": 6.0, "2 × median of b": 12.0},
    }
    assert marks(cells, "a")["v"] == {"budget": math.inf}
    with pytest.raises(UserError, match="no algorithm here is called c"):
        marks(cells, "c")


def test_the_cost_of_the_first_hit_is_the_mean_over_every_order() -> None:
    times = [5, 9, MISS, MISS, MISS]
    costs, positions = [], []
    for order in itertools.permutations(times):
        first = next(i for i, time in enumerate(order) if time < MISS)
        positions.append(first + 1)
        costs.append(100 * first + order[first])
    row = tuning_cost(one_study(times)).iloc[0]
    assert row["expected_trials"] == pytest.approx(statistics.fmean(positions))
    assert row["expected_cost"] == pytest.approx(statistics.fmean(costs))
    assert (row["trials"], row["hits"], row["chance"]) == (5, 2, 0.4)


def test_costs_that_cannot_be_told_say_why() -> None:
    assert tuning_cost(one_study([MISS, MISS]))["reason"].iloc[0] == "no trial hit"
    cells = one_study([5, MISS]).drop(columns="samples")
    assert "spent" in tuning_cost(cells)["reason"].iloc[0]


# -- the best metric ---------------------------------------------------------------------------------


def full_runs(values: list[float], minimize: bool = False, **columns: object) -> pd.DataFrame:
    cells = one_study([MISS] * len(values), best_metric=values, minimize=minimize, metric="m")
    return cells.assign(**columns)


def test_expected_best_with_and_without_replacement() -> None:
    cells = full_runs([0.9, 0.7, 0.8])
    assert at(expected_best(cells), 2)["expected"] == pytest.approx(0.866667, abs=5e-7)
    assert at(expected_best(cells, replacement=True), 2)["expected"] == pytest.approx(0.844444, abs=5e-7)


@pytest.mark.parametrize("minimize", [False, True])
def test_expected_best_is_the_mean_over_every_subset(minimize: bool) -> None:
    values, best = [0.3, 0.9, 0.5, 0.55, 0.2], min if minimize else max
    frame = expected_best(full_runs(values, minimize))
    for k in range(1, 6):
        bests = [best(subset) for subset in itertools.combinations(values, k)]
        assert at(frame, k)["expected"] == pytest.approx(statistics.fmean(bests))
        assert at(frame, k)["sd"] == pytest.approx(statistics.pstdev(bests), abs=1e-9)
    assert at(frame, 5)["sd"] == pytest.approx(0, abs=1e-9)


def test_a_run_that_stopped_at_the_target_is_refused() -> None:
    cells = full_runs([0.3, 0.9, 0.5])
    cut = cells.assign(hit=[False, True, False], ended=["budget", "target", "budget"])
    row = expected_best(cut).iloc[0]
    assert (
        "1 of 3 runs stopped at the target" in row["reason"]
        and pd.isna(row["k"])
        and math.isnan(row["expected"])
    )
    to_the_end = cut.assign(ended="budget")
    assert expected_best(to_the_end)["reason"].iloc[0] == "" and len(expected_best(to_the_end)) == 3
    assert "not recorded" in expected_best(cut.drop(columns="ended"))["reason"].iloc[0]


def test_a_diverged_run_counts_as_the_worst_of_the_workload() -> None:
    cells = full_runs([0.3, 0.9, 0.5], status=["done", "diverged", "done"])
    other = trials([("w", "b", 0, 1, MISS)], best_metric=0.1, minimize=False, metric="m")
    frame = expected_best(pd.concat([cells, other]))
    a = frame.loc[frame["label"] == "a"]
    assert at(a, 3)["expected"] == 0.5 and at(a, 1)["expected"] == pytest.approx((0.3 + 0.1 + 0.5) / 3)


def test_the_interval_of_the_median_is_of_order_statistics() -> None:
    values = [float(v) for v in range(1, 11)]
    row = at(expected_best(full_runs(values)), 1)
    # Ten values: the 2nd and the 9th, at 97.9 %.
    assert (row["median"], row["low"], row["high"]) == (5.0, 2.0, 9.0)
    assert at(expected_best(full_runs(values)), 10)["high"] == math.inf, "ten values say nothing of beyond"
    mirrored = at(expected_best(full_runs(values, minimize=True)), 1)
    assert (mirrored["low"], mirrored["high"]) == (2.0, 9.0)


def test_a_large_mean_does_not_swallow_a_small_spread() -> None:
    frame = expected_best(full_runs([1e9 + d for d in (0.0, 1.0, 2.0, 3.0)]))
    assert at(frame, 1)["sd"] == pytest.approx(math.sqrt(1.25))


# -- simulations of known truth ----------------------------------------------------------------------


def test_the_chance_is_unbiased_and_its_band_covers() -> None:
    """400 searches of 25 independent trials, each of which hits with a chance of 0.15."""
    rng = np.random.default_rng(0)
    times = np.where(rng.random((400, 25)) < 0.15, 10.0, MISS)
    frame = hit_probability(draws(times, {"lr": rng.random(times.shape)}, studies=5), trials=[1, 3, 5, 10])
    for k, own in frame.groupby("k"):
        truth = 1 - 0.85**k
        assert own["probability"].mean() == pytest.approx(truth, abs=0.03)
        assert within(own["low"], truth, own["high"]) >= 0.95


def test_points_that_studies_share_do_not_make_a_band_too_sure() -> None:
    """300 searches of 5 points in 5 studies; whether one hits is the point's, and hardly luck."""
    rng = np.random.default_rng(1)
    lr = rng.random((300, 5))
    hit = (lr < 0.4)[:, None, :] ^ (rng.random((300, 5, 5)) < 0.05)
    truth = 0.4 * 0.95 + 0.6 * 0.05
    times, points = np.where(hit, 10.0, MISS).reshape(300, 25), np.tile(lr, (1, 5))
    shared = hit_probability(draws(times, {"lr": points}, studies=5), trials=[1])
    assert (shared["points"] == 5).all()
    assert within(shared["low"], truth, shared["high"]) >= 0.95
    naive = hit_probability(
        draws(times, {"lr": points + rng.random(points.shape) * 1e-9}, studies=5), trials=[1]
    )
    assert within(naive["low"], truth, naive["high"]) < 0.8, "25 trials of 5 points are no 25 points"


def test_the_interval_of_the_median_covers() -> None:
    rng = np.random.default_rng(2)
    values = rng.lognormal(size=(400, 25))
    cells = draws(np.full(values.shape, MISS), {"lr": rng.random(values.shape)})
    cells = cells.assign(best_metric=values.ravel(), minimize=False, metric="m")
    frame = expected_best(cells, trials=[1, 3])
    for k, own in frame.groupby("k"):
        quantile = statistics.NormalDist().inv_cdf(0.5 ** (1 / k))
        assert within(own["low"], math.exp(quantile), own["high"]) >= 0.925, "0.95, less 2.3 standard errors"


# -- degenerate tables -------------------------------------------------------------------------------


def test_empty_tables_have_their_columns() -> None:
    cells = one_study([5.0]).iloc[:0].assign(best_metric=0.0, minimize=False)
    for frame in (hit_probability(cells), hit_curves(cells), tuning_cost(cells), expected_best(cells)):
        assert not len(frame) and {"workload", "label", "reason"} <= set(frame.columns)


def test_hostile_names_and_one_cell() -> None:
    name = '"<script>\n' + "x" * 300
    cells = trials([(name, name, 0, 1, 5)], best_metric=1.0, minimize=True)
    assert hit_probability(cells)["label"].tolist() == [name]
    assert tuning_cost(cells)["expected_cost"].tolist() == [5]


@pytest.mark.parametrize(("k", "level"), [([0], 0.95), ([1], 1.0)])
def test_bad_arguments(k: list[int], level: float) -> None:
    with pytest.raises(UserError):
        hit_probability(one_study([5.0]), trials=k, level=level)


def test_a_table_without_trials_says_so() -> None:
    with pytest.raises(UserError, match="no column trial"):
        hit_probability(one_study([5.0]).drop(columns="trial"))


def test_subset_cdf_of_large_pools() -> None:
    below = np.array([0, 500, 999, 1000])
    got = subset_cdf(below, 1000, [1, 10])
    assert got[1, 1] == pytest.approx(math.comb(500, 10) / math.comb(1000, 10))
    assert got.shape == (2, 4) and got[1, 0] == 0 and got[1, 3] == 1

"""Comparisons: by hand, against brute force, and against a known truth."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from runner.base.errors import UserError
from runner.stats import signed_rank
from runner.stats.pairs import compare, log_ratios, more_studies, neighbours, p_of, shares_points
from scripts.sim_statistics import Truth, board_covered, covered, separated

MISS = math.inf
NOTHING = np.array([math.nan, 0.0, math.nan])


def cells(times: dict[tuple[str, str], list[float]], trial: int = 0, **columns: object) -> pd.DataFrame:
    """From (workload, label) -> the time of each study; NaN is an unfinished cell."""
    rows = [(w, label, s, t) for (w, label), own in times.items() for s, t in enumerate(own)]
    table = pd.DataFrame(rows, columns=["workload", "label", "study", "samples_to_target"])
    finished = table["samples_to_target"].notna()
    return table.assign(trial=trial, status=finished.map({True: "done", False: "running"}), **columns)


def row(comparison: object, workload: str) -> pd.Series:
    return comparison.workloads.set_index("workload").loc[workload]  # type: ignore[attr-defined]


# -- the test ----------------------------------------------------------------------------------------


def test_ranks_are_doubled_signed_and_tied_with_misses_on_top() -> None:
    logs = np.array([0, math.nan, 1, -1, 2, MISS, -MISS, 3.0])
    assert list(signed_rank.signed_ranks(logs) / 2) == [0, 0, 1.5, -1.5, 3, 5.5, -5.5, 4]
    assert list(signed_rank.signed_ranks(NOTHING)) == [0, 0, 0]


@pytest.mark.parametrize("seed", range(8))
def test_p_is_what_flipping_every_sign_gives(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logs = rng.integers(-3, 5, 9) / 2.0
    logs[rng.random(9) < 0.2] = MISS
    logs[rng.random(9) < 0.1] = -MISS
    own = signed_rank.informative(logs)
    ranks = stats.rankdata(np.abs(own))
    seen = abs((np.sign(own) * ranks).sum())
    flips = [
        abs(np.dot(signs, ranks)) >= seen - 1e-9 for signs in itertools.product([-1, 1], repeat=len(own))
    ]
    assert signed_rank.p_value(signed_rank.signed_ranks(logs)) == pytest.approx(np.mean(flips))


def test_p_is_that_of_scipy_without_ties_and_normal_where_pairs_are_many() -> None:
    few, many = (np.random.default_rng(n).normal(0.1, 1, n) for n in (25, 400))
    for logs, method, rel in ((few, "exact", 1e-9), (many, "asymptotic", 1e-2)):
        expected = stats.wilcoxon(logs, method=method, correction=True).pvalue
        assert signed_rank.p_value(signed_rank.signed_ranks(logs)) == pytest.approx(expected, rel=rel)


def test_studies_are_t_tested_on_their_sums_of_scores() -> None:
    logs, study = np.array([3.0, 1, -2, 4, 5, 6]), np.array([0, 1, 2, 0, 1, 2])
    score = stats.norm.ppf(0.5 + np.arange(7) / 14)  # of rank 1 to 6: the quantile at ½ + rank / 2 (6 + 1)
    expected = stats.ttest_1samp([score[3] + score[4], score[1] + score[5], -score[2] + score[6]], 0).pvalue
    assert signed_rank.p_by_study(signed_rank.signed_ranks(logs), study) == pytest.approx(expected)
    assert signed_rank.p_by_study(signed_rank.signed_ranks(logs), np.zeros(6)) == 1  # one study
    assert p_of(logs, study) == max(2 * 3 / 2**6, expected)  # rank sums of 0, 1 and 2 are as far out as 2


@pytest.mark.parametrize("size", [2, 3, 6, 8, 11])
def test_an_interval_is_every_shift_that_the_test_lets_stand(size: int) -> None:
    logs = np.random.default_rng(size).normal(size=size)
    low, high, level = signed_rank.interval(np.append(logs, [MISS, math.nan]), 0.95)
    assert level == pytest.approx(min(0.95, 1 - 2.0 ** (1 - size)))
    for shift in np.linspace(-4, 4, 801):
        p = signed_rank.p_value(signed_rank.signed_ranks(logs - shift))
        assert (p > 1 - level + 1e-9) == (low < shift < high)
    assert size > 6 or (low, high) == (logs.min(), logs.max())


def test_an_interval_over_studies_holds_the_other_one() -> None:
    logs, study = np.random.default_rng(0).normal(size=20), np.arange(20) % 5
    alone, shared = (signed_rank.interval(logs, 0.95, own) for own in (None, study))
    assert shared[0] <= alone[0] < alone[1] <= shared[1]
    assert math.isinf(signed_rank.interval(logs, 0.95, np.zeros(20))[1])  # one study bounds nothing


def test_a_level_needs_pairs() -> None:
    assert [signed_rank.needed(level) for level in (0.5, 0.9, 0.9375, 0.95, 0.99)] == [2, 5, 5, 6, 8]
    assert signed_rank.attainable(5, 0.95) == 0.9375
    assert signed_rank.attainable(3, 0.95) == 0.75


# -- a comparison ------------------------------------------------------------------------------------

TIMES = {
    ("v", "a"): [2, 2, 2, 2, 2, 2],
    ("v", "b"): [4, 4, 4, 8, 4, 4],
    ("w", "a"): [3, 6, MISS, MISS, 7],
    ("w", "b"): [3, 3, 9, MISS, math.nan],
}


def test_by_hand() -> None:
    found = compare(cells(TIMES), "a", "b")
    v, w = row(found, "v"), row(found, "w")
    assert v["ratio"] == pytest.approx(2 ** (-7 / 6))
    assert [v["low"], v["high"], v["interval_level"]] == pytest.approx([0.25, 0.5, 0.95])
    assert (v["p"], v["separable"], v["faster"], v["more_studies"]) == (2 / 64, True, "a", 0)
    counts = ["pairs", "both_hit", "only_a", "only_b", "neither", "ties"]
    assert list(w[counts]) == [4, 2, 0, 1, 1, 1]
    assert (w["ratio"], w["hit_rate_a"], w["hit_rate_b"]) == (pytest.approx(2**0.5), 0.6, 0.75)
    assert (w["p"], w["separable"], w["faster"]) == (0.5, False, "b")
    assert w["reason"] == "with 2 pairs no difference can be separated at 95 %: 6 are needed"
    one = found.overall
    assert one.ratio == pytest.approx(math.exp(math.log(2) * (-7 + 1) / 8))
    # Ranks 3.5 (six sizes of log 2, one of them for b), 7 (log 4), 8 (the miss); for b: 3.5 + 8 of 36.
    assert (one.pairs, one.both_hit, one.only_b, one.ties, one.faster) == (10, 8, 1, 1, "a")
    expected = np.mean(
        [
            abs(np.dot(signs, [3.5] * 6 + [7, 8])) >= 36 - 2 * 11.5 - 1e-9
            for signs in itertools.product([-1, 1], repeat=8)
        ]
    )
    assert one.p == pytest.approx(expected)
    assert (one.hit_rate_a, one.hit_rate_b) == (9 / 11, 9 / 10)


def test_the_other_way_round_is_the_inverse() -> None:
    one, other = compare(cells(TIMES), "a", "b").overall, compare(cells(TIMES), "b", "a").overall
    assert other.ratio == pytest.approx(1 / one.ratio)
    assert (other.low, other.high) == (pytest.approx(1 / one.high), pytest.approx(1 / one.low))
    assert (other.p, other.separable, other.faster) == (pytest.approx(one.p), one.separable, one.faster)


def test_order_of_rows_and_unit_of_time_play_no_part() -> None:
    table = cells(TIMES)
    table["seconds_to_target"] = 60 * table["samples_to_target"]
    expected, mixed = compare(table, "a", "b"), table.sample(frac=1, random_state=0)
    for found in (compare(mixed, "a", "b"), compare(table, "a", "b", by="seconds")):
        assert found.overall.ratio == pytest.approx(expected.overall.ratio)
        pd.testing.assert_frame_equal(found.workloads, expected.workloads)


def test_one_hits_and_the_other_misses_is_beyond_every_ratio() -> None:
    found = compare(cells({("w", "a"): [MISS] * 6, ("w", "b"): [5] * 6}), "a", "b").overall
    assert (found.separable, found.faster, found.only_b) == (True, "b", 6)
    assert math.isnan(found.ratio) and math.isnan(found.low) and found.interval_level == 0


def test_trial_points_that_workloads_share_count_once_a_study() -> None:
    luck = [
        [2, 2.1, 2.2, 2.3],
        [2.4, 2.5, 2.6, 2.7],
        [0.9, 0.8, 0.9, 0.7],
    ]  # a ÷ b: a lucky in one study of 3
    times = {("a", w): [luck[s][w] for s in range(3)] for w in range(4)}
    wide = {
        (f"w{w}", label): own if label == "a" else [1.0] * 3
        for (_, w), own in times.items()
        for label in "ab"
    }
    alone = compare(cells(wide), "a", "b")
    shared = compare(cells(wide, trial=1), "a", "b")
    assert (alone.shared_points, shared.shared_points) == (False, True)
    assert alone.overall.p < 0.05 < shared.overall.p
    assert shared.overall.high > alone.overall.high
    pd.testing.assert_frame_equal(alone.workloads, shared.workloads)  # a workload alone shares with nobody
    assert not shares_points(cells(wide, trial=1, ruleset="self_tuning"))
    assert shares_points(cells(wide, trial=1, ruleset="external_tuning"))
    assert shares_points(cells(wide).drop(columns="trial"))


def test_one_workload_shares_with_nobody() -> None:
    table = cells({("w", "a"): list(range(1, 11)), ("w", "b"): [2 + s % 3 for s in range(10)]}, trial=1)
    found = compare(table, "a", "b")
    assert not found.shared_points
    assert row(found, "w")["p"] == found.overall.p == neighbours(table, ["a", "b"])["p"][0]


def test_one_study_of_shared_points_separates_nothing() -> None:
    wide = {(f"w{w}", label): [time] for w in range(8) for label, time in (("a", 1.0), ("b", 2.0 + w))}
    found = compare(cells(wide, trial=1), "a", "b").overall
    assert not found.separable and found.reason.startswith("one study")
    assert math.isnan(found.more_studies)
    assert compare(cells(wide, trial=0), "a", "b").overall.separable


# -- how many more -----------------------------------------------------------------------------------


def test_more_studies_by_noether() -> None:
    logs, study = -np.arange(1.0, 6.0), np.arange(5)
    # Every couple agrees: (1.960 + 0.842)² / (3 · 0.5²) = 10.5 pairs.
    assert more_studies(logs, study, 0.95) == 6
    # Half of the pairs say nothing, so twice as many studies are needed.
    assert more_studies(np.append(logs, [0.0] * 5), np.arange(10), 0.95) == 12
    assert math.isinf(more_studies(np.array([1.0, -1.0]), np.arange(2), 0.95))
    assert math.isnan(more_studies(np.array([1.0, 0.0]), np.arange(2), 0.95))
    assert math.isnan(more_studies(NOTHING, np.arange(3), 0.95))
    assert math.isnan(more_studies(np.array([]), np.array([]), 0.95))


def test_studies_needed_have_the_power_that_was_asked_for() -> None:
    study = np.arange(3)
    needed = signed_rank.studies_needed(np.array([2.0, 4.0, 6.0]), study, 0.95, 0.8)  # of ranks 1, 2, 3
    mean, spread = (f(stats.norm.ppf([5 / 8, 6 / 8, 7 / 8])) for f in (np.mean, lambda s: np.std(s, ddof=1)))
    rng = np.random.default_rng(0)
    power = [
        (stats.ttest_1samp(rng.normal(mean, spread, (4000, size)), 0, axis=1).pvalue <= 0.05).mean()
        for size in (int(needed) - 1, int(needed))
    ]
    assert power[0] < 0.8 <= power[1] + 0.02
    assert signed_rank.studies_needed(np.array([3.0, 3.0]), np.arange(2), 0.95, 0.8) == 2
    assert math.isinf(signed_rank.studies_needed(np.array([3.0, -3.0]), np.arange(2), 0.95, 0.8))


# -- a board -----------------------------------------------------------------------------------------


def random_cells(labels: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    times = {
        (f"w{w}", f"a{i}"): list(np.where(rng.random(5) < 0.1, MISS, 2**i * rng.lognormal(0, 0.3, 5)))
        for w in range(4)
        for i in range(labels)
    }
    return cells(times, trial=1)


def test_neighbours_are_what_comparing_them_one_by_one_gives() -> None:
    table = random_cells(6)
    table.loc[(table["label"] == "a2") & (table["workload"] == "w1"), "samples_to_target"] = math.nan
    order = ["a0", "a1", "a2", "a3", "a5", "a4"]
    found = neighbours(table, order)
    assert list(found["label"]) == order[:-1] and list(found["below"]) == order[1:]
    for _, each in found.iterrows():
        one = compare(table, each["label"], each["below"]).overall
        assert (each["pairs"], each["separable"]) == (one.pairs, one.separable)
        assert each["p"] == pytest.approx(one.p)
    assert 0 < found["separable"].sum() < 5


def test_neighbours_of_nobody() -> None:
    table = random_cells(2)
    for order in ([], ["a0"]):
        assert list(neighbours(table, order).columns) == ["label", "below", "pairs", "p", "separable"]
    found = neighbours(table, ["a0", "not there", "a1"])
    assert list(found["pairs"]) == [0, 0] and not found["separable"].any()


# -- bad input and bare tables -----------------------------------------------------------------------


def test_tables_that_say_nothing_have_a_reason() -> None:
    nothing = compare(cells({("w", "a"): [MISS] * 5, ("w", "b"): [MISS] * 5}), "a", "b")
    assert nothing.overall.reason == "every pair is a tie or was missed by both"
    assert (nothing.overall.p, nothing.overall.faster, nothing.overall.neither) == (1, "", 5)
    apart = compare(cells({("v", "a"): [1, 2], ("w", "b"): [1, 2]}), "a", "b")
    assert apart.overall.reason.startswith("no pairs: ") and math.isnan(apart.overall.more_studies)
    assert list(apart.workloads["workload"]) == ["v", "w"]
    assert math.isnan(row(apart, "v")["hit_rate_b"])
    unfinished = compare(cells({("v", "a"): [math.nan], ("v", "b"): [math.nan]}), "a", "b")
    assert unfinished.overall.pairs == 0


def test_a_target_that_the_initial_weights_reach() -> None:
    found = compare(cells({("w", "a"): [0, 0, 1], ("w", "b"): [0, 2, 2]}), "a", "b").overall
    assert (found.ties, found.both_hit, found.ratio, found.faster) == (1, 3, pytest.approx(0.5**0.5), "a")
    assert list(log_ratios(np.array([0.0, 0, 1]), np.array([0.0, 1, 0]))) == [0, -MISS, MISS]


@pytest.mark.parametrize("name", ["<script>", 'a"b', "a\nb", "a" * 300])
def test_names_of_any_kind(name: str) -> None:
    table = cells({("w", name): [1, 2], ("w", "b"): [2, 4]})
    assert compare(table, name, "b").overall.ratio == pytest.approx(0.5)


def test_errors_are_one_line() -> None:
    table = random_cells(3)
    for args, level, words in (
        (("a0", "a9"), 0.95, "a9"), (("a0", "a0"), 0.95, "itself"), (("a0", "a1"), 1.0, "level"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=words):
            compare(table, *args, level=level)
    with pytest.raises(UserError, match="no column seconds_to_target"):
        compare(table, "a0", "a1", by="seconds")


# -- simulations with a known truth ------------------------------------------------------------------


@pytest.mark.parametrize(
    "truth",
    [
        Truth(3, 4), Truth(5, 8, miss=0.3), Truth(5, 4, miss=0.6), Truth(5, 4, miss=0.2, points=8),
        Truth(6, 1), Truth(5, 4, heavy=True), Truth(5, 8, uneven=0.3),
    ],
    ids=str,
)  # fmt: skip
def test_without_a_difference_few_verdicts_see_one(truth: Truth) -> None:
    assert separated(truth, False, 400, 1) <= 0.083  # 5 % and three standard errors
    assert separated(truth, True, 400, 1) <= 0.083


def test_shared_luck_fools_the_pairs_and_not_the_studies() -> None:
    truth = Truth(5, 8, shared=0.6)
    assert separated(truth, False, 400, 1) > 0.2
    assert separated(truth, True, 400, 1) <= 0.083


def test_a_difference_is_seen() -> None:
    assert separated(Truth(5, 8, ratio=0.67, miss=0.2), True, 100, 1) > 0.9
    assert separated(Truth(5, 1, ratio=0.01), False, 100, 1) == 0  # five pairs cannot


@pytest.mark.parametrize(
    ("truth", "tuned", "level"),
    [
        (Truth(3, 1, 0.8), False, 0.75), (Truth(5, 1, 0.8), False, 0.9375), (Truth(5, 4, 0.8), False, 0.95),
        (Truth(5, 4, 0.8, miss=0.3), True, 0.95), (Truth(5, 4, 0.8, shared=0.6), True, 0.95),
    ],
)  # fmt: skip
def test_intervals_hold_the_true_ratio(truth: Truth, tuned: bool, level: float) -> None:
    share, mean_level, _ = covered(truth, tuned, 200, 1)
    assert mean_level == pytest.approx(level)
    assert share >= level - 3 * math.sqrt(level * (1 - level) / 200)


def test_the_boards_intervals_are_too_narrow_with_few_studies() -> None:
    assert board_covered(2, 0.0, 30, 1)[0] < 0.88 < board_covered(10, 0.0, 30, 1)[0]

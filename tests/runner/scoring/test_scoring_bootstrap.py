"""The bootstrap against loops and against every resample there is."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from scoring_tables import MISS, one_trial

from runner.base.errors import UserError
from runner.stats import bootstrap, medians, scores, speedup, study_times
from runner.stats.resampling import resampled
from runner.stats.stability import ranks
from runner.stats.times import studies

STUDIES = {
    ("v", "a"): [10, 11, 14, 12, MISS],
    ("w", "a"): [5, 9, MISS, MISS],
    ("v", "b"): [13, 12, 15, 11, 12],
    ("w", "b"): [6, 7, 6.5],
    ("v", "c"): [MISS, MISS, MISS],
    ("w", "c"): [7],
}


def table(own: dict = STUDIES) -> pd.DataFrame:
    return study_times(one_trial(own))


@pytest.mark.parametrize("integral", ["exact", "trapezoid"])
@pytest.mark.parametrize("variants", [{}, {"w": "v"}])
def test_it_is_what_scoring_each_resample_in_a_loop_gives(integral: str, variants: dict) -> None:
    found = bootstrap(table(), 200, seed=3, integral=integral, variants=variants, baseline="b", level=0.8)
    whole = np.concatenate(list(resampled(studies(table()), 200, 3)))
    point = scores(medians(table()), integral=integral, variants=variants)
    itself = speedup(medians(table())[["v"] if variants else ["v", "w"]], "b")["speedup"]
    kept, drawn, speeds = Counter(), {name: [] for name in "abc"}, {name: [] for name in "abc"}
    for times in whole:
        board = pd.DataFrame(times, index=list("abc"), columns=["v", "w"])
        own = scores(board, integral=integral, variants=variants)
        speed = speedup(board[["v"] if variants else ["v", "w"]], "b")["speedup"]
        for name in "abc":
            drawn[name].append(own[name])
            speeds[name] += [] if math.isnan(speed[name]) else [speed[name]]
            place = [sum(other > one[name] + 1e-9 for other in one) for one in (own, point)]
            kept[name] += place[0] == place[1]
    for name, row in found.iterrows():
        assert [row["low"], row["high"]] == pytest.approx(list(np.quantile(drawn[name], [0.1, 0.9])))
        assert row["rank_stability"] == kept[name] / 200
        none = math.isnan(itself[name])
        expected = [math.nan] * 2 if none else np.exp(np.quantile(np.log(speeds[name]), [0.1, 0.9]))
        assert [row["speedup_low"], row["speedup_high"]] == pytest.approx(list(expected), nan_ok=True)
    assert found["rank_stability"].between(0.01, 0.99).any()  # else the loop above compares little


@pytest.mark.parametrize("own", [[4, 1, 2], [1, 2, 4, MISS], [1, 2, 4, 8, MISS], [3, MISS]])
def test_medians_are_drawn_as_often_as_there_are_ways_to_draw_them(own: list[float]) -> None:
    number = 20_000
    drawn = np.concatenate(list(resampled(studies(table({("w", "a"): own})), number, 0))).ravel()
    ways = Counter(statistics.median(one) for one in itertools.product(own, repeat=len(own)))
    assert set(drawn) == set(ways)
    for value, count in ways.items():
        share = count / len(own) ** len(own)
        assert np.mean(drawn == value) == pytest.approx(share, abs=5 * math.sqrt(share / number))


def test_pairs_are_drawn_independently() -> None:
    own = {(workload, label): [1, 2, 3, 4, 5] for workload in "vw" for label in "ab"}
    whole = np.concatenate(list(resampled(studies(table(own)), 4000, 0))).reshape(4000, 4)
    correlation = np.corrcoef(whole.T) - np.eye(4)
    assert np.abs(correlation).max() < 5 / math.sqrt(4000)


def test_same_seed_same_result_whatever_the_order_and_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    first = bootstrap(table(), 100, seed=1)
    pd.testing.assert_frame_equal(bootstrap(table().sample(frac=1, random_state=0), 100, seed=1), first)
    assert not bootstrap(table(), 100, seed=2).equals(first)
    monkeypatch.setattr("runner.stats.resampling.CHUNK", 42)
    pd.testing.assert_frame_equal(bootstrap(table(), 100, seed=1), first)


def test_what_is_drawn_is_fixed_for_good() -> None:
    """Published boards are scored again by later versions, which must draw the same."""
    own = table({("w", "a"): [1, 2, 3, 4, 5]})
    assert next(resampled(studies(own), 12, 0)).ravel().tolist() == [
        4.0,
        4.0,
        4.0,
        2.0,
        2.0,
        3.0,
        3.0,
        4.0,
        3.0,
        4.0,
        2.0,
        4.0,
    ]


def test_another_algorithm_does_not_change_what_is_drawn_for_the_others() -> None:
    fewer = {key: own for key, own in STUDIES.items() if key[1] != "b"}
    whole, part = (next(resampled(studies(table(own)), 50, 0)) for own in (STUDIES, fewer))
    assert np.array_equal(whole[:, [0, 2]], part)


def test_fewer_than_five_studies_anywhere_are_too_few() -> None:
    own = {("v", "a"): range(1, 6), ("w", "a"): range(1, 6), ("v", "b"): range(1, 6), ("w", "b"): range(1, 5)}
    found = bootstrap(table(own | {("v", "c"): range(1, 6)}), 10)
    assert found["studies"].to_dict() == {"a": 5, "b": 4, "c": 0}
    assert found["too_few"].to_dict() == {"a": False, "b": True, "c": True}
    assert not bootstrap(table(own), 10, variants={"w": "v"})["too_few"].any()


def test_without_spread_an_interval_is_the_score() -> None:
    found = bootstrap(table({("w", "a"): [2] * 5, ("w", "b"): [4] * 5}), 20, baseline="a")
    assert found[["low", "high"]].to_numpy().tolist() == [[1, 1], pytest.approx([2 / 3] * 2)]
    assert found.loc["b", ["speedup_low", "speedup_high"]].tolist() == pytest.approx([0.5, 0.5])
    assert found["rank_stability"].tolist() == [1, 1]


def test_a_speed_up_has_an_interval_only_where_there_is_a_speed_up() -> None:
    """Of two studies one missed: no median, and half of the resamples have one all the same."""
    times = table({("w", "base"): [10, 12], ("w", "half"): [13, MISS], ("w", "both"): [5, 6]})
    found = bootstrap(times, 200, baseline="base")
    assert found.loc["half", ["speedup_low", "speedup_high"]].isna().all()
    assert found.loc["both", ["speedup_low", "speedup_high"]].notna().all()
    assert speedup(medians(times), "base")["speedup"].isna().tolist() == [False, False, True]


def test_labels_without_a_study_have_a_row() -> None:
    found = bootstrap(table(), 10, labels=["a", "b", "c", "new"], workloads=["v", "w", "never"])
    assert found.loc["new", ["low", "high", "studies"]].tolist() == [0, 0, 0]


def test_options_without_sense_are_refused() -> None:
    for options in ({"resamples": 0}, {"level": 1.0}, {"level": 0}, {"baseline": "z"}):
        with pytest.raises(UserError):
            bootstrap(table(), **options)


def test_equal_scores_share_the_better_rank_whatever_the_order_of_their_sum() -> None:
    assert ranks(np.array([0.2, 0.1 + 0.2, 0.3, 0.0])).tolist() == [3, 1, 1, 4]
    assert ranks(np.array([[1.0, 2.0], [2.0, 2.0]])).tolist() == [[2, 1], [1, 1]]

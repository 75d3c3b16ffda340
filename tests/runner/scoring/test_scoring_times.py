"""From cells to study times and medians, on tables worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scoring_tables import MISS, UNFINISHED, cells, one_trial, times

from runner.base.errors import UserError
from runner.stats import hit_rates, medians, speedup, spreads, study_times


def picked(*rows: tuple, pick: str = "time") -> dict[int, float]:
    """Study -> time, of one algorithm on one workload."""
    table = study_times(cells([("w", "a", *row) for row in rows]), pick=pick)
    return dict(zip(table["study"], table["time"], strict=True))


def median(*own: float) -> float:
    return medians(study_times(one_trial({("w", "a"): own}))).loc["a", "w"]


def test_a_study_takes_its_fastest_trial_that_hit() -> None:
    assert picked((0, 0, 30), (0, 1, 20), (0, 2, MISS), (1, 0, MISS), (1, 1, 50)) == {0: 20, 1: 50}


def test_a_study_without_a_hit_is_infinite_and_one_without_a_finished_trial_is_absent() -> None:
    assert picked((0, 0, MISS), (0, 1, MISS), (1, 0, UNFINISHED), (2, 0, UNFINISHED), (2, 1, 7)) == {
        0: MISS,
        2: 7,
    }


def test_by_eval_index_the_earliest_evaluation_wins_even_where_it_is_slower() -> None:
    rows = [(0, 0, 30, 2), (0, 1, 20, 3), (1, 0, 9, 4), (1, 1, 8, 4), (1, 2, 10, 4)]
    assert picked(*rows, pick="eval_index") == {0: 30, 1: 8}  # study 1: three at one index, smaller time
    assert picked(*rows) == {0: 20, 1: 8}


def test_by_eval_index_a_miss_never_counts_whatever_index_stands_there() -> None:
    rows = [(0, 0, MISS, -1), (0, 1, 40, 5), (0, 2, MISS, math.nan), (1, 0, MISS, -1)]
    assert picked(*rows, pick="eval_index") == {0: 40, 1: MISS}


def test_a_hit_without_an_eval_index_is_refused() -> None:
    with pytest.raises(UserError, match="missing for 1 cells that hit"):
        picked((0, 0, 3, math.nan), (0, 1, 4, 2), pick="eval_index")
    with pytest.raises(UserError, match="no column eval_index_to_target"):
        study_times(cells([("w", "a", 0, 0, 3)]).drop(columns="eval_index_to_target"), pick="eval_index")


def test_a_diverged_cell_is_a_miss_and_a_failed_one_is_absent() -> None:
    table = cells([("w", "a", 0, 0, MISS), ("w", "a", 1, 0, 5)])
    assert list(study_times(table.assign(status=["diverged", "failed"]))["time"]) == [MISS]


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ([3], 3),
        ([9, 1, 4], 4),
        ([8, 2], 5),  # the middle two averaged
        ([8, 1, 4, 2], 3),
        ([2, MISS], MISS),  # one of the middle two is infinite
        ([1, 2, MISS], 2),
        ([1, MISS, MISS], MISS),
        ([1, 2, MISS, MISS], MISS),
        ([1, 2, 4, MISS], 3),
        ([4, UNFINISHED, 2], 3),  # an absent study is absent, not infinite
        ([0.0, 0.0], 0),
    ],
)
def test_the_median_is_over_the_studies_present(own: list[float], expected: float) -> None:
    assert median(*own) == expected


def test_a_pair_with_nothing_at_all_is_infinite() -> None:
    found = study_times(
        one_trial({("v", "a"): [1], ("w", "a"): [2], ("v", "b"): [UNFINISHED], ("w", "b"): [3]})
    )
    table = medians(found)
    assert table.to_dict("index") == {"a": {"v": 1, "w": 2}, "b": {"v": MISS, "w": 3}}
    frozen = medians(found, labels=["a", "c"], workloads=["w", "u"])
    assert frozen.to_dict("index") == {"a": {"w": 2, "u": MISS}, "c": {"w": MISS, "u": MISS}}


def test_spreads_are_ranges_or_observed_quartiles() -> None:
    found = study_times(one_trial({("w", "a"): [5, 1, 2, 3, MISS], ("v", "a"): [4]}))
    rows = spreads(found).set_index("workload")
    assert rows.loc["w", ["median", "low", "high", "studies", "studies_hit"]].tolist() == [3, 1, MISS, 5, 4]
    assert rows.loc["v", ["median", "low", "high", "studies", "studies_hit"]].tolist() == [4, 4, 4, 1, 1]
    inner = spreads(found, "iqr").set_index("workload")
    assert inner.loc["w", ["low", "high"]].tolist() == [2, 5]


def test_hit_rates_are_of_finished_cells() -> None:
    table = hit_rates(one_trial({("w", "a"): [1, MISS, UNFINISHED], ("v", "a"): [MISS], ("w", "b"): [2]}))
    assert table.loc["a", ["all", "v", "w"]].tolist() == [pytest.approx(1 / 3), 0, 0.5]
    assert table.loc["b", "w"] == 1 and math.isnan(table.loc["b", "v"])


def test_speedup_is_the_geometric_mean_over_what_both_hit() -> None:
    table = times(
        "uvwx", base=[8, 6, MISS, 0], fast=[1, 3, 2, 1], none=[MISS, MISS, 5, 0], half=[16, MISS, MISS, 3]
    )
    found = speedup(table, "base")
    assert found["workloads"].to_dict() == {"base": 2, "fast": 2, "none": 0, "half": 1}
    assert found.loc["base", "speedup"] == 1 and found.loc["half", "speedup"] == pytest.approx(0.5)
    assert found.loc["fast", "speedup"] == pytest.approx(4)  # √(8 · 2)
    assert math.isnan(found.loc["none", "speedup"])
    with pytest.raises(UserError, match="no algorithm here is called bass"):
        speedup(table, "bass")


def test_bad_tables_are_one_clear_line() -> None:
    table = one_trial({("w", "a"): [1.0]})
    with pytest.raises(UserError, match="no column seconds_to_target"):
        study_times(table, "seconds")
    with pytest.raises(UserError, match="never negative"):
        study_times(table.assign(samples_to_target=-1.0))
    with pytest.raises(UserError, match="not a number"):
        study_times(table.assign(samples_to_target="soon"))
    with pytest.raises(UserError, match="called fastest"):
        study_times(table, pick="fastest")


def test_nullable_columns_are_read_like_plain_ones() -> None:
    table = cells([("w", "a", 0, 0, 3, 1), ("w", "a", 0, 1, MISS, np.nan)])
    table["eval_index_to_target"] = pd.array([1, None], dtype="Int64")
    assert list(study_times(table, pick="eval_index")["time"]) == [3]

"""What must hold for any table of cells, from cells to the board."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scoring_tables import MISS, UNFINISHED, cells

from runner.stats import board, by_workload

FEW = settings(deadline=None, max_examples=10)
TIME = st.one_of(st.integers(1, 40).map(float), st.just(MISS), st.just(UNFINISHED))
ROW = st.tuples(
    st.sampled_from("uv"),
    st.sampled_from("abc"),
    st.integers(0, 2),
    st.integers(0, 1),
    TIME,
    st.integers(0, 5),
)
TABLES = st.lists(ROW, min_size=2, max_size=24, unique_by=lambda row: row[:4]).map(cells)
FINISHED = TABLES.filter(lambda table: (table["status"] == "done").any())
PICKS = st.sampled_from(["time", "eval_index"])
POINTS = [
    "label",
    "rank",
    "score",
    "hit_rate",
    "workloads_hit",
    "speedup",
    "studies",
    "trials",
    "leave_one_out",
]


@FEW
@given(FINISHED, PICKS, st.randoms(use_true_random=False))
def test_the_order_of_cells_changes_nothing_not_even_the_resamples(table, pick, random) -> None:
    order = list(table.index)
    random.shuffle(order)
    shuffled = table.loc[order]
    base = table["label"].iloc[0]
    options = {"pick": pick, "resamples": 20, "baseline": base}
    pd.testing.assert_frame_equal(board(shuffled, **options), board(table, **options))
    pd.testing.assert_frame_equal(by_workload(shuffled, pick=pick), by_workload(table, pick=pick))


@FEW
@given(FINISHED, PICKS, st.integers(-20, 20))
def test_the_unit_of_time_changes_nothing(table, pick, power) -> None:
    """Powers of two, which change no digit: strictly four times as slow stays that."""
    other = table.assign(samples_to_target=table["samples_to_target"] * 2.0**power)
    options = {"pick": pick, "resamples": 20, "baseline": table["label"].iloc[0]}
    pd.testing.assert_frame_equal(board(other, **options), board(table, **options))


@FEW
@given(FINISHED, PICKS, st.data())
def test_a_duplicate_of_an_algorithm_leaves_the_others_as_they_are(table, pick, data) -> None:
    label = data.draw(st.sampled_from(sorted(set(table["label"]))))
    again = table.loc[table["label"] == label].assign(label="zz")
    options = {"pick": pick, "resamples": 0}
    before = board(table, **options).set_index("label")
    after = board(pd.concat([table, again], ignore_index=True), **options).set_index("label")
    assert after.drop(index="zz")["score"].to_dict() == before["score"].to_dict()
    order = [name for name in after.index if name != "zz"]
    assert order == list(before.index)
    assert after.loc["zz", "score"] == before.loc[label, "score"]
    assert after.loc["zz", "rank"] == after.loc[label, "rank"]


@FEW
@given(FINISHED, st.data())
def test_a_faster_hit_never_lowers_its_own_score(table, data) -> None:
    place = data.draw(st.sampled_from(list(table.index[table["status"] == "done"])))
    before = table.loc[place, "samples_to_target"]
    faster = table.copy()
    faster.loc[place, "samples_to_target"] = data.draw(st.floats(0.5, min(before, 40)))
    label = table.loc[place, "label"]
    old, new = (board(one, resamples=0).set_index("label")["score"][label] for one in (table, faster))
    assert new >= old - 1e-12


@FEW
@given(FINISHED)
def test_an_unfinished_cell_counts_in_no_score(table) -> None:
    done = table.loc[table["status"] == "done"]
    kept = table["label"].isin(set(done["label"]))
    whole = board(table.loc[kept], resamples=0)[POINTS]
    pd.testing.assert_frame_equal(whole, board(done, resamples=0)[POINTS])


@FEW
@given(FINISHED)
def test_scores_lie_between_zero_and_one_and_somebody_is_first(table) -> None:
    found = board(table, resamples=20)
    assert found["score"].between(0, 1 + 1e-12).all() and found["rank"].min() == 1
    assert (found["low"] <= found["high"]).all()
    assert found.sort_values("score", ascending=False)["rank"].is_monotonic_increasing


def test_by_eval_index_a_faster_hit_may_lower_its_own_score() -> None:
    """Why the documented rule is the default: the trial that is picked may be another one."""
    slow = cells([("w", "a", 0, 0, 10, 5), ("w", "a", 0, 1, 12, 9), ("w", "b", 0, 0, 5, 1)])
    earlier = slow.assign(eval_index_to_target=[5, 4, 1], samples_to_target=[10.0, 11.0, 5.0])
    scores = [
        board(t, pick="eval_index", resamples=0).set_index("label")["score"]["a"] for t in (slow, earlier)
    ]
    assert scores == pytest.approx([2 / 3, (4 - 11 / 5) / 3]) and scores[1] < scores[0]

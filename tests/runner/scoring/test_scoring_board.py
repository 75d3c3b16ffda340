"""The board as a whole."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from scoring_tables import MISS, UNFINISHED, cells, one_trial

from runner.base.errors import UserError
from runner.stats import board, by_workload

FRONT = "rank label score low high hit_rate workloads_hit speedup speedup_low speedup_high speedup_workloads"
FRONT += " rank_stability leave_one_out studies trials too_few"


def small() -> pd.DataFrame:
    """Two workloads; a: two trials in study 0 of v, an unfinished cell; b hits v alone; c has nothing."""
    return cells(
        [
            *(("v", "a", 0, 0, 10), ("v", "a", 0, 1, 8), ("v", "a", 1, 0, 12), ("w", "a", 0, 0, 5)),
            *(("v", "b", 0, 0, 20), ("v", "b", 1, 0, 20), ("w", "b", 0, 0, MISS), ("w", "b", 1, 0, MISS)),
            *(("v", "c", 0, 0, UNFINISHED), ("w", "a", 1, 0, UNFINISHED)),
        ]
    )


def test_a_board_by_hand() -> None:
    found = board(small(), baseline="b", resamples=50)
    assert list(found)[: len(FRONT.split())] == FRONT.split()
    assert list(found["label"]) == ["a", "b", "c"] and list(found["rank"]) == [1, 2, 3]
    a, b, c = (row for _, row in found.iterrows())
    assert (a["score"], b["score"], c["score"]) == (1, pytest.approx(1 / 3), 0)  # v: 10 and 20
    assert (a["hit_rate"], b["hit_rate"]) == (1, 0.5) and math.isnan(c["hit_rate"])
    assert (a["speedup"], a["speedup_workloads"]) == (pytest.approx(2), 1)
    # v of a is 8, 10 or 12 in a resample, b's is 20
    assert (a["speedup_low"], a["speedup_high"]) == (pytest.approx(20 / 12), pytest.approx(20 / 8))
    assert (b["low"], b["high"]) == pytest.approx(((4 - 20 / 8) / 6, (4 - 20 / 12) / 6))
    assert list(found["workloads_hit"]) == [2, 1, 0] and list(found["trials"]) == [2, 1, 0]
    assert list(found["studies"]) == [1, 2, 0] and found["too_few"].all()
    assert list(found["rank_stability"]) == [1, 1, 1] and list(found["leave_one_out"]) == [1, 1, 1]
    assert list(found["spent_samples"]) == [50, 40, 10]  # every cell of small() cost 10, finished or not
    assert list(found["spent_seconds"]) == [5, 4, 1]


def test_workloads_freeze_the_board() -> None:
    table = small()
    only = board(table, workloads=["v"], resamples=5)
    assert list(only["score"]) == [1, pytest.approx(2 / 3), 0] and list(only["spent_samples"]) == [30, 20, 10]
    more = board(table, workloads=["v", "w", "never"], resamples=5)
    assert list(more["score"]) == [pytest.approx(2 / 3), pytest.approx(2 / 9), 0]
    bigger = pd.concat([table, cells([("extra", "b", 0, 0, 1)])], ignore_index=True)
    pd.testing.assert_frame_equal(board(bigger, workloads=["v", "w"], resamples=5), board(table, resamples=5))


def test_a_workload_that_only_failed_or_has_no_target_is_not_on_the_board() -> None:
    table = pd.concat([small(), cells([("x", "a", 0, 0, UNFINISHED)]).assign(status="done")])
    assert board(table, resamples=5).loc[0, "score"] == 1


def test_no_resamples_leave_their_columns_empty() -> None:
    found = board(small(), baseline="b", resamples=0)
    assert found[["low", "high", "rank_stability", "speedup_low", "speedup_high"]].isna().all(axis=None)
    assert found["score"].notna().all() and list(found["too_few"]) == [True] * 3


def test_variants_are_on_no_average_but_decide() -> None:
    found = board(small(), variants={"w": "v"}, baseline="a", resamples=20).set_index("label")
    assert found["score"].to_dict() == {"a": 1, "b": 0, "c": 0}  # b misses w, and v with it
    assert found["workloads_hit"].to_dict() == {"a": 1, "b": 1, "c": 0}
    assert found.loc["a", "studies"] == 2
    both = one_trial({("v", "a"): [1], ("w", "a"): [1], ("v", "b"): [2], ("w", "b"): [3.5]})
    row = board(both, variants={"w": "v"}, baseline="a", resamples=5).set_index("label").loc["b"]
    speeds = row[["speedup", "speedup_low", "speedup_high", "speedup_workloads"]]
    assert speeds.tolist() == pytest.approx([0.5, 0.5, 0.5, 1])


def test_one_algorithm_all_missed_and_nothing_finished() -> None:
    alone = board(one_trial({("w", "a"): [MISS, MISS]}), baseline="a", resamples=5)
    assert alone.loc[0, ["rank", "score", "low", "high", "hit_rate"]].tolist() == [1, 0, 0, 0, 0]
    assert alone[["speedup", "leave_one_out"]].isna().all(axis=None)
    with pytest.raises(UserError, match="no finished cell to score"):
        board(one_trial({("w", "a"): [UNFINISHED]}))
    with pytest.raises(UserError, match="no column samples_to_target"):
        board(small().drop(columns="samples_to_target"))
    with pytest.raises(UserError, match="is called z"):
        board(small(), baseline="z")


def test_options_reach_the_score() -> None:
    table = cells(
        [("w", "a", 0, 0, 10, 1), ("w", "a", 0, 1, 6, 2), ("w", "b", 0, 0, 5, 3)],
    )
    score = {pick: board(table, pick=pick, resamples=5).set_index("label")["score"]["a"] for pick in PICKS}
    assert score == pytest.approx({"time": (4 - 6 / 5) / 3, "eval_index": 2 / 3})
    # ratio 2 is point 33 of 0…99: 66 whole steps, and half a one for starting there
    compat = board(table, pick="eval_index", integral="trapezoid", resamples=5).set_index("label")["score"]
    assert compat["a"] == pytest.approx(66.5 / 99)
    assert board(table, tau_max=2, pick="eval_index", resamples=5).set_index("label")["score"]["a"] == 0


PICKS = ("time", "eval_index")


def test_each_workload_by_hand() -> None:
    table = small().assign(best_metric=0.5)
    found = by_workload(table).set_index(["workload", "label"])
    assert list(found.index) == [("v", "a"), ("v", "b"), ("w", "a"), ("w", "b")]
    columns = ["median", "low", "high", "ratio", "studies", "studies_hit", "finished", "hits", "reached"]
    assert list(found) == columns
    assert found.loc[("v", "a")].tolist() == [10, 8, 12, 1, 2, 2, 3, 3, 0.5]
    assert found.loc[("v", "b")].tolist() == [20, 20, 20, 2, 2, 2, 2, 2, 0.5]
    assert found.loc[("w", "b")].tolist() == [MISS, MISS, MISS, MISS, 2, 0, 2, 0, 0.5]
    assert set(by_workload(small(), workloads=["w"])["workload"]) == {"w"}
    nobody = by_workload(one_trial({("w", "a"): [MISS]}))
    assert nobody.loc[0, "ratio"] == MISS

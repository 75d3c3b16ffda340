"""Profiles and scores on tables worked out by hand, and what must hold for any table."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scoring_tables import MISS, cells, times

from runner.base.errors import UserError
from runner.stats import leave_one_out, medians, profile, scores, study_times

V06 = Path(__file__).parent / "data" / "v06_trials.csv.gz"


def test_a_score_by_hand() -> None:
    # u: ratios 1, 2 -> 3/3, 2/3; v: 3, 1 -> 1/3, 1; w: b alone -> 0, 1
    table = times("uvw", a=[10, 6, MISS], b=[20, 2, 7])
    assert scores(table).to_dict() == pytest.approx({"a": 4 / 9, "b": 8 / 9})


def test_the_limit_is_strict_and_exactly_four_times_survives() -> None:
    table = times("w", a=[1.0], at=[4.0], beyond=[math.nextafter(4.0, 5)])
    assert scores(table).to_dict() == {"a": 1, "at": 0, "beyond": 0}  # exact: nothing is left of τ at 4
    assert profile(table, [1, 3.9, 4, 9]).to_dict("index") == {
        "a": {1: 1, 3.9: 1, 4: 1, 9: 1},
        "at": {1: 0, 3.9: 0, 4: 1, 9: 1},
        "beyond": {1: 0, 3.9: 0, 4: 0, 9: 0},
    }
    half_a_step = (3 / 99) / 2 / 3  # the trapezoid rule gives the last point half a step
    assert scores(table, integral="trapezoid").to_dict() == pytest.approx(
        {"a": 1, "at": half_a_step, "beyond": 0}, abs=1e-15
    )


def test_a_workload_hit_by_nobody_gives_no_credit_and_counts() -> None:
    table = times("vw", a=[1, MISS], b=[2.5, math.nan])
    assert scores(table).to_dict() == {"a": 0.5, "b": 0.25}
    assert scores(times("vw", a=[MISS, MISS], b=[MISS, MISS])).to_dict() == {"a": 0, "b": 0}


def test_not_a_number_is_a_miss() -> None:
    table = times("w", a=[2], b=[math.nan], c=[4])
    assert scores(table).to_dict() == pytest.approx({"a": 1, "b": 0, "c": 2 / 3})


def test_ties_share_the_full_credit_and_zero_is_a_time() -> None:
    assert scores(times("w", a=[3], b=[3])).to_dict() == {"a": 1, "b": 1}
    assert scores(times("w", a=[0], b=[0], c=[1])).to_dict() == {"a": 1, "b": 1, "c": 0}


def test_one_algorithm_scores_its_share_of_hits() -> None:
    assert scores(times("uvw", a=[5, 500, MISS])).to_dict() == pytest.approx({"a": 2 / 3})


def test_a_variant_is_missed_with_its_base_and_sets_no_lowest_time() -> None:
    # a misses the base, so its variant time of 1 is void: b's 8 is the variant's lowest, and b keeps its base
    table = times(["w", "x"], a=[MISS, 1], b=[3, 8])
    assert scores(table, variants={"x": "w"}).to_dict() == {"a": 0, "b": 1}


@pytest.mark.parametrize(("variant", "kept"), [(MISS, 0), (40, 1), (math.nextafter(40, 50), 0)])
def test_a_base_is_missed_with_its_variant_or_beyond_the_limit_there(variant: float, kept: int) -> None:
    table = times(["w", "x"], a=[2, 10], b=[2, variant])
    assert scores(table, variants={"x": "w"}).to_dict() == {"a": 1, "b": kept}


def test_the_lowest_time_is_taken_after_the_variants_cut() -> None:
    # b is fastest on w but misses x; a's ratio is then 1, not 2. c, beyond 4 × b, was cut before that.
    table = times(["w", "x", "z"], a=[2, 1, 5], b=[1, MISS, 5], c=[4.5, 1, 5])
    assert scores(table, variants={"x": "w"}).to_dict() == {"a": 1, "b": 0.5, "c": 0.5}


def test_without_variants_named_every_column_is_a_base() -> None:
    assert scores(times(["w", "x"], a=[2, MISS], b=[2, 1])).to_dict() == {"a": 0.5, "b": 1}


def test_options_without_sense_are_refused() -> None:
    table = times(["w", "x"], a=[1, 1])
    with pytest.raises(UserError, match="without its base workload v"):
        scores(table, variants={"x": "v"})
    with pytest.raises(UserError, match="itself a variant"):
        scores(table, variants={"x": "w", "w": "x"})
    with pytest.raises(UserError, match="over 1"):
        scores(table, tau_max=1)
    with pytest.raises(UserError, match="no workload"):
        scores(table[[]])
    with pytest.raises(UserError, match="called simpson"):
        scores(table, integral="simpson")


def test_another_limit_moves_the_cut_and_the_integral() -> None:
    assert scores(times("w", a=[1], b=[5]), tau_max=9).to_dict() == {"a": 1, "b": 0.5}
    assert scores(times("w", a=[1], b=[1.5], c=[2.1]), tau_max=2).to_dict() == {"a": 1, "b": 0.5, "c": 0}


def literal(table: pd.DataFrame) -> pd.Series:
    """AlgoPerf's integral, as it is written down: a curve on a grid, then the trapezoid rule."""
    taus = np.linspace(1, 4, 100)
    return pd.Series(np.trapezoid(profile(table, taus).to_numpy(), x=taus) / 3, index=table.index)


def test_v06_scores_come_out_as_published() -> None:
    raw = pd.read_csv(V06).query("ruleset == 'external_tuning'")
    status = np.where(raw["status"] == "no_eval_file", "failed", "done")
    table = raw.rename(columns={"submission": "label", "eval_index": "eval_index_to_target"})
    table = table.assign(status=status, seconds_to_target=raw["time_to_target"])
    found = medians(study_times(table, "seconds", "eval_index"))
    assert scores(found, integral="trapezoid").round(4).to_dict() == {"baseline": 0.4590, "shampoo": 0.6244}
    assert scores(found).to_dict() == pytest.approx({"baseline": 0.4590, "shampoo": 0.6244}, abs=0.0015)


def test_leaving_one_out_by_hand() -> None:
    table = times("uv", a=[1, 9], b=[2, 3], c=[MISS, 1])
    # all:       a (1 + 0)/2, b (2/3 + 1/3)/2, c (0 + 1)/2: three of 1/2, all first
    # without a: b (1 + 1/3)/2 = 2/3, c 1/2: c falls behind, b stays first
    # without b: a 1/2, c 1/2: both keep it
    # without c: a (1 + 1/3)/2 = 2/3, b (2/3 + 1)/2 = 5/6: a falls behind, b stays first
    assert scores(table).to_dict() == pytest.approx({"a": 0.5, "b": 0.5, "c": 0.5})
    assert leave_one_out(table).to_dict() == {"a": 0.5, "b": 1, "c": 0.5}
    assert math.isnan(leave_one_out(table.loc[["a"]])["a"])


# -- for any table -----------------------------------------------------------------------------------

WORKLOADS = ["u", "v", "w", "x"]
TIME = st.one_of(st.integers(1, 40).map(float), st.just(MISS))
TABLES = st.lists(st.lists(TIME, min_size=4, max_size=4), min_size=1, max_size=5).map(
    lambda rows: pd.DataFrame(rows, index=list("abcde")[: len(rows)], columns=WORKLOADS)
)
FEW = settings(deadline=None, max_examples=50)
INTEGRALS = st.sampled_from(["exact", "trapezoid"])
VARIANTS = st.sampled_from([{}, {"x": "w"}, {"x": "w", "v": "u"}, {"x": "w", "v": "w"}])


@FEW
@given(TABLES, st.floats(1e-6, 1e6))
def test_scores_do_not_depend_on_the_unit_of_time(table: pd.DataFrame, unit: float) -> None:
    assert scores(table * unit).to_dict() == pytest.approx(scores(table).to_dict(), abs=1e-9)


@FEW
@given(TABLES)
def test_the_trapezoid_rule_is_algoperfs_and_close_to_the_integral(table: pd.DataFrame) -> None:
    assert scores(table, integral="trapezoid").to_dict() == pytest.approx(literal(table).to_dict(), abs=1e-12)
    # Half a step of the grid at most, on any one workload.
    assert scores(table).to_dict() == pytest.approx(literal(table).to_dict(), abs=0.5 / 99 + 1e-9)


@FEW
@given(TABLES, INTEGRALS, VARIANTS, st.data())
def test_a_duplicate_does_not_change_the_others(
    table: pd.DataFrame, integral: str, variants: dict[str, str], data: st.DataObject
) -> None:
    one = data.draw(st.sampled_from(list(table.index)))
    more = pd.concat([table, table.loc[[one]].rename(index={one: "again"})])
    found = scores(more, integral=integral, variants=variants)
    assert found.drop("again").equals(scores(table, integral=integral, variants=variants))
    assert found["again"] == found[one]


@FEW
@given(TABLES, INTEGRALS, VARIANTS, st.data())
def test_the_order_of_rows_and_columns_does_not_matter(
    table: pd.DataFrame, integral: str, variants: dict[str, str], data: st.DataObject
) -> None:
    rows, columns = (data.draw(st.permutations(list(axis))) for axis in (table.index, table.columns))
    found = scores(table.loc[rows, columns], integral=integral, variants=variants)
    assert found.to_dict() == pytest.approx(scores(table, integral=integral, variants=variants).to_dict())


CELL = st.tuples(
    st.sampled_from("uv"),
    st.sampled_from("ab"),
    st.integers(0, 2),
    st.integers(0, 2),
    TIME,
    st.integers(0, 9),
)
CELLS = st.lists(CELL, min_size=1, max_size=24, unique_by=lambda row: row[:4]).map(cells)


@FEW
@given(CELLS, INTEGRALS, st.data())
def test_a_faster_hit_never_lowers_its_own_score(
    table: pd.DataFrame, integral: str, data: st.DataObject
) -> None:
    row = data.draw(st.sampled_from(list(table.index)))
    faster = table.copy()
    before = table.loc[row, "samples_to_target"]
    faster.loc[row, "samples_to_target"] = data.draw(st.floats(0.5, min(before, 40)))
    old, new = (scores(medians(study_times(one)), integral=integral) for one in (table, faster))
    label = table.loc[row, "label"]
    assert new[label] >= old[label] - 1e-12


@FEW
@given(CELLS, st.sampled_from(["time", "eval_index"]), st.randoms(use_true_random=False))
def test_the_order_of_cells_does_not_matter(table: pd.DataFrame, pick: str, random) -> None:
    order = list(table.index)
    random.shuffle(order)
    pd.testing.assert_frame_equal(study_times(table.loc[order], pick=pick), study_times(table, pick=pick))

"""Certified crossings: by hand, and against a known truth."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from runner.base.errors import UserError
from runner.stats.crossing import certified, median_bound, p_above, passes_from
from scripts.sim_statistics import Curves, certify, claims, first_pass, held

MISS = math.inf
Run = tuple[str, str, int, int, list[float]]


def tables(*runs: Run, target: float = 0.5, minimize: bool = False, cut: bool = False):
    """(evals, cells) from (workload, label, study, trial, values on a grid of 10 samples)."""
    evals, cells = [], []
    for workload, label, study, trial, values in runs:
        cell = f"{workload}.{label}.{study}.{trial}"
        good = [v <= target if minimize else v >= target for v in values]
        at = good.index(True) * 10.0 if True in good else MISS
        if cut and at < MISS:
            values = values[: good.index(True) + 1]
        cells += [
            {
                "id": cell, "workload": workload, "label": label, "study": study, "trial": trial,
                "status": "done", "samples_to_target": at, "seconds_to_target": at / 10, "metric": "accuracy",
                "minimize": minimize, "target": target, "ended": "target" if cut and at < MISS else "budget",
                "best_metric": min(values) if minimize else max(values),
            }
        ]  # fmt: skip
        evals += [
            {"id": cell, "workload": workload, "label": label, "drawn": 10 * i, "samples": 20.0 * i,
             "seconds": i + study, "validation/accuracy": v}
            for i, v in enumerate(values)
        ]  # fmt: skip
    return pd.DataFrame(evals), pd.DataFrame(cells)


def one(*args: object, **options: object) -> pd.Series:
    found = certified(*args, **options)  # type: ignore[arg-type]
    assert len(found) == 1
    return found.iloc[0]


CURVES = [[0, 0.4, 0.6, 0.5, 0.6, 0.9], [0, 0.6, 0.7, 0.3, 0.7, 0.9], [0, 0.4, 0.8, 0.6, 0.8, 0.9]]


def studies(curves: list[list[float]] = CURVES) -> list[Run]:
    return [("w", "a", study, 0, values) for study, values in enumerate(curves)]


def test_by_hand() -> None:
    found = one(*tables(*studies()))
    # Past it at 20, not at 30, again at 40 (0.1, 0.2, 0.3 over: t = 0.2 / (0.1 / √3)) and at 50.
    assert (found["certified"], found["point"], found["at"], found["studies"]) == (True, 40, 80, 3)
    assert found["mean"] == pytest.approx(0.7)
    assert found["p"] == pytest.approx(stats.t.sf(2 * math.sqrt(3), 2))
    assert (found["first"], found["reason"]) == (20, "")
    assert math.isnan(found["first_high"])  # three studies bound no median at 95 %
    assert one(*tables(*studies()), by="seconds")["at"] == 5  # of 4, 5, 6
    assert one(*tables(*studies()), level=0.99)["point"] == 50


def test_a_smaller_metric_may_be_better() -> None:
    runs = [(w, a, s, t, [-v for v in values]) for w, a, s, t, values in studies()]
    found = one(*tables(*runs, target=-0.5, minimize=True))
    assert (found["point"], found["mean"]) == (40, pytest.approx(-0.7))


def test_the_run_that_tuning_picks() -> None:
    slow = [0, 0, 0, 0, 0, 1.0]
    runs = [*studies(CURVES[:2]), ("w", "a", 0, 1, slow), ("w", "a", 1, 2, slow)]
    runs += [
        ("w", "a", 2, 1, [0.1] * 6),
        ("w", "a", 2, 2, [0.2, 0.4, 0.4, 0.2, 0.4, 0.4]),
    ]  # no hit: the better
    found = one(*tables(*runs), level=0.6)
    assert (found["studies"], found["point"]) == (3, 40)
    assert found["mean"] == pytest.approx((0.6 + 0.7 + 0.4) / 3)


def test_every_study_counts_that_missed_too() -> None:
    low = [0.1] * 6
    found = one(*tables(*studies([*CURVES, low])))
    assert (found["certified"], found["studies"]) == (False, 4)
    assert found["reason"] == "at the end of the runs, the mean is not past the target"


def test_runs_that_stopped_at_the_target_certify_nothing() -> None:
    found = one(*tables(*studies(), cut=True))
    assert not found["certified"]
    assert found["reason"] == "3 of 3 runs ended at their first hit; use stop_at_target=false"
    assert found["first"] == 20
    evals, cells = tables(*studies(), *[("w", "b", s, 0, [0.0] * 6) for s in range(2)], cut=True)
    found = certified(evals, cells.drop(columns="ended")).set_index("label")
    assert "first hit" in found.loc["a", "reason"]  # told by the grid's end
    assert "is not past" in found.loc["b", "reason"]


def test_reasons() -> None:
    evals, cells = tables(*studies())
    assert "do not share a grid" in one(evals.drop(columns="drawn"), cells)["reason"]
    assert "one study" in one(*tables(*studies(CURVES[:1])))["reason"]
    assert "missing" in one(evals.loc[evals["id"] != "w.a.1.0"], cells)["reason"]
    assert "ended early" in one(*tables(*studies([*CURVES, [0.0, 0.1]])))["reason"]
    assert "is not past" in one(*tables(*studies([[*c[:-1], math.nan] for c in CURVES])))["reason"]
    assert "is not past" in one(evals.drop(columns="validation/accuracy"), cells)["reason"]


def test_points_that_not_all_share_are_passed_over() -> None:
    evals, cells = tables(*studies())
    odd = (evals["id"] == "w.a.0.0") & (evals["drawn"] == 40)
    evals.loc[odd, "drawn"] = 41
    assert one(evals, cells)["point"] == 50


def test_empty_and_bad_tables() -> None:
    evals, cells = tables(*studies())
    assert list(certified(evals, cells.assign(status="running")).columns) == list(one(evals, cells).index)
    assert certified(evals, cells.assign(status="running")).empty
    with pytest.raises(UserError, match="no column best_metric"):
        certified(evals, cells.drop(columns="best_metric"))
    with pytest.raises(UserError, match="no column target and minimize"):
        certified(evals, cells.drop(columns=["target", "minimize"]))
    with pytest.raises(UserError, match="no column steps"):
        certified(evals, cells.assign(steps_to_target=cells["samples_to_target"]), by="steps")
    for level in (0, 1):
        with pytest.raises(UserError, match="level"):
            certified(evals, cells, level=level)


def test_rows_of_a_board_with_names_of_any_kind() -> None:
    runs = [(w, a, s, 0, v) for w in ("v", "w\n") for a in ("<b>", "a" * 300) for s, v in enumerate(CURVES)]
    found = certified(*tables(*runs))
    assert list(found["point"]) == [40] * 4
    assert found["workload"].is_monotonic_increasing


def test_the_t_test() -> None:
    values = np.random.default_rng(0).normal(0.3, 1, (7, 5))
    p = p_above(values.mean(axis=0), values.std(axis=0, ddof=1), np.full(5, 7))
    assert p == pytest.approx(stats.ttest_1samp(values, 0, axis=0, alternative="greater").pvalue)
    equal = p_above(np.array([0.1, 0.0, -0.1, 0.1]), np.zeros(4), np.array([3, 3, 3, 1]))
    assert list(equal[:3]) == [0, 1, 1] and math.isnan(equal[3])


def test_passes_are_unbroken_to_the_end() -> None:
    p = np.array([0.01, 0.2, 0.01, 0.05, 0.01])
    assert list(passes_from(p, 0.95)) == [False, False, True, True, True]
    assert not passes_from(np.array([0.01, math.nan]), 0.95).any()


def test_the_bound_of_a_median() -> None:
    # P(all 5 below the median) = 1/32; P(at least 7 of 8) = 9/256; P(all 4) = 1/16.
    assert median_bound(np.array([1.0, 2, 3, 4, 5]), 0.95) == 5
    assert median_bound(np.array([1.0, 2, 3, 4, 5, 6, 7, MISS]), 0.95) == 7
    assert median_bound(np.array([1.0, 2, 3, 4, MISS]), 0.95) == MISS
    assert math.isnan(median_bound(np.arange(4.0), 0.95))


@pytest.mark.parametrize("truth", [Curves(3), Curves(5), Curves(5, flat=False, trials=3)], ids=str)
def test_few_claims_are_wrong_however_many_points_there_are(truth: Curves) -> None:
    assert claims(truth, certify, 1000, 0)[0] <= 0.071  # 5 % and three standard errors


def test_what_the_order_and_the_whole_curves_guard_against() -> None:
    assert claims(Curves(5), first_pass, 200, 1)[0] > 0.5
    assert claims(Curves(5), held, 200, 1)[0] > 0.5


def test_a_mean_that_is_past_it_is_seen() -> None:
    assert claims(Curves(5, flat=False), certify, 200, 1)[1] > 0.6

"""Curves: which run stands for a study, and the median over studies, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from report_tables import tables

from runner.report.curves import window
from runner.report.runs import Curve, Runs, picked


def cell(
    name: str, study: int, time: float, best: float, status: str = "done", minimize: bool = False
) -> dict[str, object]:
    return {"id": name, "workload": "w", "label": "a", "study": study, "status": status,
            "samples_to_target": time, "best_metric": best, "minimize": minimize}  # fmt: skip


def ids(*cells: dict[str, object]) -> list[str]:
    return picked(pd.DataFrame(list(cells)), "samples")["id"].tolist()


def test_the_fastest_trial_that_hit_stands_for_a_study() -> None:
    assert ids(cell("slow", 0, 20, 0.99), cell("fast", 0, 10, 0.9), cell("missed", 0, np.inf, 1.0)) == [
        "fast"
    ]


def test_where_none_hit_it_is_the_best_one() -> None:
    assert ids(cell("x", 0, np.inf, 0.5), cell("y", 0, np.inf, 0.6)) == ["y"]
    assert ids(cell("x", 0, np.inf, 0.5, minimize=True), cell("y", 0, np.inf, 0.6, minimize=True)) == ["x"]


def test_finished_runs_come_before_unfinished_ones() -> None:
    assert ids(cell("x", 0, np.nan, 0.99, "running"), cell("y", 0, np.inf, 0.1)) == ["y"]
    assert ids(cell("x", 0, np.nan, 0.99, "running"), cell("y", 0, np.nan, 0.1, "pending")) == ["x"]


def test_every_study_has_one_run() -> None:
    assert ids(cell("x", 0, 5, 1), cell("y", 1, 6, 1), cell("z", 1, 5, 1)) == ["x", "z"]


def runs(*curves: list[tuple[float, float]]) -> Runs:
    rows = [{"id": k, "samples": x, "y": y} for k, curve in enumerate(curves) for x, y in curve]
    return Runs(pd.DataFrame(rows))


def test_the_median_over_studies_by_hand() -> None:
    found = runs([(0, 0), (10, 1)], [(0, 0), (10, 3), (20, 5)], [(0, 0), (10, 2), (20, 9), (30, 9)])
    curve = found.curve([0, 1, 2], np.array([10.0, 20.0, np.inf]), "samples", "y")
    assert curve is not None
    assert curve.x.tolist() == [0, 10, 20]  # more than half have ended after 20
    assert curve.median.tolist() == [0, 2, 5]  # the first run holds its 1
    assert (curve.low.tolist(), curve.high.tolist()) == ([0, 1, 1], [0, 3, 9])  # of three studies, all
    assert (curve.studies, curve.time) == (3, 20)


def test_bands_leave_out_a_quarter_at_either_side() -> None:
    found = runs(*([(0, value), (1, value)] for value in (1, 2, 3, 4, 5)))
    curve = found.curve(list(range(5)), np.full(5, np.inf), "samples", "y")
    assert curve is not None
    assert (curve.low[0], curve.median[0], curve.high[0], curve.time) == (2, 3, 4, np.inf)


@pytest.mark.parametrize("further", [False, True])  # whether runs go on after their first hit
def test_the_median_curve_meets_the_target_at_the_median_time(further: bool) -> None:
    """Whatever thinning does: that is what the board says, too."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        hits = np.sort(rng.integers(5, 400, 5))
        last = [450] * 5 if further else hits.tolist()
        steps = zip(hits.tolist(), last, strict=True)
        found = runs(*([(x, float(x >= hit)) for x in range(end + 1)] for hit, end in steps))
        curve = found.curve(list(range(5)), hits.astype(float), "samples", "y", points=16)
        assert curve is not None
        assert curve.x[curve.median >= 1].min() == np.median(hits)
        assert len(curve.x) <= 17


def test_values_that_are_none_are_left_out() -> None:
    found = runs([(0, np.nan), (1, 5), (2, np.inf), (3, 6)], [(0, np.nan)])
    curve = found.curve([0, 1, "unknown"], np.array([]), "samples", "y")
    assert curve is not None and curve.x.tolist() == [1, 3] and curve.studies == 1
    assert runs([(0, np.nan)]).curve([0], np.array([]), "samples", "y") is None
    assert Runs(pd.DataFrame()).curve([0], np.array([]), "samples", "y") is None


def flat(*values: float) -> Curve:
    ys = np.array(values)
    return Curve(np.arange(len(ys), dtype=float), ys, ys, ys, 1, np.inf)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_window_holds_the_target_and_every_end_that_is_near(sign: int) -> None:
    curves = [flat(0, *([sign * v] * 9)) for v in (0.9, 0.95, 0.97)]
    scale = window(curves, sign * 0.98, sign < 0)
    inside = [sign * v for v in (0.9, 0.95, 0.97, 0.98)]
    assert all(scale.low <= value <= scale.high for value in inside)
    assert not scale.low <= 0 <= scale.high  # where they start is of no interest


def test_one_that_diverged_does_not_flatten_the_others() -> None:
    curves = [flat(3, 2, 1.1), flat(3, 2, 1.2), flat(1e9, 1e9, 1e9)]
    assert window(curves, 1.0, True).high < 10


def test_unfinished_runs_and_columns_that_are_absent() -> None:
    cells, evals = tables()
    assert Runs(evals).has("validation/loss") and not Runs(evals).has("validation/f1")
    assert not Runs(evals.assign(samples=np.nan)).has("samples")
    assert len(picked(cells.drop(columns=["best_metric", "minimize", "samples_to_target"]), "samples")) == 30

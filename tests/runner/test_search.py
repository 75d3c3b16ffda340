"""Trial points: known numbers, low discrepancy, and spaces that are none."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from runner.base.errors import UserError
from runner.compose import search

LR_WD = {"lr": {"min": 1e-4, "max": 1.0, "scale": "log"}, "wd": {"min": 0, "max": 1, "scale": "linear"}}


def test_points_of_the_textbook() -> None:
    points = [
        (search.radical_inverse(i, 3, range(3)), search.radical_inverse(i, 5, range(5))) for i in range(1, 5)
    ]
    assert points == [pytest.approx(p) for p in ((1 / 3, 0.2), (2 / 3, 0.4), (1 / 9, 0.6), (4 / 9, 0.8))]


def test_points_of_algoperf() -> None:
    # Made with mlcommons/algorithmic-efficiency's halton.py, two dimensions, before its shuffle.
    known = [(0.2739744373, 0.2861242773), (0.9911667058, 0.8300193328), (0.2302307954, 0.3607963257)]
    assert [search.algoperf(2, i) for i in (1, 2, 3)] == [pytest.approx(p, abs=1e-10) for p in known]


def test_our_points_stay_where_they_are() -> None:
    # Results hold them: a change here would make every tuned cell another one.
    assert search.scrambled(2, 3) == pytest.approx([0.25145534639926137, 0.3963766931877095], abs=1e-12)
    assert search.scrambled(3, 2005) == pytest.approx(
        [0.17088894014926137, 0.9295271275727118, 0.14765397834320262], abs=1e-12
    )


@pytest.mark.parametrize("sequence", ["scrambled", "algoperf"])
def test_points_are_computed_alone_and_studies_share_none(sequence: str) -> None:
    def point(study: int, trial: int) -> dict[str, Any]:
        return search.point(LR_WD, study, trial, sequence)

    points = {(s, t): point(s, t) for s, t in itertools.product(range(4), range(1, 26))}
    assert len({tuple(p.values()) for p in points.values()}) == len(points)
    assert points[2, 5] == point(2, 5)
    assert all(1e-4 <= p["lr"] <= 1 and 0 <= p["wd"] <= 1 for p in points.values())


def test_our_points_fill_the_space_evenly() -> None:
    low = sum(search.point(LR_WD, 0, t)["lr"] < 1e-2 for t in range(1, 9))
    assert 3 <= low <= 5  # of eight points, four in each half of the log range, give or take one


@pytest.mark.parametrize(
    ("u", "choice"), [(0.0, "a"), (0.3333, "a"), (0.3334, "b"), (0.999, "c"), (1.0, "c")]
)
def test_choices_are_equal_shares(monkeypatch: pytest.MonkeyPatch, u: float, choice: str) -> None:
    monkeypatch.setitem(search.SEQUENCES, "scrambled", lambda dimensions, index: [u] * dimensions)
    assert search.point({"b": {"choices": ["a", "b", "c"]}}, 0, 1) == {"b": choice}


def test_a_choice_may_be_a_list() -> None:
    space = {"b": {"choices": [[0.9, 0.99], [0.9, 0.999]]}}
    assert {tuple(search.point(space, 0, t)["b"]) for t in range(1, 9)} == {(0.9, 0.99), (0.9, 0.999)}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"min": 1, "max": 2, "scale": "cubic"}, r"lr\.scale: got 'cubic', expected linear or log"),
        ({"min": 1}, r"lr: expected min and max, or choices; 'max' is missing"),
        ({"min": 2, "max": 2}, r"lr: got min 2 and max 2, expected min < max"),
        ({"min": 3, "max": 2, "scale": "log"}, r"expected min < max"),
        ({"min": 0, "max": 2, "scale": "log"}, r"lr\.min: got 0, expected a number above 0 on a log scale"),
        ({"min": "a", "max": 2}, r"lr\.min: got 'a', expected a number"),
        ({"min": float("nan"), "max": 2}, r"lr\.min: got nan, expected a number"),
        ({"min": 1, "max": 2, "scaling": "log"}, r"lr: unknown key 'scaling': did you mean scale"),
        ({"min": None, "max": 2}, r"lr: expected min and max, or choices; 'min' is missing"),
        ({"min": 1, "max": 2, "choices": [1]}, r"lr: got choices beside min, max; set choices to null, or"),
        (
            {"scale": "log", "choices": [1]},
            r"lr: got choices beside scale; set choices to null, or the others",
        ),
        ({"choices": []}, r"lr\.choices: got \[\], expected a list of values"),
        ({"choices": 3}, r"lr\.choices: got 3, expected a list of values"),
        (0.1, r"lr: got 0.1, expected min and max, or choices"),
    ],
)
def test_a_space_that_is_none_is_refused_in_one_line(entry: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        search.spaces({"optimizer": {"search_space": {"lr": entry}}})
    assert str(caught.value).startswith("search_space.optimizer.lr") and "\n" not in str(caught.value)


def test_a_null_takes_a_hyperparameter_out_or_a_range_in_favour_of_choices() -> None:
    space = {"lr": {"min": None, "max": None, "scale": None, "choices": [7]}, "betas": None}
    found = search.spaces({"optimizer": {"search_space": space}})
    assert found == {"optimizer.lr": {"choices": [7]}} and search.point(found, 0, 1) == {"optimizer.lr": 7}


def test_nothing_to_search() -> None:
    with pytest.raises(UserError, match="no search space"):
        search.point({}, 0, 1)
    with pytest.raises(UserError, match="trial: got 1000, expected an integer from 0 to 999"):
        search.point(LR_WD, 0, 1000)
    with pytest.raises(UserError, match="got 200 hyperparameters, expected at most 166"):
        search.algoperf(200, 1)


def test_a_few_studies_together_leave_no_part_of_an_axis_out() -> None:
    """With a stride that a base divides, trial k of every study lies in the same part of the axis."""
    space = {f"x{axis}": {"min": 0.0, "max": 1.0} for axis in range(4)}
    for axis, parts in (("x0", 8), ("x1", 9), ("x2", 5)):
        places = [[int(search.point(space, s, k)[axis] * parts) for k in range(1, 6)] for s in range(5)]
        assert {place for study in places for place in study} == set(range(parts))
        assert len({tuple(study) for study in places}) == len(places)


@pytest.mark.parametrize("sequence", search.SEQUENCES)
def test_a_study_may_be_a_stamp(sequence: str) -> None:
    studies = (0, 1732800000000000000, 2**63 - 1)
    points = [search.point(LR_WD, study, 1, sequence) for study in studies]
    assert len({tuple(point.values()) for point in points}) == 3
    assert all(1e-4 <= point["lr"] <= 1 and 0 <= point["wd"] <= 1 for point in points)

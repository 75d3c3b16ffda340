"""Step decay: where it drops, and by how much."""

from __future__ import annotations

import math
from typing import Any

import pytest

from runner.base.errors import UserError
from runner.contract.instantiate import build_part
from tests.problems import part_config
from tests.tasks import BATCH, BUDGET, classification

STEPS = BUDGET // BATCH  # 100


def schedule(**changes: Any) -> Any:
    part = build_part("schedule", part_config("schedule", "step", **changes))
    part.setup(classification())
    return part


def multipliers(**changes: Any) -> list[float]:
    part = schedule(**changes)
    return [part(t / STEPS) for t in range(STEPS)]


def test_reference_defaults_are_the_papers() -> None:
    assert multipliers(warmup=0.0) == pytest.approx([1.0] * 50 + [0.1] * 25 + [0.01] * 25)


def test_milestones_are_shares_of_the_whole_budget_behind_any_warm_up() -> None:
    for warmup in (0.05, 0.07, 0.3):
        assert multipliers(warmup=warmup)[30:] == multipliers(warmup=0.0)[30:]


def test_any_milestone_that_a_step_falls_on_is_taken_there() -> None:
    for k in range(1, STEPS):
        drops = multipliers(warmup=0.0, milestones=[k / STEPS], gamma=0.5)
        assert drops == [1.0] * k + [0.5] * (STEPS - k)


def test_warm_up_climbs_linearly_counting_the_step_to_be_made() -> None:
    assert multipliers(warmup=0.05)[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


def test_a_milestone_within_warm_up_and_none_at_all() -> None:
    got = multipliers(warmup=0.04, milestones=[0.02], gamma=0.5)
    assert got[:5] == pytest.approx([0.25, 0.5, 0.375, 0.5, 0.5])
    assert multipliers(warmup=0.0, milestones=[]) == [1.0] * STEPS


@pytest.mark.parametrize(
    ("key", "value", "wants"),
    [
        ("warmup", 1.0, "lie in"),
        ("gamma", 1.5, "lie in"),
        ("gamma", math.nan, "lie in"),
        ("milestones", [0.5, 1.5], "lie in"),
        ("milestones", [0.75, 0.5], "rise"),
        ("milestones", [0.5, 0.5], "rise"),
    ],
)
def test_refuses_bad_values_by_name(key: str, value: object, wants: str) -> None:
    with pytest.raises(UserError, match=rf"{key} must {wants}.*, got "):
        schedule(**{key: value})

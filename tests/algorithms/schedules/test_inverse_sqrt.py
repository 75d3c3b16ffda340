"""Inverse square root decay against the paper's formula, step by step."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from runner.base.errors import UserError
from runner.contract.instantiate import build_part
from tests.problems import part_config
from tests.tasks import BATCH, BUDGET, classification

STEPS = BUDGET // BATCH  # 100


def multipliers(**changes: Any) -> list[float]:
    part = build_part("schedule", part_config("schedule", "inverse_sqrt", **changes))
    part.setup(classification())
    return [part(t / STEPS) for t in range(STEPS)]


@pytest.mark.parametrize("w", [1, 2, 5, 20, 99])
def test_reference_is_the_papers_formula_scaled_to_a_peak_of_one(w: int) -> None:
    paper = [min(t**-0.5, t * w**-1.5) for t in range(1, STEPS + 1)]
    assert multipliers(warmup=w / STEPS) == pytest.approx([v * math.sqrt(w) for v in paper])


def test_peaks_at_one_where_warm_up_ends_without_a_jump() -> None:
    got = multipliers(warmup=0.2)
    assert max(got) == pytest.approx(got[19]) == pytest.approx(1.0)
    assert max(abs(a - b) for a, b in itertools.pairwise(got)) <= 1 / 20 + 1e-9
    assert got[-1] == pytest.approx(math.sqrt(0.2))


def test_without_warm_up_it_decays_from_the_first_step() -> None:
    assert multipliers(warmup=0.0) == pytest.approx([t**-0.5 for t in range(1, STEPS + 1)])


def test_warm_up_shorter_than_a_step_counts_as_one() -> None:
    assert multipliers(warmup=0.004) == pytest.approx(multipliers(warmup=0.0))


@pytest.mark.parametrize("value", [1.0, -0.1, math.nan])
def test_refuses_bad_values_by_name(value: float) -> None:
    with pytest.raises(UserError, match=r"warmup must lie in .*, got "):
        multipliers(warmup=value)

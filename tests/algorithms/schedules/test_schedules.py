import math
from typing import Any

import pytest
import torch

from algorithms.schedules.linear import Linear
from runner.base.errors import UserError
from runner.contract.instantiate import build_part
from runner.parts.composed import Composed
from tests.problems import part_config
from tests.tasks import BATCH, BUDGET, classification

NAMES = ["constant", "linear", "cosine"]
STEPS = BUDGET // BATCH  # 100


def schedule(name: str, **changes: Any) -> Any:
    part = build_part("schedule", part_config("schedule", name, **changes))
    part.setup(classification())
    return part


def multipliers(name: str, **changes: Any) -> list[float]:
    """The multiplier of each of the 100 steps."""
    part = schedule(name, **changes)
    return [part(t / STEPS) for t in range(STEPS)]


def test_spec_linear_decay():
    assert multipliers("linear", warmup=0.0) == pytest.approx([1 - t / STEPS for t in range(STEPS)])


def test_cosine_by_hand():
    part = schedule("cosine", warmup=0.0)
    assert [part(p) for p in (0, 1 / 3, 0.5, 2 / 3, 1)] == pytest.approx([1, 0.75, 0.5, 0.25, 0])


def test_constant_is_constant():
    assert multipliers("constant", warmup=0.0) == [1.0] * STEPS


@pytest.mark.parametrize("name", NAMES)
def test_warm_up_climbs_linearly_counting_the_step_to_be_made(name: str):
    got = multipliers(name, warmup=0.05)
    assert got[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert max(got) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_decay_takes_what_warm_up_leaves(name: str):
    plain, warm = schedule(name, warmup=0.0), schedule(name, warmup=0.2)
    for left in (0.0, 0.25, 0.5, 1.0):
        assert warm(0.2 + 0.8 * left) == pytest.approx(plain(left))


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_final_is_where_decay_ends(name: str):
    part, run = schedule(name, final=0.1), multipliers(name, final=0.1)
    assert (part(0.05), part(0.525), part(1.0)) == pytest.approx((1.0, 0.55, 0.1))
    assert sorted(run[5:], reverse=True) == run[5:]


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [(name, "warmup", value) for name in NAMES for value in (1.0, -0.1)]
    + [(name, "final", value) for name in ("linear", "cosine") for value in (1.5, math.nan)],
)
def test_refuses_bad_values_by_name(name: str, key: str, value: float):
    with pytest.raises(UserError, match=rf"{key} must lie in .*, got {value}"):
        build_part("schedule", part_config("schedule", name, **{key: value}))


def test_a_schedule_scales_every_group_of_a_run_and_the_last_step_still_moves():
    def optimizer(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.SGD([dict(g, lr=lr) for g, lr in zip(groups, (1.0, 0.5), strict=True)])

    task = classification()
    algorithm = Composed(optimizer, Linear, groups=lambda: two_groups)
    algorithm.setup(task)
    seen = []
    while task.progress < 1:
        algorithm.step(task)
        seen.append([group["lr"] for group in algorithm.optimizer.param_groups])
    assert len(seen) == STEPS
    assert seen[4] == pytest.approx([1.0, 0.5])
    assert seen[-1] == pytest.approx([0.01 / 0.95, 0.005 / 0.95])
    assert all(a == pytest.approx(2 * b) for a, b in seen)


def two_groups(task: Any) -> list[dict[str, Any]]:
    return [{"params": task.params[:2]}, {"params": task.params[2:]}]

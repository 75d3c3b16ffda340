"""200 random compositions of all kinds of parts: each trains past every period, or says in a line why not."""

from __future__ import annotations

import math
import random

import pytest
import torch

from runner.base.errors import UserError
from runner.check.subject import MOST
from runner.check.subjects import SMALL, small_workload, subject
from runner.compose import presets
from runner.compose.config import compose

CHUNKS, EACH = 20, 10
# How often a composition has a part of the kind; an optimizer it always has.
SHARE = {"groups": 0.5, "wrapper": 0.25, "schedule": 0.6, "sampler": 0.3, "loss": 0.35, "objective": 0.15,
         "reweighting": 0.25, "estimator": 0.35, "average": 0.3, "surgery": 0.25}  # fmt: skip
TRAINED_AT_LEAST = 2  # of a chunk


def parts_by_kind() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for kind, path in presets.parts():
        found.setdefault(kind, []).append(path.stem)
    return found


def drawn(seed: int) -> list[str]:
    """The overrides of one composition, and of the workload that it is tried on."""
    random_, parts = random.Random(seed), parts_by_kind()
    overrides = [f"workload={random_.choice(SMALL)}", f"algorithm={random_.choice(parts['optimizer'])}"]
    for kind, share in SHARE.items():
        name = random_.choice(parts[kind]) if random_.random() < share else "null"
        overrides.append(f"algorithm/{kind}={name}")
    transforms = random_.sample(parts["transform"], random_.choice([0, 0, 1, 1, 2, 3]))
    return [*overrides, f"algorithm/transform=[{','.join(transforms)}]"]


def test_every_kind_of_part_is_drawn() -> None:
    assert set(SHARE) | {"optimizer", "transform"} == set(parts_by_kind())


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_trains_or_gives_a_reason(chunk: int) -> None:
    trained, broken = 0, []
    for seed in range(chunk * EACH, (chunk + 1) * EACH):
        overrides = drawn(seed)
        try:
            trained += trains(overrides)
        except Exception as error:
            broken.append(f"{seed}: {' '.join(overrides)}: {type(error).__name__}: {error}")
    assert not broken, "\n" + "\n".join(broken)
    assert trained >= TRAINED_AT_LEAST


def trains(overrides: list[str]) -> bool:
    """Whether it trains; false where it gives a reason."""
    try:
        tried = subject(compose(overrides), [small_workload(name) for name in SMALL])
        reason = tried.refusal
        trial = None if reason is not None else tried.train()
    except UserError as error:  # of a part that is built at set-up
        reason, trial = str(error), None
    if trial is None:
        assert reason is not None and one_line(reason), f"no reason but {reason!r}"
        return False
    losses = [loss for loss in trial.losses if loss is not None]
    assert trial.ended == "budget" and losses, f"ended {trial.ended!r} after {len(trial.steps)} steps"
    assert torch.stack(losses).isfinite().all(), f"losses {torch.stack(losses).tolist()}"
    values = [v for row in trial.rows for k, v in row.items() if k.startswith("validation/")]
    assert values and all(map(math.isfinite, values)), f"evaluated to {values}"
    task, algorithm = trial.pieces.task, trial.pieces.algorithm
    algorithm.enter_eval(task)
    assert algorithm.broken_promise(task) is None
    algorithm.exit_eval(task)
    assert len(trial.steps) >= algorithm.cycle(task.info) or algorithm.cycle(task.info) > MOST
    return True


# Two parts each, found by what they declare.
REFUSED = [
    *(("batch_norm_test", objective, "not an objective's") for objective in ("mesa", "trades", "saf")),
    ("batch_norm_test", "tract", "no per-example gradients"),
    ("batch_norm_test", "mezo", "without backward passes"),
    ("batch_norm_test", "ef", "the sampler draws 8"),
    ("bo_rep", "mesa", "an objective replaces"),
    ("bo_rep", "tract", "the surgery changes"),
    *(("momo_adam", other, "hands on another gradient") for other in ("sam", "asam", "mezo", "ef", "tract")),
    ("momo_adam", "clip_norm", "hands on another gradient"),
    ("momo_adam", "quantized_distillation", "hands on another gradient"),
    ("tract", "mezo", "the estimator makes none"),
    ("quantized_distillation", "mezo", "the estimator makes none"),
    ("tract", "econtrol", "the estimator splits them"),
    ("mesa", "ef", None), ("bo_rep", "sam", None), ("momo_adam", "linupper", None), ("sam", "tract", None),
]  # fmt: skip


@pytest.mark.parametrize(("first", "second", "reason"), REFUSED)
def test_pairs_that_mean_something_else_together_are_refused(
    first: str, second: str, reason: str | None
) -> None:
    kinds = {name: kind for kind, names in parts_by_kind().items() for name in names}
    chosen = [f"algorithm/{kinds[name]}={name}" for name in (first, second) if kinds[name] != "transform"]
    chosen += [f"algorithm/transform=[{name}]" for name in (first, second) if kinds[name] == "transform"]
    found = subject(compose(["workload=digits", "algorithm=composed", *chosen]), []).refusal
    assert found is None if reason is None else reason in str(found)


def one_line(reason: str) -> bool:
    return bool(reason.strip()) and "\n" not in reason

"""Scaling lr and decay with width: the spec's table, a literal trajectory, which parameter goes where."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import pytest
import torch
from torch import nn

from algorithms.groups.adamw_mup_wd import AdamWMupWd
from algorithms.optimizers.muon import Muon
from algorithms.schedules.linear import Linear
from runner.base.errors import UserError
from runner.contract.instantiate import build_part
from runner.contract.task import Task
from runner.parts.composed import Composed
from tests.problems import PROBLEMS, Problem, Update, part_config, run_reference
from tests.tasks import (
    assert_resumes,
    classification,
    conv_net,
    follow,
    from_problem,
    images,
    language,
    train,
)

ADAMW = functools.partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.1)


def with_facts(task: Task, kinds: dict[str, str], width: dict[str, tuple[int, int]] | None = None) -> Task:
    task.info = dataclasses.replace(task.info, param_kind=kinds, width=width or {})
    return task


def groups_of(task: Task, part: AdamWMupWd, optimizer: Any = ADAMW) -> list[tuple[list[str], float, float]]:
    """(names, lr, weight decay) of each group of the optimizer."""
    algorithm = Composed(optimizer, groups=lambda: part)
    algorithm.setup(task)
    name_of = {id(p): name for name, p in task.model.named_parameters()}
    return [
        ([name_of[id(p)] for p in group["params"]], group["lr"], group["weight_decay"])
        for group in algorithm.optimizer.param_groups
    ]


def two_layers() -> Task:
    return with_facts(classification(), {"0.weight": "hidden", "2.weight": "head"})


@pytest.mark.parametrize(
    ("d", "lr", "decay", "product"),
    [
        (256, 5e-3, 0.14142136, 7.0711e-4),
        (512, 2.5e-3, 0.2, 5e-4),
        (1024, 1.25e-3, 0.28284271, 3.5355e-4),
    ],
)
def test_spec_table(d: int, lr: float, decay: float, product: float) -> None:
    hidden, others = groups_of(two_layers(), AdamWMupWd(d / 128))
    assert hidden[0] == ["0.weight"]
    assert hidden[1] == pytest.approx(lr, rel=1e-12)
    assert hidden[2] == pytest.approx(decay, abs=5e-9)
    assert hidden[1] * hidden[2] == pytest.approx(product, abs=5e-9)
    assert others == (["0.bias", "2.weight", "2.bias"], 1e-2, 0.0)


def literal_adamw(lr: float, decay: float, ratios: list[float | None]) -> Update:
    """AdamW one float at a time; a ratio of None marks what is no hidden matrix."""
    memory: dict[tuple[int, int], tuple[float, float]] = {}

    def update(t: int, x: list[list[float]], g: list[list[float]]) -> None:
        for i, ratio in enumerate(ratios):
            rate = lr if ratio is None else lr / ratio
            shrink = 0.0 if ratio is None else rate * decay * math.sqrt(ratio)
            for j in range(len(x[i])):
                m, v = memory.get((i, j), (0.0, 0.0))
                m, v = 0.9 * m + 0.1 * g[i][j], 0.999 * v + 0.001 * g[i][j] ** 2
                memory[i, j] = m, v
                x[i][j] *= 1 - shrink
                x[i][j] -= rate * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)

    return update


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_reference(problem: Problem) -> None:
    task, objective = from_problem(problem)
    kinds = {f"values.{i}": "hidden" for i, v in enumerate(problem.start) if v.ndim > 1}
    width = {name: (4 + i, 2) for i, name in enumerate(kinds)}
    ratios = [width[n][0] / 2 if (n := f"values.{i}") in width else None for i in range(len(problem.start))]
    algorithm = Composed(ADAMW, objective=objective, groups=AdamWMupWd)
    got = follow(algorithm, with_facts(task, kinds, width), 50)
    expected = run_reference(literal_adamw(1e-2, 0.1, ratios), 50, problem)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


def test_each_matrix_has_its_own_ratio_and_convolutions_are_matrices() -> None:
    kinds = {"0.weight": "hidden", "1.weight": "norm", "4.weight": "head"}
    task = with_facts(images(conv_net), kinds, {"0.weight": (36, 9)})
    assert groups_of(task, AdamWMupWd()) == [
        (["0.weight"], 2.5e-3, 0.2),
        (["0.bias", "1.weight", "1.bias", "4.weight", "4.bias"], 1e-2, 0.0),
    ]
    net = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 4), nn.Linear(4, 3))
    kinds = {"0.weight": "embedding", "1.weight": "hidden", "2.weight": "hidden"}
    words = with_facts(language(lambda: net), kinds, {"1.weight": (4, 1), "2.weight": (4, 2)})
    assert [(names, lr) for names, lr, _ in groups_of(words, AdamWMupWd())] == [
        (["2.weight"], 5e-3),
        (["1.weight"], 2.5e-3),
        (["0.weight", "1.bias", "2.bias"], 1e-2),
    ]


def test_without_widths_it_is_adamw_without_decay_on_what_is_no_hidden_matrix() -> None:
    (_, lr, decay), (_, lr_others, none) = groups_of(two_layers(), AdamWMupWd())
    assert (lr, decay, lr_others, none) == (1e-2, 0.1, 1e-2, 0.0)


def test_a_schedule_scales_the_scaled_rates_and_a_run_resumes() -> None:
    task = two_layers()
    algorithm = Composed(ADAMW, Linear, groups=lambda: AdamWMupWd(4.0))
    algorithm.setup(task)
    train(algorithm, task, 50)
    rates = [group["lr"] for group in algorithm.optimizer.param_groups]
    assert rates[0] == pytest.approx(rates[1] / 4)
    assert_resumes(lambda: Composed(ADAMW, Linear, groups=lambda: AdamWMupWd(4.0)), two_layers)


def test_an_optimizer_that_copies_its_groups_gets_the_factors_too() -> None:
    class Copies(Muon):
        def add_param_group(self, param_group: dict[str, Any]) -> None:
            super().add_param_group({"use_muon": False} | param_group)

    (_, lr, decay), (_, lr_others, none) = groups_of(two_layers(), AdamWMupWd(4.0), Copies)
    usual = Copies([torch.ones(1)]).defaults["weight_decay"]
    assert (lr, decay, none) == (pytest.approx(lr_others / 4), pytest.approx(2 * usual), 0)


def test_preset_and_bad_values() -> None:
    assert build_part("groups", part_config("groups", "adamw_mup_wd")).width_ratio is None
    with pytest.raises(UserError, match="width_ratio must be greater than 0, got 0"):
        build_part("groups", part_config("groups", "adamw_mup_wd", width_ratio=0))

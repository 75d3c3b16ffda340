"""No decay on 1-D parameters: which ones decay, and by how much."""

from __future__ import annotations

import functools

import torch
from torch import nn

from algorithms.groups.no_decay_1d import NoDecay1d
from runner.contract.instantiate import build_part
from runner.contract.task import Task
from runner.parts.composed import Composed
from tests.problems import part_config
from tests.tasks import classification, conv_net, follow, images

STILL = functools.partial(torch.optim.AdamW, lr=0.1, weight_decay=0.5)


def nothing() -> object:
    return lambda task, batch: 0 * sum(p.sum() for p in task.params)


def test_every_parameter_is_in_one_group_and_only_matrices_decay() -> None:
    task = images(conv_net)
    groups = NoDecay1d()(task)
    assert [id(p) for g in groups for p in g["params"]] != []
    assert sorted(id(p) for g in groups for p in g["params"]) == sorted(id(p) for p in task.params)
    optimizer = STILL(groups)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    expected = {"0.weight": 0.5, "0.bias": 0, "1.weight": 0, "1.bias": 0, "4.weight": 0.5, "4.bias": 0}
    assert {name: decay[id(p)] for name, p in task.model.named_parameters()} == expected


def test_reference_decay_without_gradients() -> None:
    task = classification()
    before = {name: p.detach().clone() for name, p in task.model.named_parameters()}
    follow(Composed(STILL, groups=NoDecay1d, objective=nothing), task, 3)
    for name, p in task.model.named_parameters():
        shrunk = before[name] * (1 - 0.1 * 0.5) ** 3 if p.ndim > 1 else before[name]
        torch.testing.assert_close(p.detach(), shrunk, rtol=1e-12, atol=0)


def test_scalars_count_as_vectors_and_empty_groups_are_left_out() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.scale * x[:, :3]

    (group,) = NoDecay1d()(classification(Scale))
    assert group["weight_decay"] == 0
    assert len(group["params"]) == 1
    (group,) = NoDecay1d()(classification(lambda: nn.Linear(5, 3, bias=False)))
    assert "weight_decay" not in group


def test_frozen_parameters_are_in_no_group() -> None:
    task: Task = classification(lambda: _frozen_first())
    assert sum(len(g["params"]) for g in NoDecay1d()(task)) == 2


def _frozen_first() -> nn.Module:
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)).double()
    model[0].requires_grad_(False)
    return model


def test_preset() -> None:
    assert isinstance(build_part("groups", part_config("groups", "no_decay_1d")), NoDecay1d)

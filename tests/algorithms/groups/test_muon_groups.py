"""Groups for Muon: which parameter goes where."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from torch import nn

from algorithms.groups.muon_groups import MuonGroups
from algorithms.optimizers.muon import Muon
from runner.contract.instantiate import build_part
from runner.contract.task import Task
from runner.parts.composed import Composed
from tests.problems import part_config
from tests.tasks import classification, conv_net, follow, images, language

ROLES = {"0.weight": "hidden", "0.bias": "bias", "1.weight": "norm", "1.bias": "bias", "4.weight": "head"}


def with_roles(task: Task, roles: dict[str, str]) -> Task:
    task.info = dataclasses.replace(task.info, param_kind=roles)
    return task


def names(task: Task) -> list[tuple[list[str], bool, float | None]]:
    """(names, use_muon, weight decay) of each group."""
    name_of = {id(p): name for name, p in task.model.named_parameters()}
    return [
        ([name_of[id(p)] for p in group["params"]], group["use_muon"], group.get("weight_decay"))
        for group in MuonGroups()(task)
    ]


def test_hidden_matrices_and_convolutions_go_to_muon_all_others_to_adamw() -> None:
    assert names(with_roles(images(conv_net), ROLES | {"4.bias": "bias"})) == [
        (["0.weight"], True, None),
        (["4.weight"], False, None),
        (["0.bias", "1.weight", "1.bias", "4.bias"], False, 0.0),
    ]


def test_embeddings_are_no_hidden_matrices_and_unknown_parameters_have_no_role() -> None:
    task = language(lambda: nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 4), nn.Linear(4, 3)))
    roles = {"0.weight": "embedding", "1.weight": "hidden", "1.bias": "bias"}
    assert names(with_roles(task, roles)) == [
        (["1.weight"], True, None),
        (["0.weight", "2.weight"], False, None),
        (["1.bias", "2.bias"], False, 0.0),
    ]


def test_a_hidden_vector_is_a_vector_and_empty_groups_are_left_out() -> None:
    task = with_roles(classification(lambda: nn.Linear(5, 3).double()), {"weight": "head", "bias": "hidden"})
    assert names(task) == [(["weight"], False, None), (["bias"], False, 0.0)]


def test_frozen_parameters_are_in_no_group() -> None:
    task = classification()
    task.model[0].requires_grad_(False)  # type: ignore[index]
    assert [name for group in names(task) for name in group[0]] == ["2.weight", "2.bias"]


@pytest.mark.parametrize("optimizer", [Muon, functools.partial(torch.optim.AdamW, fused=True)])
def test_an_optimizer_moves_every_parameter_once(optimizer: object) -> None:
    task = with_roles(images(conv_net), ROLES)
    before = [p.detach().clone() for p in task.params]
    follow(Composed(optimizer, groups=MuonGroups), task, 1)  # type: ignore[arg-type]
    for p, start in zip(task.params, before, strict=True):
        assert not torch.equal(p, start)


def test_preset() -> None:
    assert isinstance(build_part("groups", part_config("groups", "muon_groups")), MuonGroups)

"""Gradients lie in memory as their parameters do, whichever estimator or transform makes them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from runner.contract.memory_layout import dense, like, unfuse
from runner.parts.composed import Composed
from tests.problems import CONF, part_config
from tests.tasks import CLASSES, conv_net, follow, images, normal

MADE = [
    (kind, path.stem) for kind in ("estimator", "transform") for path in sorted((CONF / kind).glob("*.yaml"))
]


def channels_last() -> nn.Module:
    return conv_net().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


class Strided(nn.Module):
    """A linear model whose weight is some columns of a larger tensor."""

    def __init__(self, strided: bool) -> None:
        super().__init__()
        self.around = normal(5, CLASSES, 100)
        weight = self.around[:, 10:82]
        self.weight = nn.Parameter(weight if strided else weight.clone())

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T


def composed(optimizer: str = "adamw", **parts: Any) -> Composed:
    few = {"workers": 4} if parts.get("estimator") in ("ef", "ef21", "econtrol") else {}
    specs = {kind: part_config(kind, name, **few) for kind, name in parts.items()}
    return Composed(part_config("optimizer", optimizer), **specs)


@pytest.mark.parametrize(("kind", "name"), MADE)
@pytest.mark.parametrize("build", [channels_last, lambda: Strided(True)], ids=["channels last", "strided"])
def test_gradients_lie_as_their_parameters_do(kind: str, name: str, build: Any) -> None:
    task = images(build)
    follow(composed(**{kind: name}), task, 3)
    for p in task.params:
        assert p.grad is not None
        assert p.grad.stride() == (p.stride() if dense(p) else p.contiguous().stride())
    assert torch.cat([p.detach().flatten() for p in task.params]).isfinite().all()


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize(("kind", "name"), [made for made in MADE if made[1] != "mezo"])  # it draws as p lies
def test_the_memory_format_changes_no_weights(kind: str, name: str, optimizer: str) -> None:
    paths = [
        follow(composed(optimizer, **{kind: name}), images(build), 3) for build in (conv_net, channels_last)
    ]
    torch.testing.assert_close(*paths, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("optimizer", [path.stem for path in sorted((CONF / "optimizer").glob("*.yaml"))])
def test_a_strided_parameter_trains_as_a_contiguous_one(optimizer: str) -> None:
    groups = {"groups": "muon_groups"}
    tasks = [images(lambda strided=strided: Strided(strided)) for strided in (True, False)]
    paths = [follow(composed(optimizer, **groups), task, 5) for task in tasks]
    torch.testing.assert_close(*paths, rtol=1e-9, atol=1e-12)
    around: Any = tasks[0].model.around
    expected = normal(5, CLASSES, 100)
    assert torch.equal(around[:, :10], expected[:, :10])
    assert torch.equal(around[:, 82:], expected[:, 82:])


def test_dense_means_no_gaps_and_no_overlaps() -> None:
    big = torch.zeros(4, 6)
    assert dense(big) and dense(big.T) and dense(big[1]) and dense(torch.zeros(0, 3))
    assert dense(torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last))
    assert not dense(big[:, :3]) and not dense(big[:, 0]) and not dense(torch.zeros(3).expand(2, 3))


def test_like_takes_numbers_in_order() -> None:
    p = normal(0, 2, 3, 4, 4).to(memory_format=torch.channels_last)
    got = like(p.flatten().float(), p)
    assert got.stride() == p.stride() and got.dtype == p.dtype
    torch.testing.assert_close(got, p, rtol=1e-6, atol=1e-6)


def test_only_groups_that_need_it_are_unfused() -> None:
    big = torch.zeros(4, 6)
    groups: list[dict[str, Any]] = [
        {"params": [big, big.T], "fused": True},
        {"params": [big, big[:, :3]], "fused": True},
        {"params": [torch.zeros(2, dtype=torch.complex64)], "fused": True},
        {"params": [big[:, :3]]},
    ]
    unfuse(groups)
    assert [group.get("fused") for group in groups] == [True, None, None, None]
    assert "fused" not in groups[3]

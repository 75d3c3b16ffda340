"""Averages from elsewhere: the weights that the library's own loop has, swapped, checkpointed and resumed."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import (
    AveragedModel,
    get_ema_avg_fn,
    get_ema_multi_avg_fn,
    get_swa_avg_fn,
    get_swa_multi_avg_fn,
)

from runner import UserError
from runner.parts.composed import Composed
from tests.tasks import assert_resumes, classification, conv_net, images, weights

HERE = "tests.runner.test_averages"
SWA = "torch.optim.swa_utils"
SGD = functools.partial(torch.optim.SGD, lr=0.1)
STEPS = 12
EMA_IN_LISTS = {"_target_": f"{SWA}.get_ema_multi_avg_fn", "decay": 0.9}
SPECS: dict[str, tuple[dict[str, Any], Any]] = {
    "class": ({"_target_": f"{SWA}.AveragedModel"}, lambda model: AveragedModel(model)),
    "class, with a function": (
        {"_target_": f"{SWA}.AveragedModel", "multi_avg_fn": EMA_IN_LISTS},
        lambda model: AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9)),
    ),
    "one at a time": (
        {"_target_": f"{SWA}.get_ema_avg_fn", "decay": 0.8},
        lambda model: AveragedModel(model, avg_fn=get_ema_avg_fn(0.8)),
    ),
    "in lists": (
        {"_target_": f"{SWA}.get_ema_multi_avg_fn", "decay": 0.8},
        lambda model: AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8)),
    ),
    "plain mean": (
        {"_target_": f"{SWA}.get_swa_avg_fn"},
        lambda model: AveragedModel(model, avg_fn=get_swa_avg_fn()),
    ),
    "plain mean, in lists": (
        {"_target_": f"{SWA}.get_swa_multi_avg_fn"},
        lambda model: AveragedModel(model, multi_avg_fn=get_swa_multi_avg_fn()),
    ),
    "another library's": ({"_target_": f"{HERE}.Ema", "decay": 0.7}, lambda model: Ema(model, 0.7)),
    "one that keeps the model": ({"_target_": f"{HERE}.KeepsModel"}, lambda model: KeepsModel(model)),
    "one without a state": ({"_target_": f"{HERE}.NoState"}, lambda model: NoState(model)),
}  # fmt: skip


class Ema(nn.Module):
    """As timm has it: a copy without gradients, a decay that grows with the step, buffers too."""

    def __init__(self, model: nn.Module, decay: float = 0.9) -> None:
        super().__init__()
        self.module = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int | None = None) -> None:
        decay = min(self.decay, 1 - 1 / (step or 1))
        for mean, now in zip(self.module.state_dict().values(), model.state_dict().values(), strict=True):
            mean.copy_(decay * mean + (1 - decay) * now)


class KeepsModel(nn.Module):
    """As ema_pytorch has it: keeps the model as well, and its copy by another name."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.online, self.mean = model, copy.deepcopy(model).requires_grad_(False)

    @property
    def module(self) -> nn.Module:  # for the loop by hand
        return self.mean

    @torch.no_grad()
    def update(self) -> None:
        for mean, now in zip(self.mean.state_dict().values(), self.online.state_dict().values(), strict=True):
            mean.copy_(0.5 * mean + 0.5 * now)


class NoState:
    """As timm's first: no module, and no state of its own."""

    def __init__(self, model: nn.Module) -> None:
        self.ema = copy.deepcopy(model).requires_grad_(False)

    @property
    def module(self) -> nn.Module:
        return self.ema

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        for mean, now in zip(self.ema.state_dict().values(), model.state_dict().values(), strict=True):
            mean.copy_(0.5 * mean + 0.5 * now)


class NoCopy:
    """Takes a model, and keeps nothing of it."""

    def __init__(self, model: nn.Module) -> None:
        self.update = lambda model: None


def normed() -> Any:
    return images(lambda: conv_net().double())


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("make", [classification, normed])
def test_the_librarys_own_loop_gives_the_same(name: str, make: Any) -> None:
    spec, by_hand = SPECS[name]
    task, algorithm = make(), Composed(SGD, average=spec)
    algorithm.setup(task)
    twin, plain = make(), Composed(SGD)
    plain.setup(twin)
    other = by_hand(twin.model)
    for step in range(STEPS):
        algorithm.step(task)
        plain.step(twin)
        if isinstance(other, AveragedModel):
            other.update_parameters(twin.model)
        elif isinstance(other, KeepsModel | NoState):
            other.update(*[twin.model][: isinstance(other, NoState)])
        else:
            other.update(twin.model, step + 1)
    trained = [t.clone() for t in task.model.state_dict().values()]
    algorithm.enter_eval(task)
    for (key, mine), theirs in zip(
        task.model.state_dict().items(), other.module.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, theirs), key
    algorithm.exit_eval(task)
    assert all(map(torch.equal, task.model.state_dict().values(), trained))
    assert all(map(torch.equal, weights(task), weights(twin)))


@pytest.mark.parametrize("name", SPECS)
def test_a_resumed_run_averages_on(name: str) -> None:
    assert_resumes(lambda: Composed(SGD, average=SPECS[name][0]), classification)


def test_what_keeps_no_copy_is_refused() -> None:
    task, algorithm = classification(), Composed(SGD, average={"_target_": f"{HERE}.NoCopy"})
    with pytest.raises(
        UserError, match=r"algorithm.average \(NoCopy\): needs a copy of the model as an attribute, such as"
    ):
        algorithm.setup(task)

"""What waits for the device is seen on a CPU too, and what does not is left alone."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from runner.check.syncs import LAZY, Watch

WAITS: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x.sum()),
    "int": lambda x: int(x.sum()),
    "if": lambda x: 1 if x.sum() > 0 else 0,
    "nonzero": lambda x: x.nonzero(),
    "where with one argument": lambda x: torch.where(x > 0),
    "mask read": lambda x: x[x > 0],
    "mask written with a tensor": lambda x: x.index_put_((x > 0,), torch.ones(2)),
    "masked_select": lambda x: x.masked_select(x > 0),
    "unique": lambda x: x.unique(),
    "equal": lambda x: torch.equal(x, x),
    "allclose": lambda x: torch.allclose(x, x),
    "repeat_interleave": lambda x: torch.repeat_interleave(x, torch.tensor([1, 2, 3])),
    "tolist": lambda x: x.tolist(),
    "numpy": lambda x: x.numpy(),
    "numpy.asarray": np.asarray,
    "cpu": lambda x: x.cpu(),
    'to("cpu")': lambda x: x.to("cpu"),
    "print": lambda x: f"{x[0]}",
    "checked clipping": lambda x: nn.utils.clip_grad_norm_([_parameter(x)], 1.0, error_if_nonfinite=True),
}

GOES_ON: dict[str, Callable[[Tensor], Any]] = {
    "where": lambda x: torch.where(x > 0, x, -x),
    "mask filled": lambda x: x.masked_fill_(x > 0, 0.0),
    "mask written with a number": lambda x: x.__setitem__(x > 0, 0.0),
    "index": lambda x: x[torch.tensor([0, 1])],
    "index_select": lambda x: x.index_select(0, torch.tensor([2])),
    "repeat by a number": lambda x: x.repeat_interleave(2),
    "repeat of known size": lambda x: x.repeat_interleave(torch.tensor([1, 2, 3]), output_size=6),
    "clipping": lambda x: nn.utils.clip_grad_norm_([_parameter(x)], 1.0),
    "sort": lambda x: x.sort(),
    "foreach": lambda x: torch._foreach_mul_([x], x.sum()),
    "iteration": lambda x: [row + 1 for row in x],
    "same device": lambda x: x.to(x.device),
}


def _parameter(x: Tensor) -> nn.Parameter:
    parameter = nn.Parameter(x.clone())
    parameter.grad = x.clone()
    return parameter


def watched(do: Callable[[Tensor], Any], step: int = LAZY) -> dict[int, list[tuple[str, str]]]:
    watch = Watch()
    pieces: Any = SimpleNamespace(task=SimpleNamespace(cost=SimpleNamespace(steps=step)))
    x = torch.tensor([1.0, -1.0, 2.0])
    with watch.step(pieces):
        do(x)
    return watch.waits


@pytest.mark.parametrize("what", WAITS)
def test_a_wait_is_seen_and_placed(what: str) -> None:
    waits = watched(WAITS[what])
    assert list(waits) == [LAZY]
    assert all(where.startswith("tests/runner/test_check_syncs.py:") for _, where in waits[LAZY])


@pytest.mark.parametrize("what", GOES_ON)
def test_what_goes_on_is_left_alone(what: str) -> None:
    assert watched(GOES_ON[what]) == {}


def test_the_first_steps_may_wait() -> None:
    assert watched(WAITS["item"], step=LAZY - 1) == {}


OWN = (torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam, torch.optim.Adagrad)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("kind", OWN, ids=lambda kind: kind.__name__)
def test_torch_may_read_its_own_step_counters(kind: Any, foreach: bool) -> None:
    optimizer = kind([_parameter(torch.ones(3))], lr=0.1, foreach=foreach)
    assert watched(lambda _x: optimizer.step()) == {}


class Peeking(torch.optim.Adam):
    """Reads a gradient's value in the name of torch's optimizer."""

    def step(self, closure: None = None) -> None:
        self.seen = self.param_groups[0]["params"][0].grad.sum().item()
        super().step()


class ReadsCounter(torch.optim.Adam):
    """Reads the step counter itself, which may lie on the device (fused, capturable)."""

    def step(self, closure: None = None) -> None:
        super().step()
        self.seen = next(iter(self.state.values()))["step"].item()


@pytest.mark.parametrize("kind", [Peeking, ReadsCounter])
def test_a_subclass_may_not(kind: Any) -> None:
    optimizer = kind([_parameter(torch.ones(3))], lr=0.1)
    assert list(watched(lambda _x: optimizer.step())) == [LAZY]


def test_torchs_lbfgs_waits_and_is_seen() -> None:
    parameter = _parameter(torch.ones(3))
    optimizer = torch.optim.LBFGS([parameter])

    def closure() -> Tensor:
        parameter.grad = parameter.detach().clone()
        return parameter.square().sum()

    assert list(watched(lambda _x: optimizer.step(closure))) == [LAZY]

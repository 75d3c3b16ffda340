"""What waits for the device is seen on a CPU too, and what does not is left alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from runner.check import Subject
from runner.check.subjects import small_workload
from runner.check.suite import run_check
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
    'to(device="cpu")': lambda x: x.to(device="cpu"),
    'to(torch.device("cpu"))': lambda x: x.to(torch.device("cpu")),
    'to(device=torch.device("cpu"))': lambda x: x.to(device=torch.device("cpu")),
    "copy_ to the host": lambda x: torch.empty(3).copy_(x),
    "copy_ to pageable memory": lambda x: torch.empty(3).copy_(x, non_blocking=True),
    "copy_ to the device": lambda x: x.copy_(torch.ones(3)),
    "a number to the device": lambda x: torch.tensor(0.5, device=x.device),
    "new_tensor": lambda x: x.new_tensor([0.5]),
    "as_tensor": lambda x: torch.as_tensor([0.5], device=x.device),
    "made on the host": lambda x: torch.arange(3).to(x.device),
    "made on the host, not to wait": lambda x: torch.arange(3).to(x.device, non_blocking=True),
    "made on the host, like another": lambda x: (2 * torch.arange(3)).to(x),
    "positions from the host": lambda x: x[torch.tensor([0, 1])],
    "print": lambda x: f"{x[0]}",
    "checked clipping": lambda x: nn.utils.clip_grad_norm_([_parameter(x)], 1.0, error_if_nonfinite=True),
}

GOES_ON: dict[str, Callable[[Tensor], Any]] = {
    "where": lambda x: torch.where(x > 0, x, -x),
    "mask filled": lambda x: x.masked_fill_(x > 0, 0.0),
    "mask written with a number": lambda x: x.__setitem__(x > 0, 0.0),
    "index": lambda x: x[torch.arange(2, device=x.device)],
    "index_select": lambda x: x.index_select(0, torch.arange(2, device=x.device)),
    "repeat by a number": lambda x: x.repeat_interleave(2),
    "repeat of known size": lambda x: x.repeat_interleave(torch.tensor([1, 2, 3]), output_size=6),
    "clipping": lambda x: nn.utils.clip_grad_norm_([_parameter(x)], 1.0),
    "sort": lambda x: x.sort(),
    "foreach": lambda x: torch._foreach_mul_([x], x.sum()),
    "iteration": lambda x: [row + 1 for row in x],
    "same device": lambda x: x.to(x.device),
    "same device, by name": lambda x: x.double().to(device=x.device),
    "another type": lambda x: x.to(torch.float64),
    "a number on the host": lambda x: x * torch.tensor(0.5),
    "host to host": lambda x: torch.empty(3).copy_(torch.ones(3)).to("cpu").tolist(),
    "copy_": lambda x: torch.empty_like(x).copy_(x),
    "pinned": lambda x: torch.empty(3, pin_memory=x.is_cuda).copy_(x, non_blocking=True),
    "from pinned": lambda x: torch.arange(3, pin_memory=x.is_cuda).to(x.device, non_blocking=True),
}


def _parameter(x: Tensor) -> nn.Parameter:
    parameter = nn.Parameter(x.clone())
    parameter.grad = x.clone()
    return parameter


def at(step: int) -> Any:
    return SimpleNamespace(task=SimpleNamespace(cost=SimpleNamespace(steps=step)))


def watched(do: Callable[[Tensor], Any], step: int = LAZY) -> dict[int, list[tuple[str, str]]]:
    watch = Watch()
    x = torch.tensor([1.0, -1.0, 2.0])
    with watch.whole(), watch.step(at(step)):
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


def test_what_is_made_at_set_up_and_copied_in_a_step_is_seen() -> None:
    watch, x = Watch(), torch.ones(3)
    with watch.whole():
        device, scales, seen = x.device, torch.ones(3), torch.empty(3)
        for step in (LAZY, LAZY + 1):
            with watch.step(at(step)):
                (x + scales.to(device)).to(device)
                seen.copy_(x, non_blocking=True)
    kinds = ["a copy to the device", "a copy to memory of the host"]
    assert [[what for what, _ in waits] for waits in watch.waits.values()] == [kinds, kinds]


def test_on_a_gpu_torch_says_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    modes = ["default"]
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    watch = Watch(on_gpu=True)
    with watch.whole(), pytest.warns(UserWarning, match="of its own"):
        for step in (LAZY - 1, LAZY, LAZY + 1):
            with watch.step(at(step)):
                assert modes[-1] == ("default" if step < LAZY else "warn")
                torch.ones(3).sum().item()  # no operation counts, but what torch says
                warnings.warn("a warning of its own", stacklevel=1)
                for _ in range(step - LAZY + 1):
                    warnings.warn("called a synchronizing CUDA operation (function at …)", stacklevel=1)
    assert modes == ["default", "warn", "default", "warn", "default"]
    assert {step: len(waits) for step, waits in watch.waits.items()} == {LAZY: 1, LAZY + 1: 2}
    assert watch.waits[LAZY][0][1].startswith("tests/runner/test_check_syncs.py:")


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


@pytest.mark.parametrize(
    ("kind", "bug", "says"),
    [
        ("transform", "CopiesIn", "a copy to the device by tensor()"),
        ("sampler", "CopiesRowsIn", "a copy to the device"),
        ("transform", "IndexesFromHost", "a copy to the device of positions"),
        ("transform", "ReadsNorm", "a tensor's value"),
        ("transform", "CopiesOut", "a copy to memory of the host"),
    ],
)
def test_the_check_sees_what_a_part_copies(kind: str, bug: str, says: str) -> None:
    plain = {
        "_target_": "runner.parts.composed.Composed",
        "optimizer": {"_target_": "tests.doubles.clean.Momentum"},
    }
    part = {kind: {"_target_": f"tests.doubles.misplaced.{bug}"}}
    result = run_check("syncs", Subject(plain | part, small_workload("breast_cancer")))
    assert result.status == "failed" and f"by {says} at tests/doubles/misplaced.py:" in result.message

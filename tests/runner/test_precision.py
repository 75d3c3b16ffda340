"""Precision and compilation belong to the workload: every copy of its model has them, none pays twice."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from runner.precision import specialise


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.layer(x))


def test_what_one_model_compiled_the_next_one_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    # Warm-up compiles for a throw-away model: compiling again for the real one would be charged.
    counter, plain = CompileCounter(), Net()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    x = torch.randn(5, 4)
    for _ in range(3):
        model = specialise(Net(), compile=True)
        model.load_state_dict(plain.state_dict())
        assert torch.equal(model(x), plain(x)) and torch.equal(copy.deepcopy(model)(x), plain(x))
    assert counter.frame_count == 1


def test_bf16_rounds_inside_and_gives_floats() -> None:
    plain = Net()
    model = specialise(copy.deepcopy(plain), "bf16")
    x = torch.randn(64, 4)
    out = model(x)
    assert out.dtype == torch.float32 and not torch.equal(out, plain(x))
    assert torch.allclose(out, plain(x), atol=0.05)
    assert type(specialise(Net(), "bf16")) is type(model) and type(plain) is Net


def test_an_unknown_precision_is_named() -> None:
    with pytest.raises(ValueError, match="precision must be fp32 or bf16, got 'fp8'"):
        specialise(Net(), "fp8")

"""Our optimizers against public implementations of the same rule, in the one version each was read in."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch

from algorithms.optimizers.diffgrad import DiffGrad
from algorithms.optimizers.lars import Lars
from algorithms.optimizers.lion import Lion
from algorithms.optimizers.prodigy import Prodigy
from runner.contract.instantiate import build_part
from tests.problems import PROBLEMS, Make, Problem, part_config, run_optimizer

LIBRARIES = {"pytorch_optimizer": "4.1.0", "prodigyopt": "1.1.2"}
BETAS = (0.8, 0.95)


class Pair(NamedTuple):
    """One rule twice.

    Attributes:
        ours: parameters -> our optimizer.
        library: the module it is compared with.
        theirs: that module, parameters -> its optimizer.
    """

    ours: Make
    library: str
    theirs: Callable[[ModuleType, Any], Any]


PAIRS = {
    "lion": Pair(
        lambda p: Lion(p, lr=0.02, betas=BETAS, weight_decay=0.1),
        "pytorch_optimizer",
        lambda lib, p: lib.Lion(p, lr=0.02, betas=BETAS, weight_decay=0.1),
    ),
    "diffgrad": Pair(
        lambda p: DiffGrad(p, lr=0.03, betas=BETAS, eps=1e-3),
        "pytorch_optimizer",
        lambda lib, p: lib.DiffGrad(p, lr=0.03, betas=BETAS, eps=1e-3),
    ),
    "lars": Pair(  # without decay: theirs is not in the ratio's denominator
        lambda p: Lars(p, lr=0.5, momentum=0.8, weight_decay=0.0, trust=0.05),
        "pytorch_optimizer",
        lambda lib, p: lib.LARS(p, lr=0.5, momentum=0.8, trust_coefficient=0.05),
    ),
    "prodigy": Pair(
        lambda p: Prodigy(p, d0=0.01, betas=BETAS, weight_decay=0.1),
        "prodigyopt",
        lambda lib, p: lib.Prodigy(p, d0=0.01, betas=BETAS, weight_decay=0.1),
    ),
    "prodigy, all options": Pair(
        lambda p: Prodigy(
            p,
            0.5,
            weight_decay=0.0,
            d0=0.01,
            d_coef=2.0,
            growth=1.5,
            use_bias_correction=True,
            safeguard_warmup=True,
        ),
        "prodigyopt",
        lambda lib, p: lib.Prodigy(
            p, lr=0.5, d0=0.01, d_coef=2.0, growth_rate=1.5, use_bias_correction=True, safeguard_warmup=True
        ),
    ),
}
TORCHS = {
    "sgd": (torch.optim.SGD, {"lr": 0.02, "momentum": 0.8, "weight_decay": 0.05}),
    "nesterov": (torch.optim.SGD, {"lr": 0.02, "momentum": 0.8, "weight_decay": 0.05, "nesterov": True}),
    "adam": (torch.optim.Adam, {"lr": 0.02, "betas": BETAS, "weight_decay": 0.05}),
    "adamw": (torch.optim.AdamW, {"lr": 0.02, "betas": BETAS, "weight_decay": 0.05}),
}


def library(name: str) -> ModuleType:
    """The module, where it is installed in the version that was read; else the test is skipped."""
    module = pytest.importorskip(name)
    version = importlib.metadata.version(name)
    if version != LIBRARIES[name]:
        pytest.skip(f"{name} {LIBRARIES[name]} is the version that was read, {version} is installed")
    return module


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
@pytest.mark.parametrize("name", PAIRS)
def test_makes_the_steps_of_the_library(name: str, problem: Problem) -> None:
    ours, module, theirs = PAIRS[name]
    expected = run_optimizer(lambda p: theirs(library(module), p), 50, problem)
    torch.testing.assert_close(run_optimizer(ours, 50, problem), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
@pytest.mark.parametrize("name", TORCHS)
def test_a_preset_makes_the_steps_of_torch(name: str, problem: Problem) -> None:
    cls, settings = TORCHS[name]
    expected = run_optimizer(lambda p: cls(p, foreach=False, **settings), 50, problem)
    config = part_config("optimizer", name, **settings)
    got = run_optimizer(lambda p: build_part("optimizer", config, p), 50, problem)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)

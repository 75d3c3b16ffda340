"""Quantised distillation: numbers, a literal trajectory, swaps, the teacher."""

from __future__ import annotations

import copy
import functools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from algorithms.averages.ema import EMA
from algorithms.averages.polynomial import Polynomial
from algorithms.objectives.quantized_distillation import QuantizedDistillation, quantise
from algorithms.optimizers.schedule_free_adamw import ScheduleFreeAdamW
from algorithms.samplers.rho_loss import fit
from runner.base.errors import UserError
from runner.contract.batch import Batch
from runner.contract.instantiate import build_part
from runner.parts.composed import Composed
from tests.algorithms.objectives.literal import (
    LR,
    PROBLEMS,
    SGD,
    ZT,
    Y,
    Z,
    entries_of,
    slow_divergence,
    slow_log_softmax,
)
from tests.problems import part_config
from tests.tasks import (
    assert_no_sync,
    assert_resumes,
    classification,
    conv_net,
    follow,
    images,
    train,
)

V = torch.tensor([-0.9, -0.2, 0.1, 0.35, 0.6], dtype=torch.float64)
SHORT = functools.partial(QuantizedDistillation, teach=0.05)


def slow_quantise(w: list[float], bits: int, bucket: int) -> list[float]:
    """Bucket by bucket, weight by weight."""
    found, levels = [], 2**bits
    for start in range(0, len(w), bucket):
        part = w[start : start + bucket]
        low, span = min(part), (max(part) - min(part)) or 1.0
        found += [round((v - low) / span * (levels - 1)) / (levels - 1) * span + low for v in part]
    return found


@pytest.mark.parametrize(("reduction", "expected"), [("batchmean", 0.512716), ("element", 0.431126)])
def test_spec_losses(reduction: str, expected: float) -> None:
    part = QuantizedDistillation(kl_reduction=reduction)
    own = F.cross_entropy(Z, Y, reduction="none")
    assert part.blend(own, ZT, Z, Batch(Z, Y)).mean().item() == pytest.approx(expected, abs=1e-6)


def test_spec_divergence() -> None:
    part = QuantizedDistillation(alpha=1.0, kl_reduction="batchmean")
    distance = part.blend(torch.zeros(3).double(), ZT, Z, Batch(Z, Y)).mean().item() / 4
    assert distance == pytest.approx(0.038852, abs=1e-6)


def test_spec_quantiser() -> None:
    assert quantise(V, 4).tolist() == pytest.approx([-0.9, -0.4, 0.1, 0.1, 0.6])
    assert quantise(V, 16).tolist() == pytest.approx([-0.9, -0.2, 0.1, 0.3, 0.6])


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("bucket", [1, 4, 7, 100])
def test_reference_quantiser(bits: int, bucket: int) -> None:
    w = torch.randn(5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    w[0] = 0.25  # a bucket of one value
    expected = torch.tensor(slow_quantise(w.flatten().tolist(), bits, bucket)).view(5, 6)
    torch.testing.assert_close(quantise(w, 2**bits, bucket), expected.double(), check_dtype=False)
    whole = quantise(w, 2**bits)
    torch.testing.assert_close(whole, quantise(w, 2**bits, 30))
    assert whole.unique().numel() <= 2**bits


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("reduction", ["element", "batchmean"])
def test_reference_trajectory(problem: str, reduction: str) -> None:
    """Keep w, put Q(w) in, take the gradient there, put w back, step."""
    settings: dict[str, Any] = {"bits": 3, "bucket": 4, "kl_reduction": reduction, "teach": 0.05}
    task, twin = PROBLEMS[problem](), PROBLEMS[problem]()
    part = QuantizedDistillation(**settings)
    got = follow(Composed(SGD, objective=lambda: part), task, 50)
    teacher, model = copy.deepcopy(part.teacher.model), twin.model
    params = list(model.parameters())
    for row in got:
        batch = twin.data.next()
        full = [p.detach().clone() for p in params]
        with torch.no_grad():
            for p in params:
                values = slow_quantise(p.flatten().tolist(), 3, 4)
                p.copy_(torch.tensor(values, dtype=p.dtype).view_as(p))
        slopes = torch.autograd.grad(slow_loss(model, teacher, batch, reduction), params)
        with torch.no_grad():
            for p, w, slope in zip(params, full, slopes, strict=True):
                p.copy_(w - LR * slope)
        flat = torch.cat([p.detach().flatten() for p in params])
        torch.testing.assert_close(row, flat, rtol=1e-8, atol=1e-9)


def slow_loss(model: nn.Module, teacher: nn.Module, batch: Batch, reduction: str) -> Tensor:
    entries = entries_of(model(batch.x), batch.y)
    targets = entries_of(teacher(batch.x).detach(), batch.y)
    total = torch.zeros((), dtype=torch.float64)
    for (scores, y), (target, _) in zip(entries, targets, strict=True):
        far = slow_divergence(target, scores, 2.0) / (len(scores) if reduction == "element" else 1)
        total = total + 0.7 * 4 * far - 0.3 * slow_log_softmax(scores)[y]
    return total / len(entries)


def test_the_teacher_is_the_network_trained_at_set_up() -> None:
    task = images(conv_net)
    before = {key: value.clone() for key, value in task.model.state_dict().items()}
    part = SHORT()
    part.setup(task)
    assert all(torch.equal(value, before[key]) for key, value in task.model.state_dict().items())
    twin = images(conv_net).spawn(name="quantized_distillation teacher")
    fit(twin, 5, 1e-3)
    assert not part.teacher.model.training
    for key, value in part.teacher.model.state_dict().items():
        assert torch.equal(value, twin.model.state_dict()[key]), key
    assert (task.cost.drawn, task.cost.forward, task.cost.backward) == (40, 40, 40)


def test_evaluations_see_the_quantised_weights_and_training_the_full_ones() -> None:
    task, algorithm = classification(), Composed(SGD, objective=functools.partial(SHORT, bits=2, bucket=None))
    algorithm.setup(task)
    train(algorithm, task, 3)
    full = [p.detach().clone() for p in task.params]
    algorithm.enter_eval(task)
    algorithm.enter_eval(task)
    for p, w in zip(task.params, full, strict=True):
        assert p.unique().numel() <= 4
        assert torch.equal(p, quantise(w, 4))
    algorithm.exit_eval(task)
    algorithm.exit_eval(task)
    assert all(torch.equal(p, w) for p, w in zip(task.params, full, strict=True))


@pytest.mark.parametrize("average", [functools.partial(EMA, 0.9), Polynomial, None])
@pytest.mark.parametrize("optimizer", [SGD, functools.partial(ScheduleFreeAdamW, lr=0.02)])
def test_whatever_is_evaluated_is_on_the_grid(optimizer: Any, average: Any) -> None:
    objective = functools.partial(SHORT, bits=2, bucket=None)
    task, algorithm = classification(), Composed(optimizer, objective=objective, average=average)
    algorithm.setup(task)
    train(algorithm, task, 30)
    full = [p.detach().clone() for p in task.params]
    algorithm.enter_eval(task)
    assert algorithm.broken_promise(task) is None
    assert all(p.unique().numel() <= 4 for p in task.params)
    kept = average is None and optimizer is SGD
    assert all(torch.equal(p, quantise(w, 4)) for p, w in zip(task.params, full, strict=True)) == kept
    with torch.no_grad():
        task.params[0].copy_(full[0])
    assert algorithm.broken_promise(task) == "objective: 0.weight has 20 values in a bucket, 4 are allowed"
    algorithm.exit_eval(task)
    assert all(torch.equal(p, w) for p, w in zip(task.params, full, strict=True))


def test_steps_do_not_wait_and_resume_and_cost_another_forward_pass() -> None:
    task = images(conv_net)
    algorithm = Composed(SGD, objective=SHORT)
    algorithm.setup(task)
    before = task.cost.state_dict()
    train(algorithm, task, 3)
    spent = {key: value - before[key] for key, value in task.cost.state_dict().items()}
    assert (spent["drawn"], spent["forward"], spent["backward"]) == (24, 48, 24)
    assert_no_sync(Composed(SGD, objective=SHORT), images(conv_net))
    assert_resumes(lambda: Composed(SGD, objective=SHORT), lambda: images(conv_net))


def test_preset_and_bad_values() -> None:
    part = build_part("objective", part_config("objective", "quantized_distillation"))
    assert (part.levels, part.bucket, part.alpha, part.temperature) == (16, 256, 0.7, 2.0)
    assert (part.kl_reduction, part.teach, part.teach_lr) == ("element", 0.3, 1e-3)
    for key, bad in (
        ("bits", 0), ("bits", 2.5), ("bucket", 0), ("alpha", 1.1), ("kl_reduction", "sum"), ("teach", 0.0),
        ("temperature", 0.0), ("teach_lr", math.nan),
    ):  # fmt: skip
        with pytest.raises(UserError, match=rf"{key} must .*, got {bad}"):
            build_part("objective", part_config("objective", "quantized_distillation", **{key: bad}))

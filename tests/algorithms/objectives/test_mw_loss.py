"""MW: numbers, loops over pairs, batches without a pair."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from algorithms.objectives import mw_loss
from algorithms.objectives.mw_loss import MWLoss, log_of_others, pairwise
from runner.base.errors import UserError
from runner.contract.batch import Batch
from runner.contract.instantiate import build_part
from runner.parts.composed import Composed
from tests.algorithms.objectives.literal import SGD, Z, assert_follows
from tests.problems import part_config
from tests.tasks import assert_no_sync, assert_resumes, binary, classification, make_info, make_task

S = torch.tensor([[0.9, 0.1, 0.3], [0.2, 0.8, 0.4], [0.5, 0.0, 0.7]], dtype=torch.float64)


def slow_pairs(scores: list[Tensor], positive: list[bool], temperature: float) -> Tensor | None:
    """Mean over all pairs; None where there is none."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for s, p in zip(scores, positive, strict=True):
        for r, q in zip(scores, positive, strict=True):
            if p and not q:
                total, count = total + torch.log(1 + torch.exp(-(s - r) / temperature)), count + 1
    return total / count if count else None


def slow(model: nn.Module, batch: Batch, temperature: float, score: str, bce_weight: float = 0.0) -> Tensor:
    outputs, y = model(batch.x), batch.y.tolist()
    if outputs.dim() == 1:
        parts = [slow_pairs(list(outputs), [t == 1 for t in y], temperature)]
        bce = sum(torch.log(1 + torch.exp(-(2 * t - 1) * s)) for s, t in zip(outputs, y, strict=True)) / len(
            y
        )
    else:
        parts, bce = [], F.cross_entropy(outputs, batch.y)
        for c in range(outputs.shape[1]):
            rest = [torch.logsumexp(torch.cat([z[:c], z[c + 1 :]]), 0) for z in outputs]
            scores = [z[c] - (r if score == "margin" else 0) for z, r in zip(outputs, rest, strict=True)]
            parts.append(slow_pairs(scores, [t == c for t in y], temperature))
    found = [part for part in parts if part is not None]
    loss = sum(found, torch.zeros(()).double()) / max(1, len(found)) + bce_weight * bce
    return loss if isinstance(loss, Tensor) else torch.tensor(loss)


def test_spec_binary() -> None:
    scores = torch.tensor([[2.0], [0.5], [1.0], [-0.5], [0.0]], dtype=torch.float64)
    positive = torch.tensor([[True], [True], [False], [False], [False]])
    losses, found = pairwise(scores, positive)
    assert found.all()
    assert losses.item() == pytest.approx(0.380083, abs=1e-6)
    auc = (scores[:2] > scores[2:].T).double().mean().item()
    assert auc == pytest.approx(0.833333, abs=1e-6)
    assert losses.item() / math.log(2) == pytest.approx(0.548343, abs=1e-6)
    assert 1 - auc <= losses.item() / math.log(2)


@pytest.mark.parametrize(
    ("temperature", "expected", "info_nce"), [(1, 0.459639, 0.776293), (0.05, 0.001348, 0.006166)]
)
def test_spec_retrieval_pools_the_negatives_of_all_queries(
    temperature: float, expected: float, info_nce: float
) -> None:
    losses, _ = pairwise(S.view(-1, 1) / temperature, torch.eye(3, dtype=torch.bool).view(-1, 1))
    assert losses.item() == pytest.approx(expected, abs=1e-6)
    assert F.cross_entropy(S / temperature, torch.arange(3)).item() == pytest.approx(info_nce, abs=1e-6)


@pytest.mark.parametrize("problem", ["linear", "mlp", "one_logit"])
@pytest.mark.parametrize(("temperature", "score", "bce"), [(1.0, "margin", 0.0), (0.3, "plain", 0.5)])
def test_reference_trajectory(problem: str, temperature: float, score: str, bce: float) -> None:
    arguments: dict[str, Any] = {"temperature": temperature, "score": score, "bce_weight": bce}
    assert_follows(functools.partial(MWLoss, **arguments), functools.partial(slow, **arguments), problem)


def test_blocks_of_rows_give_the_same_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, positive = torch.randn(17, 3, dtype=torch.float64), torch.arange(51).view(17, 3) % 4 == 0
    whole = pairwise(scores, positive)
    monkeypatch.setattr(mw_loss, "PAIRS", 4 * 51)
    torch.testing.assert_close(pairwise(scores, positive), whole)


def test_log_of_others_on_far_apart_logits() -> None:
    expected = [
        [math.log(sum(math.exp(v) for k, v in enumerate(row) if k != c)) for c in range(4)]
        for row in Z.tolist()
    ]
    torch.testing.assert_close(log_of_others(Z), torch.tensor(expected, dtype=torch.float64))
    assert torch.isfinite(log_of_others(torch.tensor([[1e4, -1e4, 0.0]]))).all()


def test_batches_without_a_pair_have_no_gradient_and_are_counted() -> None:
    task = make_task(
        lambda: nn.Linear(5, 3).double(), torch.randn(8, 5).double(), torch.ones(8, dtype=torch.int64)
    )
    algorithm = Composed(SGD, objective=MWLoss)
    algorithm.setup(task)
    before = task.params[0].detach().clone()
    assert [algorithm.step(task).item() for _ in range(3)] == [0.0] * 3
    assert torch.equal(task.params[0], before)
    assert algorithm.report()["objective/skipped"] == 3
    algorithm = Composed(SGD, objective=MWLoss)
    algorithm.setup(classification())
    assert algorithm.report()["objective/skipped"] == 0


def test_bias_of_one_logit_is_not_learned_without_the_cross_entropy() -> None:
    for weight, still in ((0.0, True), (0.1, False)):
        task = binary()
        bias = task.model.linear.bias
        start = bias.item()
        algorithm = Composed(SGD, objective=functools.partial(MWLoss, bce_weight=weight))
        algorithm.setup(task)
        for _ in range(5):
            algorithm.step(task)
        assert (abs(bias.item() - start) < 1e-12) == still


def test_token_rows_are_refused_with_a_reason() -> None:
    assert "tokens" in str(MWLoss().compatible(make_info("lm")))
    assert MWLoss().compatible(make_info("binary")) is None


def test_steps_do_not_wait_and_resume() -> None:
    for build in (binary, classification):
        assert_no_sync(Composed(SGD, objective=MWLoss), build())
        assert_resumes(lambda: Composed(SGD, objective=MWLoss), build)


def test_preset_and_bad_values() -> None:
    part = build_part("objective", part_config("objective", "mw_loss"))
    assert (part.temperature, part.score, part.bce_weight) == (1.0, "margin", 0.0)
    for key, bad in (("temperature", 0.0), ("score", "auc"), ("bce_weight", -1.0), ("bce_weight", math.nan)):
        with pytest.raises(UserError, match=rf"{key} must be .*, got {bad}"):
            build_part("objective", part_config("objective", "mw_loss", **{key: bad}))

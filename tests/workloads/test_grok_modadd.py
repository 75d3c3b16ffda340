"""Arithmetic modulo a prime: every pair in one split alone, right answers, the paper's matrices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from algorithms.transforms.perpgrad import PerpGrad
from runner.base.errors import UserError
from runner.check import WORKLOAD_CHECKS, run_workload_checks
from runner.check.subjects import workload_subjects
from runner.compose import presets
from runner.compose.config import compose
from runner.contract.instantiate import build_part
from workloads.base import TensorWorkload
from workloads.grok_modadd import pairs

CPU = torch.device("cpu")
SMALL = {"modulus": 13, "batch_size": 67, "budget_samples": 67 * 20, "eval_every": 67}
OPERATIONS = {
    "add": lambda a, b, p: (a + b) % p,
    "product": lambda a, b, p: (a * b) % p,
    "subtract": lambda a, b, p: (a - b) % p,
}


def numbers(x: Tensor, modulus: int) -> list[tuple[int, ...]]:
    """The pairs (a, b) that rows stand for; each must have two ones, one in each half, and zeros else."""
    assert bool(((x == 0) | (x == 1)).all()) and bool((x.view(-1, 2, modulus).sum(2) == 1).all())
    return [tuple(pair) for pair in x.view(-1, 2, modulus).argmax(2).tolist()]


def splits(workload: TensorWorkload) -> dict[str, Any]:
    data = workload._data
    assert data is not None
    return {"train": data.train, "validation": data.validation, "test": data.test}


def built(root: Path, **changes: Any) -> TensorWorkload:
    config = {**compose(["workload=grok_modadd"])["workload"], **changes}
    workload: TensorWorkload = build_part("workload", config, prefix="")
    workload.prepare(root)
    return workload


@pytest.mark.parametrize("modulus", [2, 7, 113])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_pair_comes_once_with_its_answer(operation: str, modulus: int) -> None:
    x, y = pairs(operation, modulus)
    assert x.shape == (modulus**2, 2 * modulus) and x.dtype == torch.float32 and y.dtype == torch.int64
    assert numbers(x, modulus) == [(a, b) for a in range(modulus) for b in range(modulus)]
    right = [OPERATIONS[operation](a, b, modulus) for a in range(modulus) for b in range(modulus)]
    assert y.tolist() == right


def test_the_splits_are_the_papers_share_and_two_halves_of_the_rest(make: Any) -> None:
    rows = splits(make("grok_modadd"))
    assert {name: len(split) for name, split in rows.items()} == {
        "train": 5107, "validation": 3831, "test": 3831
    }  # fmt: skip
    seen = [pair for split in rows.values() for pair in numbers(split.x, 113)]
    assert sorted(seen) == [(a, b) for a in range(113) for b in range(113)]
    for split in rows.values():
        assert split.y.tolist() == [(a + b) % 113 for a, b in numbers(split.x, 113)]
        # A random split: no class, and no number on either side, is much more common than another.
        for counts in (torch.bincount(split.y, minlength=113), *split.x.sum(0).long().split(113)):
            share = counts * 113 / len(split)
            assert share.min() > 0.4 and share.max() < 1.7


@pytest.mark.parametrize(("operation", "fraction"), [("product", 0.4), ("subtract", 0.7)])
def test_the_same_pairs_are_for_training_whatever_is_done_with_them(
    tmp_path: Path, operation: str, fraction: float
) -> None:
    made = [
        built(tmp_path, modulus=13, train_fraction=fraction, operation=which, batch_size=8)
        for which in ("add", operation)
    ]
    plain, other = (splits(workload)["train"] for workload in made)
    assert len(plain) == int(fraction * 169) and torch.equal(plain.x, other.x)
    assert other.y.tolist() == [OPERATIONS[operation](a, b, 13) for a, b in numbers(other.x, 13)]


def test_weights_are_the_papers_three_matrices(make: Any) -> None:
    torch.manual_seed(0)
    task, _ = make("grok_modadd").build(0, CPU)
    named = dict(task.model.named_parameters())
    assert [tuple(p.shape) for p in named.values()] == [(200, 226), (200, 200), (113, 200)]
    assert [task.info.param_kind[name] for name in named] == ["hidden", "hidden", "head"]
    first, second, head = (p.detach().double() for p in named.values())
    batch = task.data.next(5)
    for x, logits in zip(batch.x, task.model(batch.x), strict=True):
        a, b = (int(i) for i in x.nonzero())
        hidden = (second @ (first[:, a] + first[:, b]).clamp(min=0)).clamp(min=0)
        assert torch.allclose(logits.double(), head @ hidden, atol=1e-6)


def test_a_step_is_an_epoch(make: Any) -> None:
    task, _ = make("grok_modadd").build(3, CPU)
    for _ in range(2):
        batch = task.data.next()
        assert batch.index.sort().values.tolist() == list(range(5107)) == list(range(task.info.num_train))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"operation": "divide"}, "operation must be one of add, product, subtract, got 'divide'"),
        ({"modulus": 1}, "modulus must be an integer of at least 2, got 1"),
        ({"train_fraction": 1.0}, "train_fraction must be above 0 and below 1, got 1"),
        ({"train_fraction": 0.3}, "workload.batch_size=5107 is more than the 3830 training rows: "
                                  "workload.batch_size=3830 is all of them"),
        ({"modulus": 2, "train_fraction": 0.9}, "train_fraction=0.9 leaves a split of the 4 pairs empty"),
        ({"modulus": 2, "train_fraction": 0.2}, "train_fraction=0.2 leaves a split of the 4 pairs empty"),
    ],
)  # fmt: skip
def test_bad_options_are_refused_in_a_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises((UserError, ValueError)) as caught:
        built(tmp_path, **changes)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_another_problem_has_no_target() -> None:
    assert compose(["workload=grok_modadd"])["workload"]["target"] == 0.95
    other = compose(["workload=grok_modadd", "workload.operation=product"])
    assert other["workload"]["target"] is None and other["workload_label"] == "grok_modadd[operation=product]"


def test_it_needs_no_files_but_is_not_among_the_workloads_of_seconds(tmp_path: Path) -> None:
    built(tmp_path / "nowhere")
    assert not list(tmp_path.iterdir()) and "grok_modadd" not in presets.embedded()


def test_it_conforms() -> None:
    overrides = ["workload=grok_modadd", *(f"workload.{key}={value}" for key, value in SMALL.items())]
    (subject,) = workload_subjects(overrides)
    quick = [name for name in WORKLOAD_CHECKS if name != "process"]  # the slow tests have that one
    failed = [f"{n}: {r.message}" for n, r in run_workload_checks(subject, quick) if r.status == "failed"]
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize(("at_right_angles", "low", "high"), [(True, 0.9, 1.0), (False, 0.0, 0.1)])
def test_it_is_fitted_long_before_the_rule_is_found(
    tmp_path: Path, at_right_angles: bool, low: float, high: float
) -> None:
    """In small: softmax fits and stays at chance, and projected gradients find the rule at once."""
    torch.set_num_threads(1)
    workload = built(tmp_path, modulus=23, train_fraction=0.7, batch_size=370)
    torch.manual_seed(0)
    task, evaluate = workload.build(0, CPU)
    optimizer, project = torch.optim.AdamW(task.params, lr=0.01, weight_decay=0.0, eps=1e-25), PerpGrad()
    for _ in range(150):
        optimizer.zero_grad()
        task.backward(task.data.next())
        if at_right_angles:
            project(task.params, [p.grad for p in task.params if p.grad is not None])
        optimizer.step()
    fitted = task.data.all()
    assert bool((task.model(fitted.x).argmax(1) == fitted.y).all())
    assert low <= evaluate(task.model, "validation")["accuracy"] <= high

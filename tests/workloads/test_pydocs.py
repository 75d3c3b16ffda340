"""The embedded text: the same everywhere for one Python version, and learnable in seconds."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from runner.base.errors import UserError
from runner.compose.config import compose
from runner.contract.instantiate import build_part
from workloads import pydocs
from workloads.text import LanguageModelling

CPU = torch.device("cpu")


def make(**changes: Any) -> LanguageModelling:
    return build_part("workload", compose(["workload=tiny_lm_pydocs"])["workload"] | changes, prefix="")


def test_the_text_is_that_of_help_in_sorted_order(monkeypatch: pytest.MonkeyPatch):
    from pydoc_data import topics

    assert pydocs.text().startswith(topics.topics[min(topics.topics)])
    assert len(pydocs.text()) == pydocs.LENGTH
    expected = pydocs.text_sha256()
    monkeypatch.setattr(topics, "topics", dict(reversed(topics.topics.items())))
    pydocs.text.cache_clear()
    assert pydocs.text_sha256() == expected == hashlib.sha256(pydocs.text().encode()).hexdigest()


def test_another_text_has_another_id(monkeypatch: pytest.MonkeyPatch):
    from pydoc_data import topics

    before = pydocs.data_id()
    config = compose(["workload=tiny_lm_pydocs"])
    assert config["workload"]["data_id"] == before and pydocs.text_sha256().startswith(before)
    first = min(topics.topics)
    monkeypatch.setitem(topics.topics, first, topics.topics[first] + "!")
    pydocs.text.cache_clear()
    try:
        assert pydocs.data_id() != before
        # A cell that was composed with one Python does not run on the text of another.
        with pytest.raises(UserError, match=f"data_id={before} is the text of another Python"):
            build_part("workload", config["workload"], prefix="").prepare(Path())
    finally:
        pydocs.text.cache_clear()


def test_it_needs_no_folder_and_fits_its_info():
    workload = make()
    workload.prepare(Path("/nowhere"))
    torch.manual_seed(0)
    task, evaluate = workload.build(1, CPU)
    assert task.info.num_classes == workload.num_classes < 128
    assert set(evaluate.splits) == {"validation", "test"}
    assert workload.eval_every % workload.batch_size == 0
    assert 20 <= workload.budget_samples / workload.eval_every <= 200


@pytest.mark.parametrize(("width", "ratio"), [(64, 1), (128, 2)])
def test_it_says_how_much_wider_it_is_than_its_settings(width: int, ratio: int):
    workload = make(width=width)
    workload.prepare(Path())
    info = workload.build(0, CPU)[0].info
    hidden = [name for name, kind in info.param_kind.items() if kind == "hidden"]
    assert sorted(info.width) == sorted(hidden) and len(hidden) == 4
    assert all(wide == ratio * base for wide, base in info.width.values())
    assert sum(width in fans for fans in info.width.values()) == 3  # of the fourth, four times as many


def test_a_third_of_the_budget_beats_the_frequencies_of_characters():
    workload = make()
    workload.prepare(Path())
    torch.manual_seed(0)
    task, evaluate = workload.build(1, CPU)
    shares = torch.bincount(task.data.y.flatten(), minlength=workload.num_classes) / task.data.y.numel()
    entropy = -(shares * shares.clamp(min=1e-9).log()).sum().item()
    optimizer = torch.optim.AdamW(task.params, lr=3e-3)
    for _ in range(workload.budget_samples // workload.batch_size // 3):
        optimizer.zero_grad()
        task.backward(task.data.next())
        optimizer.step()
    assert evaluate(task.model, "validation")["loss"] < entropy - 0.5

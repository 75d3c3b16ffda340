"""Configs that earlier versions stored: their ids stand, and what they name is still found."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from runner.cells.cell import identity
from runner.compose.config import compose
from runner.contract.moved import MOVED, as_ever, present
from runner.contract.targets import locate
from runner.provenance import source, trust
from tests.conftest import ROOT

BOARDS = sorted((ROOT / "results" / "leaderboards").glob("*/configs.jsonl.gz"))
# Composed at de5cacc, before any module had moved.
GOLDEN = {
    ("algorithm=adamw", "workload=digits"): "d2cea8e2f6",
    ("algorithm=lion", "workload=breast_cancer", "trial=3"): "7d153d94de",
    ("algorithm=normalized_lr_gd", "workload=least_squares"): "42557f2934",
    ("algorithm=sam", "workload=tiny_lm_pydocs", "study=2"): "34ed1f4bd4",
    ("algorithm=muon", "workload=cifar10_synthetic", "algorithm.optimizer.lr=0.01"): "69947167f1",
    ("algorithm=adamw", "workload=digits", "diagnostics=[norms,directional_sharpness]"): "d2cea8e2f6",
}


def stored(board: Path) -> list[dict[str, Any]]:
    with gzip.open(board, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.mark.parametrize("board", BOARDS, ids=lambda path: path.parent.name)
def test_every_published_cell_keeps_its_id(board: Path) -> None:
    configs = stored(board)
    assert configs and [identity(config) for config in configs] == [config["id"] for config in configs]


@pytest.mark.parametrize("line", GOLDEN, ids=" ".join)
def test_a_cell_composed_today_has_the_id_it_had(line: tuple[str, ...]) -> None:
    assert identity(compose(line)) == GOLDEN[line]


@pytest.mark.parametrize("board", BOARDS, ids=lambda path: path.parent.name)
def test_what_a_stored_config_names_is_found_and_trusted(board: Path) -> None:
    config = stored(board)[0]
    assert any(name in json.dumps(config) for name in MOVED)
    trust.check(config)
    assert all(map(source.is_there, source.targets(config)))


def test_old_and_new_names_are_one() -> None:
    for before, now in MOVED.items():
        assert locate(before) is locate(now)
        assert present(before) == present(now) == now
        assert as_ever({"a": [{"_target_": now}]}) == {"a": [{"_target_": before}]}

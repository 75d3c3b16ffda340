"""On a pretended CUDA device: every preset on every small workload trains, and no step waits unannounced."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runner.train.session import run_cell
from tests.conftest import ROOT
from tests.doubles.pretend_cuda import library
from tests.small_cells import evaluations, submitted

SHARDS = 8
SAMPLE = ("muon", "refined_schedule", "rho_loss")
# kind of part, what is wrong with it on a GPU alone, words of what is said of it
PLANTED = [
    ("transform", "TensorElsewhere", "Expected all tensors to be on the same device"),
    ("transform", "StateElsewhere", "Expected all tensors to be on the same device"),
    ("transform", "GeneratorElsewhere", "Expected a 'cuda' device type for generator but found 'cpu'"),
    ("transform", "DeviceGenerator", "Expected a 'cpu' device type for generator but found 'cuda:0'"),
    ("transform", "CopiesIn", "steps wait, by a copy to the device of ()"),
    ("sampler", "CopiesRowsIn", "steps wait, by a copy to the device of (8,)"),
    ("transform", "IndexesFromHost", "steps wait, by a copy to the device of positions (1,)"),
    ("transform", "ReadsNorm", "steps wait, by a tensor's value"),
    ("transform", "CopiesOut", "steps wait, by a copy to the CPU"),
    ("transform", "Synchronizes", "steps wait, by torch.cuda.synchronize()"),
    ("transform", "RestoresElsewhere", "Expected all tensors to be on the same device"),
]
COUNTING = ("RAdam", "NAdam", "Adamax")  # torch's own that keep counters on the CPU

pytestmark = pytest.mark.skipif(
    library.COMPILER is None, reason="no g++ here: the pretended device's hooks have to be compiled"
)


def swept(*args: str) -> dict[str, str | None]:
    """Title of an algorithm on a workload -> what is wrong, or None."""
    answers = said("sweep", *args)
    assert answers
    return answers


def said(module: str, *args: str) -> Any:
    """What a command says that pretends the device in a process of its own."""
    library.built()
    line = [sys.executable, "-m", f"tests.doubles.pretend_cuda.{module}", *args]
    run = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert run.stdout, run.stderr
    return json.loads(run.stdout)


@functools.cache
def planted() -> dict[str, str | None]:
    doubles = [f"--part={kind}=tests.doubles.misplaced.{bug}" for kind, bug, _ in PLANTED]
    return swept(*doubles, *(f"--part=optimizer=torch.optim.{name}" for name in COUNTING))


@pytest.mark.parametrize(("bug", "says"), [row[1:] for row in PLANTED], ids=[row[1] for row in PLANTED])
def test_a_planted_fault_is_caught(bug: str, says: str) -> None:
    fault = planted()[f"tests.doubles.misplaced.{bug} on digits"]
    assert fault is not None and says in fault and "tests/doubles/misplaced.py:" in fault, fault


@pytest.mark.parametrize("name", COUNTING)
def test_no_step_waits_for_a_counter_resumed_or_not(name: str) -> None:
    assert planted()[f"torch.optim.{name} on digits"] is None


def test_a_sample_of_presets_has_no_fault() -> None:
    assert faults(swept(*SAMPLE, "--workloads", "breast_cancer", "digits")) == {}


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(SHARDS))
def test_no_preset_has_a_fault(shard: int) -> None:
    assert faults(swept(f"--shard={shard}", f"--shards={SHARDS}")) == {}


def test_a_whole_cell_is_trained_resumed_and_agrees_with_the_cpu(tmp_path: Path) -> None:
    short = "workload.budget_samples=1280"
    there = said("cell", str(tmp_path / "there"), short)
    here = submitted(tmp_path / "here", short, "device=cpu")
    assert there["status"] == ["preempted", "done"] and there["resumes"] == 1
    assert there["hardware"]["device"] == "a pretended GPU"
    assert run_cell(here.folder.path)["status"] == "done"
    expected = evaluations(here.folder.path)
    assert len(there["evaluations"]) == len(expected)
    for row, other in zip(there["evaluations"], expected, strict=True):
        assert row == pytest.approx(other, rel=1e-3)


def faults(answers: dict[str, str | None]) -> dict[str, str]:
    return {title: fault for title, fault in answers.items() if fault is not None}

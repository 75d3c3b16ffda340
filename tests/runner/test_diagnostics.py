"""Diagnostics: their numbers, and that they leave no trace in training."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from runner.cells.cell import Cell
from runner.compose.config import compose
from runner.contract.diagnostic import Diagnostic, Diagnostics, Probe
from runner.contract.instantiate import build_part
from runner.diagnostics.norms import Norms, sampled
from runner.train.session import run_cell

SMALL = {
    "digits": "workload.budget_samples=2880", "breast_cancer": "workload.budget_samples=1200",
    "cifar10_synthetic": "workload.budget_samples=1280", "tiny_lm_pydocs": "workload.budget_samples=640",
}  # fmt: skip


class Explodes(Diagnostic):
    """Fails at its second evaluation."""

    def __init__(self) -> None:
        self.calls = 0

    def measure(self, probe: Probe) -> Mapping[str, float | Tensor]:
        self.calls += 1
        if self.calls == 2:
            raise RuntimeError("no more")
        return {"calls": self.calls, "infinite": math.inf}


class Meddles(Diagnostic):
    """Uses up random numbers, and spoils weights, buffers and modes."""

    def measure(self, probe: Probe) -> Mapping[str, float | Tensor]:
        model = probe.task.model
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                tensor.fill_(7)
        model.eval()
        return {"drawn": torch.rand(())}


def trained(tmp_path: Path, workload: str, *overrides: str) -> list[dict[str, Any]]:
    """The evaluations of a small cell, without what no two runs share."""
    cell = Cell.from_overrides([
        f"workload={workload}", SMALL[workload], "algorithm=adamw", "log=none", f"results_dir={tmp_path}",
        "stop_at_target=false", *overrides,
    ])  # fmt: skip
    cell.submit(again=True)
    status = run_cell(cell.folder.path)
    assert status["status"] == "done", status
    rows = [json.loads(line) for line in cell.folder.evals_file.read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith(("clock/", "seconds"))} for row in rows]


def without(rows: list[dict[str, Any]], prefix: str = "diag/") -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if not key.startswith(prefix)} for row in rows]


@pytest.mark.parametrize("workload", SMALL)
def test_training_is_the_same_with_diagnostics_and_without(workload: str, tmp_path: Path) -> None:
    """Bit for bit, also where a diagnostic does its worst; costs included."""
    plain = trained(tmp_path / "a", workload, "diagnostics=null")
    assert not any(key.startswith("diag/") for row in plain for key in row)
    measured = trained(tmp_path / "b", workload)
    assert without(measured) == plain
    meddling = trained(
        tmp_path / "c", workload, "+diagnostics.meddles._target_=tests.runner.test_diagnostics.Meddles"
    )
    assert without(meddling) == plain and all("diag/drawn" in row for row in meddling)


def test_norms_are_what_they_say(tmp_path: Path) -> None:
    rows = trained(tmp_path, "breast_cancer", "algorithm=sgd", "algorithm.optimizer.lr=0.1")
    names = {"diag/grad_norm", "diag/weight_norm", "diag/update_rms"}
    assert names - {"diag/update_rms"} <= rows[0].keys() and "diag/update_rms" not in rows[0]
    assert all(names <= row.keys() for row in rows[1:])
    assert rows[0]["diag/weight_norm"] != rows[-1]["diag/weight_norm"]


def test_norms_by_hand() -> None:
    workload = build_part("workload", compose(["workload=breast_cancer"])["workload"], prefix="")
    workload.prepare(Path("data"))
    task, _ = workload.build(0, torch.device("cpu"))
    probe, norms = Probe(task), Norms()
    first = norms.measure(probe)
    loss = probe.loss()
    loss.backward()
    expected = math.sqrt(
        sum(float(p.grad.double().square().sum()) for p in task.params if p.grad is not None)
    )
    assert float(first["grad_norm"]) == pytest.approx(expected, rel=1e-6) and expected > 0
    with torch.no_grad():
        for p in task.params:
            p += 0.5
    task.cost.steps = 10
    second = norms.measure(probe)
    assert float(second["update_rms"]) == pytest.approx(0.05, rel=1e-6)
    norm = math.sqrt(sum(float(p.detach().double().square().sum()) for p in task.params))
    assert float(second["weight_norm"]) == pytest.approx(norm)
    again = Norms()
    again.load_state_dict(norms.state_dict())
    task.cost.steps = 11
    assert float(again.measure(probe)["update_rms"]) == 0


@pytest.mark.parametrize(
    ("sizes", "limit"), [([5], 10), ([7, 5, 9], 4), ([3, 1, 1, 8], 5), ([4, 4], 1), ([], 3)]
)
def test_a_sample_is_every_kth_of_all_weights(sizes: list[int], limit: int) -> None:
    whole = torch.arange(float(sum(sizes)))
    parts = list(whole.split(sizes)) if sizes else []
    stride = math.ceil(max(1, len(whole)) / limit)
    assert sampled(parts, limit).tolist() == whole[::stride].tolist()


def test_a_diagnostic_that_fails_costs_its_columns_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = trained(
        tmp_path, "digits", "+diagnostics.explodes._target_=tests.runner.test_diagnostics.Explodes"
    )
    assert rows[0]["diag/calls"] == 1 and "diag/infinite" not in rows[0]
    assert not any("diag/calls" in row for row in rows[1:]) and "diag/grad_norm" in rows[-1]
    assert capsys.readouterr().err.count("diagnostic explodes: RuntimeError: no more") == 1


def test_cells_keep_their_ids(tmp_path: Path) -> None:
    ids = {
        Cell.from_overrides(["log=none", *o]).id for o in ([], ["diagnostics=null"], ["diagnostics=[norms]"])
    }
    assert len(ids) == 1


def test_mistakes_are_one_line(command: Callable[..., Any]) -> None:
    for override, message in (
        ("diagnostics=nrms", "did you mean norms?"),
        ("+diagnostics.norms.k=3", "diagnostics.norms"),
    ):
        done = command(override, "log=none")
        assert done.returncode in (1, 2) and message in done.stderr and "Traceback" not in done.stderr


def test_nothing_to_measure() -> None:
    assert Diagnostics().state_dict() == {}

"""The loop benchmark: both sides do the same work. How long it takes is not tested."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from runner.logs import Logger
from scripts.bench_loop import Job, Observer, bare_copy, by_hand, harness, main, paired


@pytest.mark.parametrize("lean", [True, False])
def test_both_sides_end_at_the_same_weights_to_the_bit(lean: bool) -> None:
    job = Job.of(["workload=breast_cancer", "algorithm=adamw"], steps=25)
    task, twin = job.task(seed=0), job.task(seed=0)
    model = bare_copy(task.model)
    by_hand(job, task, model, rows=(twin.data.next().index for _ in range(25)), lean=lean)(25)
    harness(job, task, Observer(Logger()))(25)
    trained = task.model.state_dict()
    assert not torch.equal(trained["linear.weight"], twin.model.state_dict()["linear.weight"])
    for key, value in model.state_dict().items():
        assert torch.equal(trained[key], value), key


def test_the_command_prints_a_table_and_writes_the_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bench.json"
    sizes = ["--pairs", "2", "--repeats", "1", "--steps", "3"]
    args = ["--workload", "breast_cancer,digits", "--against", "lean,usual,itself", "--clock", "cpu"]
    assert main([*sizes, *args, "--json", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 6 and len({line.count("|") for line in table}) == 1
    assert "2 pairs of 2 segments of 3 steps" in lines[-1] and "torch" in lines[-1]
    results = json.loads(file.read_text())["results"]
    assert [(r["workload"], r["against"]) for r in results][:3] == [
        ("breast_cancer", "lean"), ("breast_cancer", "usual"), ("breast_cancer", "itself")
    ]  # fmt: skip
    for r in results:
        assert r["hand"] > 0 and r["harness"] > 0 and r["upper"] >= r["difference"]
        assert r["difference"] == pytest.approx(r["harness"] - r["hand"])


def test_wandb_runs_beside_the_loop_and_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    sizes = ["--pairs", "2", "--repeats", "1", "--steps", "3"]
    file = tmp_path / "bench.json"
    assert main([*sizes, "--log", "none,wandb", "--json", str(file)]) == 0
    assert [r["log"] for r in json.loads(file.read_text())["results"]] == ["none", "wandb"]
    assert "warning: log" not in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]


def test_the_upper_limit_is_students() -> None:
    # mean 2, standard deviation 1, n = 3: t(0.95; 2) = 2.91999
    assert paired([11, 12, 13], [10, 10, 10]) == pytest.approx((2, 2, 2 + 2.91999 / 3**0.5), abs=1e-4)


def test_an_unknown_workload_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--workload", "digit", "--pairs", "2"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    with pytest.raises(SystemExit):
        main(["--against", "nothing"])

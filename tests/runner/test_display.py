"""The lines that a run ends with: what came out, where it is, what to type next, on 80 columns."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from runner.__main__ import main
from runner.launch.display import Display, about, curve, outcome
from runner.launch.scheduler import Job
from tests.experiments import Said, call, write_cell
from tests.runner.test_commands import pasted

Capture = pytest.CaptureFixture[str]
SMALL = ("workload=digits", "workload.budget_samples=1280", "log=none", "hydra/launcher=inline")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without a project in it, on a terminal of 80 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


def ran(capsys: Capture, *words: str) -> Said:
    return call(main, capsys, *words, *SMALL)


def test_one_cell(capsys: Capture) -> None:
    said = ran(capsys, "algorithm=sgd", "workload.target=0.05")
    outcome_, best, folder, then = said.err.splitlines()[-4:]
    assert re.search(r": hit accuracy ≥ 0.05 at [\d,]+ samples, [\d.]+ s$", outcome_)
    assert re.match(r"  best validation accuracy 0\.\d+, [▁▂▃▄▅▆▇█]+$", best)
    assert (Path(folder.strip()) / "evals.jsonl").is_file()
    assert then == "next: python -m runner.report results/default"
    assert max(map(len, (best, then))) <= 80
    assert pasted(then.removeprefix("next: "), capsys).code == 0

    again = ran(capsys, "algorithm=sgd", "workload.target=0.05")
    assert again.err.splitlines() == [f"{outcome_} (before)", best, folder, then]


def test_a_grid_names_its_next_command_once(capsys: Capture) -> None:
    said = ran(capsys, "-m", "algorithm=sgd,adamw", "workload.target=0.05", "name=ours")
    assert said.err.splitlines()[-2:] == ["2 cells: 2 done", "next: python -m runner.score results/ours"]
    assert pasted("python -m runner.score results/ours", capsys).code == 0


def test_a_failure_says_why_where_and_what_then(capsys: Capture) -> None:
    target = "algorithm.optimizer._target_=tests.doubles.faults.Raises"
    said = ran(capsys, "-m", "algorithm=sgd", target, "study=0,1")
    assert said.code == 1
    *_, first, log, _, _, then = said.err.splitlines()
    assert "failed: " in first and Path(log.strip()).read_text(encoding="utf-8")
    assert then == "run them again: python -m runner.retry results/default"


@pytest.mark.parametrize("failed", [False, True])
def test_cells_whose_folders_go_point_nowhere(tmp_path: Path, capsys: Capture, failed: bool) -> None:
    cell = write_cell(tmp_path / "exp")
    display = Display(stays=False)
    ended = {"status": "failed", "error": "why"} if failed else cell.status()
    display.ended(Job(cell.path, title="digits"), ended)
    display.interrupted()
    assert display.summary() == int(failed)
    said = capsys.readouterr().err
    assert str(tmp_path) not in said and "python -m" not in said and "stopped; nothing was saved" in said
    assert ("digits: failed: why" in said) == failed


def test_a_best_value_of_zero_is_one(tmp_path: Path) -> None:
    cell = write_cell(tmp_path, metric="loss", minimize=True)
    lines = [json.dumps({"validation/loss": value}) + "\n" for value in (2.0, 0.0, None)]
    cell.evals_file.write_text("".join(lines), encoding="utf-8")
    best, _ = about(cell.path)
    assert best == "best validation loss 0, █▁ "


@pytest.mark.parametrize(
    ("values", "drawn"),
    [([], ""), ([1.0], "▁"), ([3.0, 3.0], "▁▁"), ([0.0, float("nan"), 1.0], "▁ █"),
     ([float("inf"), 0.0, 7.0], " ▁█")],
)  # fmt: skip
def test_a_curve_in_characters(values: list[float], drawn: str) -> None:
    assert curve(values) == drawn
    assert len(curve([float(place) for place in range(1000)])) == 40


def test_outcomes() -> None:
    spent = {"samples": 1280.0, "seconds": 1.25, "metric": "loss", "minimize": True, "target": 0.5}
    assert outcome({"status": "failed", "error": "why"}) == "failed: why"
    assert outcome({"status": "diverged", "summary": spent}) == "diverged after 1,280 samples, 1.2 s"
    missed = {**spent, "hit": False, "rows_past_budget": 3}
    said = outcome({"status": "done", "summary": missed})
    assert (
        said == "missed loss ≤ 0.5 in 1,280 samples, 1.2 s; 3 rows beyond the budget, where hits do not count"
    )
    assert "--stopped" in outcome({"status": "stopped", "reason": "callback"})

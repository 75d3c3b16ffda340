"""A target from a search and from known hyperparameters, as a user sets one."""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.cells.tables import load

ROOT = Path(__file__).parents[2]
SHORT = ["workload=breast_cancer", "workload.budget_samples=1920", "warmup_steps=0"]


def make_targets(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    targets = tmp_path / "targets.yaml"
    if not targets.exists():
        targets.write_text("# Targets of a test\nversion: v1\nvalues:\n  other: {target: 1.0}\n")
    line = [sys.executable, "scripts/make_targets.py", *SHORT, *arguments]
    line += ["--targets", str(targets), "--results-dir", str(tmp_path)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300)


def entry(tmp_path: Path) -> dict[str, Any]:
    text = (tmp_path / "targets.yaml").read_text()
    assert text.startswith("# Targets of a test\n")
    values = yaml.safe_load(text)["values"]
    assert values["other"] == {"target": 1.0}
    return values["breast_cancer"]


def best_by_study(tmp_path: Path) -> dict[tuple[str, int, int], float]:
    _, evals = load(tmp_path / "targets")
    return evals.groupby(["label", "study", "trial"])["validation/loss"].min().to_dict()


@pytest.mark.slow
def test_the_best_trial_of_all_is_rerun_and_its_median_taken(tmp_path: Path):
    search = ["--algorithms", "adamw,sgd", "--trials", "2", "--seeds", "3"]
    done = make_targets(tmp_path, *search)
    assert done.returncode == 0, done.stderr
    best = best_by_study(tmp_path)
    tried = {key: value for key, value in best.items() if key[1] == 100}
    reruns = sorted(value for key, value in best.items() if key[1] > 100)
    assert len(tried) == 4 and len(reruns) == 3
    made = entry(tmp_path)
    assert made["target"] == math.ceil(statistics.median(reruns) * 1e4) / 1e4
    assert made["n"] == 3 and made["metric"] == "loss" and made["budget_samples"] == 1920
    (winner,) = made["algorithms"]
    assert winner.startswith(min(tried, key=lambda key: tried[key])[0])
    assert made["best_values"][winner] == [pytest.approx(value, abs=1e-5) for value in reruns]
    assert [math.isfinite(s) for s in made["samples_to_target"][winner]] == [
        v <= made["target"] for v in reruns
    ]
    # Three quarters of the budget, with the schedule that belongs to them.
    assert int(load(tmp_path / "targets")[0]["drawn"].max()) == 1440
    assert made["command"] == f"python scripts/make_targets.py {' '.join([*SHORT, *search])}"
    assert "\n  target: " in done.stdout and "command: python scripts/make_targets.py" in done.stdout
    # The same again trains nothing.
    again = make_targets(tmp_path, *search)
    assert again.returncode == 0 and entry(tmp_path)["target"] == made["target"]
    assert again.stderr.count("(before)") == 7


@pytest.mark.slow
def test_known_hyperparameters_and_what_every_run_reaches(tmp_path: Path):
    tuned = ["--tuned", "adamw algorithm.optimizer.lr=0.1", "sgd", "--seeds", "2", "--take", "all"]
    done = make_targets(tmp_path, *tuned, "--share", "1", "--digits", "2")
    assert done.returncode == 0, done.stderr
    best = best_by_study(tmp_path)
    assert {key[0] for key in best} == {"adamw[lr=0.1]", "sgd"} and len(best) == 4
    made = entry(tmp_path)
    assert made["target"] == math.ceil(max(best.values()) * 100) / 100
    assert all(math.isfinite(s) for runs in made["samples_to_target"].values() for s in runs)


def test_bad_input_is_one_line(tmp_path: Path):
    done = make_targets(tmp_path, "--tuned", "adamv")
    assert done.returncode == 2 and "error: unknown algorithm 'adamv'" in done.stderr
    assert "Traceback" not in done.stderr and "breast_cancer" not in (tmp_path / "targets.yaml").read_text()

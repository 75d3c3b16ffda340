"""What a cell is said to need: its workload's figures, its parts' time factors, and what cells have taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.base.files import write_json, write_text
from runner.compose.config import compose
from runner.compose.resources import Recorded, Resources, estimate, recorded_minutes


def test_a_workload_says_what_a_cell_needs_and_sam_takes_twice_as_long() -> None:
    plain, sam = (estimate(compose([f"algorithm={name}"]), {}) for name in ("adamw", "sam"))
    assert plain == Resources(minutes=0.5, memory_gb=2, cores=1, gpus=0)
    assert sam == plain._replace(minutes=2 * plain.minutes)


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (["threads=3"], {"cores": 3}),
        (["threads=3", "workload.resources.cores=5"], {"cores": 5}),
        (["device=cuda"], {"gpus": 1}),
        (["device=cuda", "workload.resources.gpus=0"], {"gpus": 0}),
        (["device=cpu", "workload.resources.gpus=0"], {"gpus": 0}),
        (["workload.resources.minutes=8", "workload.resources.memory_gb=3"], {"minutes": 8, "memory_gb": 3}),
        (["workload.budget_samples=12000"], {"minutes": 0.125}),  # a quarter of the budget
        (["ruleset=self_tuning"], {"minutes": 0.75}),
    ],
)  # fmt: skip
def test_needs_follow_threads_device_and_budget(overrides: list[str], wanted: dict[str, float]) -> None:
    found = estimate(compose(overrides), {})._asdict()
    assert {key: found[key] for key in wanted} == wanted


def test_recorded_cells_come_before_files() -> None:
    adamw, sam = compose(["algorithm=adamw"]), compose(["algorithm=sam"])
    recorded = {("digits", "adamw"): Recorded(30, 1), ("mnist", "sam"): Recorded(9999, 2)}
    assert estimate(adamw, recorded).minutes == 0.5
    assert estimate(sam, recorded).minutes == 1.0  # AdamW's, by SAM's factor
    assert estimate(sam, recorded | {("digits", "sam"): Recorded(42, 2)}).minutes == 0.7
    assert estimate(adamw, {("digits", "sam"): Recorded(42, 2)}).minutes == pytest.approx(0.35)


def record(experiment: Path, name: str, label: str, seconds: float, status: str = "done") -> Path:
    """A cell's folder, as far as resources are read from it."""
    folder = experiment / "cells" / name
    folder.mkdir(parents=True)
    write_json(folder / "status.json", {"status": status, "summary": {"wall_seconds": seconds}})
    write_json(folder / "cell.json", {"workload_label": "digits", "label": label})
    write_text(folder / "config.yaml", "resources: {time_factor: 2}\n")
    return folder


def test_the_median_of_an_experiments_finished_cells_is_read(tmp_path: Path) -> None:
    for trial, seconds in enumerate([10, 20, 90]):
        record(tmp_path, f"digits.sam.s0.t{trial}.x", "sam", seconds, "diverged" if trial == 2 else "done")
    record(tmp_path, "digits.sam.s0.t3.x", "sam", 1, "failed")
    (record(tmp_path, "digits.lion.s0.t0.x", "lion", 5) / "config.yaml").unlink()
    (record(tmp_path, "digits.lion.s0.t1.x", "lion", 7) / "status.json").write_text('{"status": "do')
    (record(tmp_path, "digits.lion.s0.t2.x", "lion", 9) / "cell.json").write_text("")
    assert recorded_minutes(tmp_path) == {("digits", "sam"): (20, 2), ("digits", "lion"): (5, 1)}
    assert recorded_minutes(tmp_path / "nowhere") == {}

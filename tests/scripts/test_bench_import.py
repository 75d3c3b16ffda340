"""The benchmark of importing, scoring and reporting: its copies of logs are logs."""

from __future__ import annotations

import json
from pathlib import Path

from runner.import_logs import load
from runner.importing.notices import Notices
from scripts import bench_import


def test_copies_of_logs_are_other_submissions_with_other_times_and_points(tmp_path: Path) -> None:
    bench_import.tree(tmp_path / "logs", trials=10, evaluations=6)
    assert bench_import.copies(tmp_path / "logs", tmp_path / "more", trials=15) == 20
    cells, evals = load(tmp_path / "more", Notices())
    assert len(cells) == 20 and len(evals) == 120 and sorted(set(cells["label"])) == [
        "submission_0_0", "submission_0_1"
    ]  # fmt: skip
    assert cells["seconds"].nunique() == 20
    points = [json.loads(path.read_text()) for path in (tmp_path / "more").rglob("hparams.json")]
    assert len({point["learning_rate"] for point in points}) == 20

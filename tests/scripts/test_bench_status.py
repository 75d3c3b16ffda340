from __future__ import annotations

import pytest

from scripts.bench_status import main


def test_a_table_of_what_a_large_experiment_costs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cells", "100", "--repeats", "1"]) == 0
    out = capsys.readouterr().out
    rows = [line for line in out.splitlines() if line.startswith("| ")]
    assert len(rows) == 4 and "`python -m runner.status`, 100 cells | 1 |" in rows[1]
    assert "commit" in out

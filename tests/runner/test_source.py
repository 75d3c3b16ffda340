"""The source hash: what a cell's numbers depend on, and nothing else."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from runner.compose.config import compose
from runner.provenance.source import changed_modules, combined, source_hashes


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in sys.modules if name.split(".")[0] == "mine"]:
        del sys.modules[name]
    root = tmp_path / "mine"
    root.mkdir()
    (root / "__init__.py").write_text("")
    (root / "method.py").write_text('"""A method."""\nfrom mine import helper\n\nRATE = helper.rate()\n')
    (root / "helper.py").write_text("def rate():\n    return 0.1\n")
    (root / "unrelated.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return root


def hashes(_package: Path) -> dict[str, str]:
    return source_hashes({"algorithm": {"optimizer": {"_target_": "mine.method.Method"}}})


def rewrite(path: Path, text: str) -> None:
    before = path.stat().st_mtime_ns
    path.write_text(text)
    os.utime(path, ns=(before + 10**9, before + 10**9))


def test_what_is_imported_counts_and_what_is_not_does_not(package: Path) -> None:
    found = hashes(package)
    assert {"mine.method", "mine.helper", "runner.train.loop", "runner.train.clock"} <= set(found)
    assert "mine.unrelated" not in found
    assert not any(name.startswith(("torch", "json", "hydra")) for name in found)


def test_comments_docstrings_and_layout_do_not_count(package: Path) -> None:
    before = combined(hashes(package))
    rewrite(
        package / "method.py",
        '"""Another text."""\n\n# why\nfrom mine import helper\nRATE = (\n    helper.rate()\n)\n',
    )
    assert combined(hashes(package)) == before


def test_a_change_two_imports_away_counts(package: Path) -> None:
    before = hashes(package)
    rewrite(package / "helper.py", "def rate():\n    return 0.2\n")
    after = hashes(package)
    assert combined(after) != combined(before)
    assert list(changed_modules(before, after)) == ["mine.helper"]


def test_launching_scoring_and_showing_are_no_part_of_a_result() -> None:
    found = source_hashes(compose([]))
    outside = {
        "runner.score",
        "runner.cells.tables",
        "runner.launch.display",
        "runner.launch.grid",
        "runner.compose.config",
        "runner.__main__",
    }
    assert not outside & set(found)
    assert {"algorithms.schedules.cosine", "workloads.embedded", "runner.parts.composed"} <= set(found)
    other = source_hashes(compose(["algorithm.schedule._target_=algorithms.schedules.linear.Linear"]))
    assert "algorithms.schedules.linear" in other and "algorithms.schedules.cosine" not in other

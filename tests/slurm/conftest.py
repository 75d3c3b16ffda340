"""Tests of this folder need a cluster, and say so where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.slurm.cluster import Experiment, no_cluster


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = [item for item in items if item.path.parent == Path(__file__).parent]
    reason = no_cluster() if here else None
    for item in here:
        item.add_marker("slurm")
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    # The locks of a lost node need not be waited for a minute and a half.
    monkeypatch.setenv("RUNNER_BEAT", "1")
    return Experiment(tmp_path)

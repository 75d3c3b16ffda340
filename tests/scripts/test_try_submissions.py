"""The table of submissions: which train and resume, and why one does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from scripts.try_submissions import main
from tests.conftest import ROOT


def test_a_folder_is_tried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("good", "twin"):
        (tmp_path / name).mkdir()
        shutil.copy(ROOT / "algorithms/algoperf/example.py", tmp_path / name / "submission.py")
    for name, text in {"bad": "import torch\n", "jax": "import jax\n"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "submission.py").write_text(text)
    table = tmp_path / "table.md"
    options = ["--steps", "12", "--workloads", "breast_cancer", "--resume", "--markdown", str(table)]
    assert main([str(tmp_path), *options]) == 1
    assert "1 of 2 PyTorch submissions train" in capsys.readouterr().out
    bad, good = table.read_text().splitlines()[2:]
    assert good == "| good | yes | yes |"
    assert bad.startswith("| bad | no (breast_cancer): ") and "defines no init_optimizer_state" in bad

"""Locales that are not UTF-8: files are UTF-8 all the same, and what a terminal lacks is replaced."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner import UserError
from runner.compose.config import compose
from tests.conftest import ROOT

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # any machine has this one
EXPERIMENT = """\
# @package _global_
# größer ≥ kleiner
name: locales
label: größe 李明
log: null
workload: {target: 0.4, budget_samples: 2000}
"""


def ascii_command(*line: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **ASCII}
    return subprocess.run(
        [sys.executable, "-m", *line], cwd=cwd, env=environment, capture_output=True, encoding="utf-8",
        timeout=300,
    )  # fmt: skip


def test_a_run_and_its_board_in_an_ascii_locale(tmp_path: Path) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "words.yaml").write_text(EXPERIMENT, encoding="utf-8")
    done = ascii_command(
        "runner", "--config-dir", str(tmp_path / "conf"), "-m", "+experiment=words", "workload=breast_cancer",
        "study=0,1", f"results_dir={tmp_path}", "then=score",
    )  # fmt: skip
    assert "2 cells: 2 done" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.isascii() and "gr??e ??" in done.stderr
    (config, _) = sorted((tmp_path / "locales" / "cells").glob("*/config.yaml"))
    assert "größe 李明" in config.read_text(encoding="utf-8")
    shown = ascii_command("runner.report", str(tmp_path / "locales"))
    assert shown.returncode == 0, shown.stderr
    assert "größe 李明" in (tmp_path / "locales" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("line", [("runner", "--help"), ("runner.methods",), ("runner.methods", "lion")])
def test_texts_with_signs_that_the_terminal_lacks(line: tuple[str, ...]) -> None:
    done = ascii_command(*line)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii() and "?" in done.stdout


def test_text_that_is_none_in_the_locale_is_one_line() -> None:
    with pytest.raises(UserError, match=r"label='\?\?'.*LC_ALL"):
        compose(["workload=digits", "label='\udcc3\udcbc'"])


def test_no_file_is_read_or_written_in_the_encoding_of_the_locale() -> None:
    assert list(unspecified()) == []


def unspecified() -> Iterator[str]:
    """Calls that take the locale's encoding: ruff's PLW1514 sees those whose type it can infer."""
    for folder in ("runner", "workloads", "algorithms", "hydra_plugins", "scripts"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_bytes())):
                if isinstance(node, ast.Call) and takes_the_locale(node):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}"


def takes_the_locale(call: ast.Call) -> bool:
    names = {keyword.arg for keyword in call.keywords}
    if "encoding" in names:
        return False
    method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    if method == "read_text":
        return not call.args
    if method == "write_text":
        return len(call.args) < 2
    return bool(names & {"text", "universal_newlines"}) and method in ("run", "Popen", "check_output")

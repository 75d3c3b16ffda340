"""Every command ends alike: help that nobody reads, Ctrl-C, bad input, an unknown option."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.ttt import COMMANDS
from tests.conftest import ROOT
from tests.doubles.interrupt import INTERRUPT

TTT = "from runner.ttt import main; main()"
MODULES = [*COMMANDS.values(), "runner.import_algoperf"]
BAD = {
    "runner": ["algorithm=lionn"],
    "runner.check": ["algorithm=lionn"], "runner.compare": ["nowhere", "a", "b"],
    "runner.methods": ["lionn"], "runner.doctor": ["--results-dir"], "runner.new": ["algorithm", "Not-Snake"],
    "runner.import_logs": ["nowhere", "out"], "runner.import_algoperf": ["nowhere", "out"],
}  # fmt: skip


@pytest.fixture(scope="module")
def ttt(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The console script, as pip writes it."""
    script = tmp_path_factory.mktemp("bin") / "ttt"
    script.write_text(TTT)
    return str(script)


def line_of(module: str, ttt: str) -> list[str]:
    return [sys.executable, ttt] if module == "ttt" else [sys.executable, "-m", module]


def environment(*folders: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*folders, ROOT]))}


@pytest.mark.parametrize("module", [*MODULES, "ttt"])
def test_help_that_nobody_reads(module: str, ttt: str) -> None:
    words = " ".join([*line_of(module, ttt), "--help | true"])
    shell = ["bash", "-o", "pipefail", "-c", words]
    done = subprocess.run(shell, env=environment(), capture_output=True, text=True, timeout=120)
    expected = "runner.import_algoperf is now runner.import_logs\n" if module.endswith("algoperf") else ""
    assert (done.returncode, done.stderr) == (0, expected)


@pytest.mark.parametrize("module", [*MODULES, "ttt"])
def test_ctrl_c(module: str, ttt: str, tmp_path: Path) -> None:
    """While modules are imported, which is most of what a short command does."""
    (tmp_path / "sitecustomize.py").write_text(INTERRUPT.format(module="runner.base.errors"))
    line = [*line_of(module, ttt), "--help" if module != "ttt" else "scroe"]
    done = subprocess.run(line, env=environment(tmp_path), capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def main_of(module: str) -> Callable[[list[str]], int]:
    name = module if module.count(".") and not is_package(module) else f"{module}.__main__"
    return importlib.import_module(name).main


def is_package(module: str) -> bool:
    return hasattr(importlib.import_module(module), "__path__")


@pytest.mark.parametrize("module", MODULES)
def test_bad_input_is_one_line_and_2(
    module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [module])
    code = ended(main_of(module), BAD.get(module, ["nowhere"]))
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert "error: " in err.splitlines()[-1] and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", MODULES)
def test_an_unknown_option_is_2(
    module: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [module])
    assert ended(main_of(module), ["--nonsense"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "error: " in err.splitlines()[-1]


def ended(main: Callable[[list[str]], int], words: list[str]) -> int | str | None:
    try:
        return main(words)
    except SystemExit as end:
        return end.code

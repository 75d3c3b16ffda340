"""The example of docs/adding_a_workload.md, taken from the page as it stands: it conforms and trains."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.check import WORKLOAD_CHECKS
from runner.check.__main__ import main
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "adding_a_workload.md").read_text()


def block(kind: str, file: str) -> str:
    """The code block of that kind that begins with a comment naming the file."""
    found = re.search(rf"```{kind}\n# {re.escape(file)}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None, f"no {kind} block for {file}"
    return found[1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's two files, outside the project: the class in a module of its own."""
    yaml = block("yaml", "conf/workload/wine.yaml")
    (tmp_path / "wine_of_the_page.py").write_text(block("python", "workloads/wine.py"))
    (tmp_path / "conf" / "workload").mkdir(parents=True)
    (tmp_path / "conf" / "workload" / "wine.yaml").write_text(
        yaml.replace("workloads.wine.Wine", "wine_of_the_page.Wine")
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "conf"
    sys.modules.pop("wine_of_the_page", None)


def test_the_example_conforms(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ",".join(name for name in WORKLOAD_CHECKS if name != "process")
    code = main(["workload=wine", "--only", names, "--config-dir", str(folder)])
    out, err = capsys.readouterr()
    assert (code, err) == (0, ""), out
    assert out.splitlines()[-1] == "10 ok, 0 failed, 0 not applicable"


def test_the_example_learns(folder: Path) -> None:
    code = main(["algorithm=adamw", "workload=wine", "--only", "learns,repeat", "--config-dir", str(folder)])
    assert code == 0


def test_the_example_is_tidy(folder: Path) -> None:
    file = folder.parent / "wine_of_the_page.py"
    for check in (
        ("check", "--config", str(ROOT / "pyproject.toml")),
        ("format", "--check", "--line-length", "110"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *check, str(file)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_names_every_check() -> None:
    section = PAGE.partition("checks in a workload")[2]
    rows = re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE)
    assert re.findall(r"`(\w+)`", " ".join(rows)) == list(WORKLOAD_CHECKS)


def test_the_page_has_the_options_that_there_are() -> None:
    section = PAGE.partition("## Options every workload has")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?`) \| (.*?) \|", section, re.MULTILINE)
    named = {key for keys, _ in rows for key in re.findall(r"`([\w.]+)`", keys)}
    text = (ROOT / "conf" / "workload" / "_options.yaml").read_text()
    keys = re.findall(r"^(\w+):", text, re.MULTILINE)
    assert {key.partition(".")[0] for key in named} == set(keys)

"""The wheel, in a fresh environment and an empty folder: commands work, and so does one's own package."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import venv
from pathlib import Path

import omegaconf
import pytest

from runner import __version__
from tests.conftest import ROOT

pytestmark = pytest.mark.slow
PAGE = ROOT / "docs" / "your_own_package.md"


class Installed:
    """An environment that holds the wheel; libraries are those of the environment that runs the test."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder, self.home = folder / "empty", folder / "venv"
        self.folder.mkdir()
        venv.create(self.home, with_pip=True)
        self.run("python", "-m", "pip", "install", "-q", "--no-deps", str(wheel))
        (site,) = self.home.glob("lib/python*/site-packages")
        (site / "zz_libraries.pth").write_text(str(Path(omegaconf.__file__).parent.parent))  # behind its own

    def run(self, command: str, *words: str, code: int = 0, **variables: str) -> str:
        """What a command prints in the empty folder."""
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        done = subprocess.run(
            [str(self.home / "bin" / command), *words], cwd=self.folder, capture_output=True, text=True,
            env={**environment, "OMP_NUM_THREADS": "1", "XDG_CONFIG_HOME": str(self.home), **variables},
            timeout=600,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Installed(folder, next(folder.glob("*.whl")))


def test_it_is_the_wheel_and_not_the_checkout(installed: Installed) -> None:
    where = installed.run(
        "python", "-c", "import runner, workloads; print(runner.__file__, workloads.__path__)"
    )
    assert str(ROOT) not in where and str(installed.home) in where
    assert installed.run("ttt", "--version") == f"time-to-target {__version__}\n"
    assert installed.run("python", "-m", "runner", "--version") == f"time-to-target {__version__}\n"


def test_a_cell_trains_and_is_reported_from_an_empty_folder(installed: Installed) -> None:
    line = ["algorithm=lion", "workload=breast_cancer", "log=none", "name=first"]
    assert "best validation loss" in installed.run("ttt", "run", *line)
    (manifest,) = (installed.folder / "results/first/cells").glob("*/manifest.json")
    facts = json.loads(manifest.read_text())
    sources = {"runner.contract.task", "algorithms.optimizers.lion", "workloads.embedded"}
    assert sources <= set(facts["sources"])
    assert facts["git"] == {"version": __version__}
    assert "nothing to run" in installed.run("python", "-m", "runner", *line, "dry_run=true")
    installed.run("python", "-m", "runner.report", "results/first")
    assert (installed.folder / "results/first/report.html").stat().st_size > 10_000


def test_checks_and_cards_work(installed: Installed) -> None:
    said = installed.run("python", "-m", "runner.check", "algorithm=lion", "workload=breast_cancer")
    assert re.search(r"[1-9]\d* ok, 0 failed", said)
    assert "Symbolic Discovery" in installed.run("python", "-m", "runner.methods", "lion")
    assert "is not a command; did you mean score, " in installed.run("ttt", "scroe", code=2)


def test_a_file_of_another_package_beside_it_is_not_taken_for_ours(installed: Installed) -> None:
    """In site-packages every library is a neighbour."""
    code = "import torch, pathlib, runner.base.paths as p; print(p.is_ours(pathlib.Path(torch.__file__)))"
    assert installed.run("python", "-c", code) == "False\n"


def test_the_page_on_a_package_of_ones_own(installed: Installed) -> None:
    block = re.findall(r"```\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)[0]
    lines = [line.partition("#")[0].strip() for line in block.splitlines()]
    for line in (line for line in lines if line.startswith("python -m ")):
        command, *words = shlex.split(line)
        installed.run(command, *words, *(["log=none"] if words[1] == "runner" else []))
    (cell,) = (installed.folder / "results/default/cells").glob("my_task.my_method.*")
    assert "my_pkg.my_method" in json.loads((cell / "manifest.json").read_text())["sources"]
    assert (installed.folder / "tests/test_my_method.py").is_file()
    card = installed.run("python", "-m", "runner.methods", "my_method", BENCH_CONF="my_pkg/conf")
    assert "my_pkg/my_method.py" in card
    said = installed.run(
        "python", "-m", "runner", "algorithm=my_method", "dry_run=true", BENCH_CONF="nowhere", code=2
    )
    assert "nowhere: no such folder" in said


def test_a_method_in_the_checkouts_layout_needs_a_checkout(installed: Installed) -> None:
    said = installed.run("python", "-m", "runner.new", "algorithm", "mine", "--part", "loss", code=2)
    assert "--into my_pkg" in said

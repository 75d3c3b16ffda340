"""The examples of docs/adding_a_method/, taken from their pages as they stand: they train and conform."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from runner.base.errors import UserError
from runner.cells.cell import Cell
from runner.check import CHECKS, run_checks
from runner.check.subjects import subjects
from runner.methods.__main__ import main as list_methods
from runner.new.layout import FOLDERS
from runner.train.session import run_cell
from tests.conftest import ROOT

OVERVIEW = ROOT / "docs" / "adding_a_method.md"
KINDS = (*FOLDERS, "diagnostic")
A_PAGE = 75  # lines
QUICK = ("wrapper",)  # kinds whose examples pass every check in any run of the tests


class Example(NamedTuple):
    """What a page shows."""

    name: str
    kind: str
    page: str
    file: str
    code: str
    yaml_file: str
    yaml: str

    @property
    def module(self) -> str:
        return f"{self.name}_of_the_page"


def example(kind: str) -> Example:
    page = (OVERVIEW.with_suffix("") / f"{kind}.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (yaml,) = re.findall(r"^```yaml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    file = re.search(r"^# (\S+\.py)\n", code)
    yaml_file = re.search(r"^# (conf/\S+\.yaml)\n", yaml, re.MULTILINE)
    assert file and yaml_file and code.startswith(file[0])
    return Example(
        Path(file[1]).stem, kind, page, file[1], code.removeprefix(file[0]),
        yaml_file[1], yaml.replace(yaml_file[0], ""),
    )  # fmt: skip


def blocks(language: str) -> list[str]:
    """The code blocks of the overview."""
    return re.findall(rf"^```{language}\n(.*?)^```", OVERVIEW.read_text(), re.DOTALL | re.MULTILINE)


EXAMPLES = [example(kind) for kind in KINDS]
PARTS = [one for one in EXAMPLES if one.kind != "diagnostic"]


def by_kind(one: Example) -> str:
    return one.kind


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of one's own with all of them, beside their classes."""
    home = tmp_path_factory.mktemp("pages")
    for one in EXAMPLES:
        (home / f"{one.module}.py").write_text(one.code)
        path = home / one.yaml_file
        path.parent.mkdir(parents=True, exist_ok=True)
        theirs = one.file.removesuffix(".py").replace("/", ".")
        assert f"_target_: {theirs}." in one.yaml
        path.write_text(one.yaml.replace(theirs, one.module))
    write_overview(home)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(home)
        yield home / "conf"
    for name in [name for name in sys.modules if name.endswith("_of_the_page")]:
        sys.modules.pop(name)


def write_overview(home: Path) -> None:
    """The overview's own snippets: two YAMLs as they are, a preset, and two methods around a fragment."""
    (fragment,) = blocks("python")
    card, radam, preset = blocks("yaml")
    target = "algorithms.optimizers.my_method.MyMethod"
    assert target in card
    files = {
        "conf/algorithm/optimizer/sharp_of_the_page.yaml": card.replace(target, "sharp_of_the_page.Sharp"),
        "conf/algorithm/optimizer/radam_of_the_page.yaml": radam,
        "conf/algorithm/preset_of_the_page.yaml": preset,
        "conf/algorithm/transform/noise_of_the_page.yaml": NOISE_YAML,
        "sharp_of_the_page.py": SHARP,
        "noise_of_the_page.py": NOISE + textwrap.indent(fragment, "    "),
    }
    for path, text in files.items():
        (home / path).write_text(text)


SHARP = """\
import torch


class Sharp(torch.optim.SGD):
    def __init__(self, params, lr, sharpness):
        super().__init__(params, lr)
"""
NOISE_YAML = """\
# @package algorithm.transform.noise_of_the_page
# Noise on the gradient
_target_: noise_of_the_page.Noise
"""
NOISE = """\
import torch
from torch import Tensor

from runner.contract.task import Task


class Noise:
    sigma = 0.01

"""


def chosen(one: Example) -> list[str]:
    if one.kind == "diagnostic":
        return ["algorithm=adamw", f"diagnostics=[norms,{one.name}]"]
    return [f"algorithm={one.name}"]


@pytest.mark.parametrize("one", EXAMPLES, ids=by_kind)
def test_it_trains(one: Example, folder: Path, tmp_path: Path) -> None:
    cell = trained(chosen(one), folder, tmp_path)
    assert f"{one.module}." in str(cell.config)
    if one.kind == "diagnostic":
        rows = cell.folder.evals()
        assert [row["diag/gradient_cosine"] <= 1.001 for row in rows[1:]] == [True] * (len(rows) - 1)


@pytest.mark.parametrize("name", ["sharp", "radam", "preset", "noise"])
def test_the_overviews_own_snippets_train(name: str, folder: Path, tmp_path: Path) -> None:
    trained([f"algorithm={name}_of_the_page"], folder, tmp_path)


def test_the_overviews_yaml_means_what_its_comments_say(folder: Path) -> None:
    name = "algorithm=sharp_of_the_page"
    points = [
        Cell.from_overrides([name, f"trial={k}"], [folder]).config["algorithm"] for k in (1, 2, 3, 4, 5)
    ]
    assert {point["optimizer"]["sharpness"] for point in points} == {0.5, 1.0, 2.0}
    assert all(1e-3 <= point["optimizer"]["lr"] <= 1.0 for point in points)
    with pytest.raises(UserError, match="sharpness"):
        Cell.from_overrides([name, "algorithm.optimizer.sharpness=11"], [folder])


def trained(overrides: list[str], folder: Path, tmp_path: Path) -> Cell:
    """A small cell, trained in this process as a worker would."""
    small = ["workload=breast_cancer", "workload.budget_samples=1200", "stop_at_target=false", "log=none"]
    cell = Cell.from_overrides([*small, *overrides, f"results_dir={tmp_path}"], [folder])
    cell.submit()
    status = run_cell(cell.folder.path)
    assert status["status"] == "done", status
    assert cell.folder.evals()[-1]["drawn"] >= 1200
    return cell


@pytest.mark.parametrize("one", PARTS, ids=by_kind)
def test_its_card_and_its_cost_are_right(one: Example, folder: Path) -> None:
    assert faults(one, folder, ("card", "cost")) == []


@pytest.mark.parametrize(
    "one", [one if one.kind in QUICK else pytest.param(one, marks=pytest.mark.slow) for one in PARTS],
    ids=by_kind,
)  # fmt: skip
def test_it_conforms(one: Example, folder: Path) -> None:
    assert faults(one, folder, tuple(CHECKS)) == []


def faults(one: Example, folder: Path, names: tuple[str, ...]) -> list[str]:
    (subject,) = subjects([*chosen(one), "workload=breast_cancer"], [folder])
    results = run_checks(subject, names)
    return [f"{check}: {result.message}" for check, result in results if result.status == "failed"]


def test_they_are_listed_with_the_others(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert list_methods(["sign_of_momentum", "gradient_turn", "--config-dir", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "sign_of_momentum (optimizer): Sign of momentum" in out and "1e-4 to 1e-2, log" in out


def test_they_are_tidy(folder: Path) -> None:
    files = [str(folder.parent / f"{one.module}.py") for one in EXAMPLES]
    for check in (
        ("check", "--config", str(ROOT / "pyproject.toml")),
        ("format", "--check", "--line-length", "110"),
    ):
        done = subprocess.run([sys.executable, "-m", "ruff", *check, *files], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("one", EXAMPLES, ids=by_kind)
def test_it_is_a_page_that_leads_to_what_there_is(one: Example) -> None:
    assert len(one.page.splitlines()) <= A_PAGE
    path = OVERVIEW.with_suffix("") / f"{one.kind}.md"
    assert f"(adding_a_method/{one.kind}.md)" in OVERVIEW.read_text()
    for link in re.findall(r"\]\(([^)#\s]+)", one.page):
        assert (path.parent / link).exists(), link
    for name in re.findall(r"runner/new/templates/\w+\.py", one.page):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("one", PARTS, ids=by_kind)
def test_it_is_where_the_scaffold_puts_it_and_is_called_in_the_same_way(one: Example) -> None:
    group = "" if one.kind == "whole" else f"{one.kind}/"
    assert one.file == f"algorithms/{FOLDERS[one.kind]}/{one.name}.py"
    assert one.yaml_file == f"conf/algorithm/{group}{one.name}.yaml"
    template = (ROOT / "runner" / "new" / "templates" / f"{one.kind}.py").read_text()
    for method in ("__call__", "update", *(["step"] if one.kind in ("optimizer", "whole") else [])):
        assert arguments(one.code, method) == arguments(template, method), method
    headers = [re.search(r"^# @package.*\.", text) for text in (one.yaml, template_yaml(one.kind))]
    assert (headers[0] and headers[0][0]) == (headers[1] and headers[1][0])


def template_yaml(kind: str) -> str:
    return (ROOT / "runner" / "new" / "templates" / f"{kind}.yaml").read_text()


def arguments(code: str, method: str) -> list[str] | None:
    """Names of the arguments of a class's method, or None where there is none of that name."""
    classes = (node for node in ast.parse(code).body if isinstance(node, ast.ClassDef))
    bodies = (node for one in classes for node in one.body if isinstance(node, ast.FunctionDef))
    found = next((node for node in bodies if node.name == method), None)
    return None if found is None else [argument.arg for argument in found.args.args]

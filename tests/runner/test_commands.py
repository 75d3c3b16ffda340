"""Commands that messages print work when they are pasted: quoted, with folders and config directories."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from runner import score, status
from runner.__main__ import main as launch
from runner.base.errors import UserError
from runner.base.paths import ROOT
from runner.cells.cell import Cell
from runner.cells.launches import launches
from runner.compose import commands
from runner.compose.overrides import assignment, cell_overrides
from tests.experiments import Said, call

Capture = pytest.CaptureFixture[str]
SMALL = ("workload=digits", "workload.budget_samples=640", "workload.target=0.05", "log=none")


def pasted(line: str, capsys: Capture) -> Said:
    """What a shell would do with ``python -m module words``, in this process."""
    python, flag, module, *words = shlex.split(line, comments=True)
    assert (python, flag) == ("python", "-m")
    found = importlib.util.find_spec(module)
    package = found is not None and found.submodule_search_locations is not None
    main = importlib.import_module(f"{module}.__main__" if package else module).main
    return call(main, capsys, *words)


def command_in(text: str) -> str:
    """The last command that a text holds."""
    return re.findall(r"python -m .*", text)[-1]


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A config directory whose name a shell would take apart, with a method of its own."""
    folder = tmp_path / "it's my conf"
    (folder / "algorithm/optimizer").mkdir(parents=True)
    (folder / "algorithm/optimizer/mine.yaml").write_text("# Mine: SGD\n_target_: torch.optim.SGD\nlr: 0.1\n")
    return folder


def run(*words: str) -> int:
    return launch([*words, "hydra/launcher=inline"])


def test_commands_that_fill_a_grid(conf: Path, tmp_path: Path, capsys: Capture) -> None:
    results = tmp_path / "my results"
    there, where = ("--config-dir", str(conf)), (f"results_dir='{results}'", "name='a b'")
    assert run("-m", *there, "algorithm=adamw", "study=0,1", *SMALL, *where) == 0
    assert run(*there, "algorithm=mine", *SMALL, *where) == 0
    moved = results.rename(tmp_path / "it's moved") / "a b"  # whatever the cells' own overrides say
    line = command_in(call(score.main, capsys, moved).out)
    assert "mine" in line and str(results) not in line
    said = pasted(f"{line} hydra/launcher=inline", capsys)
    assert said.code == 0, said.err
    assert len(list(moved.glob("cells/*.mine.s1.*"))) == 1
    # A launch of which cells are gone is printed as it was typed.
    words = [shlex.split(commands.again(one.record["command"])) for one in launches(moved)]
    assert ["python", "-m", "runner", *there, "algorithm=mine"] in [own[:6] for own in words]


def test_what_failed_is_retried_with_the_line_that_says_so(tmp_path: Path, capsys: Capture) -> None:
    where = [assignment("results_dir", str(tmp_path / "it's; here")), assignment("name", "a b")]
    for study in (0, 1):
        cell = Cell.from_overrides([*where, *SMALL, f"study={study}"])
        cell.submit()
        cell.folder.fail("ValueError: once", "its traceback")
    said = call(status.main, capsys, cell.folder.path.parent.parent)
    again = pasted(f"{command_in(said.out)} --launcher inline", capsys)
    assert again.code == 0 and "2 done" in again.err


def test_a_card_s_commands(
    conf: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From another folder than the project's, too."""
    monkeypatch.chdir(tmp_path)
    listing = importlib.import_module("runner.methods.__main__")
    out = call(listing.main, capsys, "mine", "--config-dir", conf).out.replace("\n", " ")
    line = re.findall(r"python -m runner .*?workload=digits", re.sub(r"\s+", " ", out))[0]
    words = shlex.split(line)
    assert Cell.from_overrides(cell_overrides(words[5:]), [Path(words[4])]).config["label"] == "mine"


def test_every_command_comes_from_one_place() -> None:
    """A command in an f-string forgets to quote what it is filled with."""
    filled = re.compile(r"""f(["']).*python -m runner.*\{.*\1""")
    for file in (ROOT / "runner").rglob("*.py"):
        assert not filled.search(file.read_text(encoding="utf-8")), file


def test_lists_of_names_hold_names_alone() -> None:
    for group in ("workload", "algorithm", "algorithm/optimizer"):
        with pytest.raises(UserError) as refused:
            Cell.from_overrides([f"{group}=zzzzzzzz"])
        assert "known: " in str(refused.value) and " _" not in str(refused.value)

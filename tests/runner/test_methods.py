"""The list of methods, their cards, and docs/methods.md: all there, all complete, all current."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runner.check import cards
from runner.check.cards import declared
from runner.compose import presets
from runner.methods import card as parsing
from runner.methods.__main__ import main
from runner.methods.card import Card, Paper
from runner.methods.catalogue import KINDS, Method, methods
from runner.methods.page import COMMAND, markdown
from runner.report.cards import card as report_card
from tests.conftest import ROOT

ALL = methods()
CARDED = [m for m in ALL if m.kind not in ("preset", "diagnostic")]


def named(name: str, kind: str) -> Method:
    return next(m for m in ALL if (m.name, m.kind) == (name, kind))


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


# -- the page, and all cards -------------------------------------------------------------------------


def test_the_page_is_current() -> None:
    page = (ROOT / "docs" / "methods.md").read_text()
    assert page == markdown(ALL), f"docs/methods.md is out of date; renew it with: {COMMAND}"


def test_every_link_of_the_page_leads_somewhere() -> None:
    for method in ALL:
        path = method.source or method.yaml
        assert path.is_relative_to(ROOT) and path.is_file(), method


@pytest.mark.parametrize("method", CARDED, ids=lambda m: f"{m.kind}-{m.name}")
def test_every_card_is_complete(method: Method) -> None:
    """Those of ``torch.optim``'s methods, which lie in the YAML, too."""
    assert method.card.missing == []
    assert method.summary and method.card.text.splitlines()[0].strip()


def test_every_name_that_the_command_line_takes_is_listed() -> None:
    assert {m.name for m in ALL if m.kind != "diagnostic"} >= set(presets.algorithms())
    assert {m.kind for m in ALL} <= set(KINDS)


def test_the_costs_are_those_that_runner_check_holds_methods_to() -> None:
    assert (parsing.FIELDS, parsing.COST.pattern) == (cards.SECTIONS, cards.COST.pattern)
    for method in (named("bo_rep", "reweighting"), named("mezo", "estimator"), named("sgd", "optimizer")):
        rows = declared(method.target)
        numbers = [float(number) for number in method.card.cost.split("+")]
        assert rows is not None and [*numbers, 0.0, 0.0][:3] == list(rows)


# -- what is printed ---------------------------------------------------------------------------------


def test_the_list_fits_eighty_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = [line.rstrip() for line in printed(capsys).splitlines()]
    assert max(map(len, lines)) <= 80
    assert "  lion                    Chen et al. 2023                  2302.06675  1+1" in lines
    assert "  bo_rep                  Bilevel Optimization under…                   1+1+0.33" in lines
    assert "  mezo                    sgd, estimator mezo; no schedule" in lines
    assert sum(line.startswith("  ") for line in lines) == len(ALL)


def test_a_wide_list_has_summaries_and_one_kind_stands_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    out = printed(capsys, "--kind", "wrapper")
    assert named("mechanic", "wrapper").summary in out and "lion  " not in out


def test_a_card_with_its_files_command_and_settings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    lines = [line.rstrip() for line in printed(capsys, "lion").splitlines()]
    assert lines[1] == "  algorithms/optimizers/lion.py, conf/algorithm/optimizer/lion.yaml"
    assert lines[2] == "  python -m runner algorithm=lion workload=digits"
    assert "Update: u = sign(β₁·m + (1 − β₁)·g); x ← x − lr·(u + λ·x); " in "\n".join(lines)
    assert "weight_decay  0.0          0.0 | 1e-2 | 1e-1 | 1.0" in lines


def test_the_command_names_a_workload_that_it_fits(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "anyloss", "normalized_lr_gd", "tract")
    for command in ("anyloss workload=breast_cancer", "normalized_lr_gd workload=breast_cancer",
                    "tract workload=digits"):  # fmt: skip
        assert f"python -m runner algorithm={command}\n" in out
    assert "python -m runner.check algorithm=tract    # not for every workload: says for which" in out


def test_a_part_and_the_preset_of_its_name_are_both_printed(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "mezo")
    assert "mezo (estimator): " in out and "mezo (preset): " in out
    assert "python -m runner algorithm=lion algorithm/estimator=mezo" in out
    assert "optimizer.lr" in out


def test_a_method_of_torchs_has_the_comments_of_its_own_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    assert "x ← x − lr·(g + μ·b)" in printed(capsys, "nesterov")
    assert "x ← x − lr·b." in printed(capsys, "sgd")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("lino",), "error: unknown method 'lino': did you mean lion"),
        (("--kind", "optimiser"), "error: unknown kind 'optimiser': did you mean optimizer?"),
        (("lion", "--kind", "loss"), "error: unknown method 'lion': "),
        (("--config-dir", "no/where"), "error: --config-dir no/where: no such folder"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(said) and err.count("\n") == 1


def test_it_imports_nothing_heavy() -> None:
    code = (
        "import sys; from runner.methods.__main__ import main; main([]); main(['lion', 'mezo', 'norms']);"
        "assert not {'torch', 'hydra', 'pandas', 'numpy', 'algorithms'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_librarys_class_shows_what_the_report_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "algorithm" / "optimizer"
    folder.mkdir(parents=True)
    (folder / "rad.yaml").write_text("# RAdam: rectified\n_target_: torch.optim.RAdam\nlr: 1e-3\n")
    text = printed(capsys, "rad", "--config-dir", str(tmp_path))
    assert report_card("torch.optim.RAdam").splitlines()[0] == "Implements RAdam algorithm."
    assert "rad (optimizer): RAdam: rectified" in text and "Implements RAdam algorithm." in text
    for method in (named("adamw", "optimizer"), named("lion", "optimizer"), named("sam", "estimator")):
        assert method.card.text == report_card(method.target) and not method.card.missing


def test_methods_in_a_folder_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_card.py").write_text('class Mine:\n    """One line.\n\n    Paper: none.\n    """\n')
    folder = tmp_path / "conf" / "algorithm" / "loss"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("# Mine: a loss\n_target_: my_card.Mine\ngamma: 2.0   # steep\n")
    monkeypatch.syspath_prepend(tmp_path)
    out = printed(capsys, "mine", "--config-dir", str(tmp_path / "conf"))
    assert "mine (loss): Mine: a loss" in out and "my_card.py" in out and "steep" in out
    assert f"python -m runner --config-dir {tmp_path}/conf algorithm=mine workload=digits" in out
    assert "my_card" not in sys.modules


# -- cards, taken apart ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "paper"),
    [
        ("Title (Mao, Mohri & Zhong 2023, arXiv 2304.07288); the rest is from memory.",
         Paper("Mao et al. 2023", "2304.07288", True)),
        ("Old (Seide et al. 2014) and newer (Stich 2018, arXiv 1809.07599).",
         Paper("Seide et al. 2014", "", False)),
        ("Large Batch (You et al. 2020, arXiv 1904.00962, Algorithm 2).",
         Paper("You et al. 2020", "1904.00962", False)),
        ("A Family (de Brébisson & Vincent 2016, arXiv 1511.05042).",
         Paper("de Brébisson & Vincent 2016", "1511.05042", False)),
        ("EControl: Fast Distributed Things (2023, arXiv 2311.05645).",
         Paper("EControl 2023", "2311.05645", False)),
        ("Learning k-Level Structured Sparse Networks (arXiv 2212.12921). Its text was not at hand.",
         Paper("Learning k-Level Structured…", "2212.12921", False)),
        ("a convention of the field; no source of its own.", Paper("", "", False)),
        ("none; the control of every schedule.", Paper("", "", False)),
    ],
)  # fmt: skip
def test_a_paper_in_short(text: str, paper: Paper) -> None:
    assert Card.parse(f"Summary.\n\nPaper: {text}").paper == paper


def test_fields_go_on_over_lines_and_a_faulty_card_says_what_it_lacks() -> None:
    card = Card.parse(
        "Summary.\n\nPaper: one\n    two.\nState: 1 tensor. Or more.\nCost: cheap.\n\nArgs:\n    x: y"
    )
    assert card.fields == {"Paper": "one two.", "State": "1 tensor. Or more.", "Cost": "cheap."}
    assert card.state == "1 tensor" and card.cost == ""
    assert card.missing == ["Update", "Defaults", "Pitfalls", "Deviations", "Cost"]
    assert Card.parse("Cost: 2 forward, 1 backward, 0.5 hvp. More.").cost == "2+1+0.5"

"""The report: its numbers are the board's, nothing is empty without a reason, nothing of a log is markup."""

from __future__ import annotations

import math
import warnings
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_tables import EVIL, Page, degenerate, inputs, tables

from runner.base.errors import UserError
from runner.boards.board import Board, boards
from runner.boards.inputs import Inputs, read, write_boards
from runner.boards.publish import publish
from runner.boards.rules import Rules
from runner.compose.config import compose
from runner.report import write, write_folder
from runner.report.__main__ import main
from runner.stats import medians, study_times
from tests.experiments import call, refusal, write_cell, write_grid

HEADINGS = [
    "Summary", "Leaderboard", "Performance profiles", "Time to target", "Validation curves",
    "Certified crossings",
    "Pairwise comparisons", "Tuning curves", "Sensitivity", "Was the search wide enough?",
    "One setting for all workloads", "Diagnostics", "Algorithms", "Workloads", "Provenance", "Missing cells",
    "How to read this",
]  # fmt: skip
FEW = Rules(resamples=20)
# The rest of the degenerate tables take half a minute together.
QUICK = (
    "one cell",
    "one algorithm",
    "no hits",
    "failed",
    "pending, no evaluations",
    "hostile names",
    "one that has not begun",
    "nothing",
)
TIMES = {
    ("digits", "lion"): [1000.0, 1100.0, 1200.0, 1300.0, 1400.0],
    ("text", "lion"): [500.0, None, 700.0, 800.0, 900.0],
    ("digits", "adamw"): [1000.0, 1150.0, 1210.0, 1320.0, 1330.0],
    ("text", "adamw"): [None, None, None, 800.0, 900.0],
    ("digits", "sgd"): [9000.0, 9000.0, 9000.0, 9000.0, 9000.0],
    ("text", "sgd"): [None, None, None, None, None],
}


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    write_grid(tmp_path / "exp", TIMES)
    return tmp_path / "exp"


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of that experiment."""
    folder = tmp_path_factory.mktemp("whole") / "exp"
    write_grid(folder, TIMES)
    return write_folder(folder).read_text()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report with all kinds of figures."""
    folder = tmp_path_factory.mktemp("small")
    cells, evals = tables(studies=3, trials=2)
    write(inputs(folder, cells, evals), boards(cells, FEW))
    return folder


def made(cells: pd.DataFrame, by: str = "samples") -> tuple[list[Board], str]:
    try:
        return boards(cells, Rules(by=by, resamples=20)), ""
    except UserError as error:
        return [], str(error)


def report(found: Inputs, by: str = "samples") -> Page:
    one, reason = made(found.cells, by)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a section that failed is a warning
        return Page(write(found, one, Rules(by=by), reason).read_text())


# -- numbers -----------------------------------------------------------------------------------------


def test_the_board_and_the_csv_agree_in_every_number(experiment: Path) -> None:
    found = read(experiment)
    one = boards(found.cells, Rules())
    write_boards(found, one)
    page = Page(write(found, one).read_text())
    csv = pd.read_csv(experiment / "leaderboard.csv", dtype=str, keep_default_na=False).set_index("label")
    compared = 0
    shown = [
        table for table, css in zip(page.tables, page.css, strict=True) if "board" in css or "medians" in css
    ]
    assert [len(table) for table in shown] == [3, 3]
    for table in shown:
        for row, label in zip(table, csv.index, strict=True):  # in the order of the CSV
            assert row["label"][0] == label
            for key, (value, _) in row.items():
                if key in csv.columns:
                    assert same(value, csv.loc[label, key]), (key, label, value, csv.loc[label, key])
                    compared += 1
    assert compared >= 3 * 13 + 3 * 3


def same(a: str, b: str) -> bool:
    try:
        return float(a) == float(b)
    except ValueError:
        return a == b


def test_what_is_printed_is_the_value_behind_it(text: str) -> None:
    page = Page(text)
    first = next(table for table, css in zip(page.tables, page.css, strict=True) if "board" in css)
    for row in first:
        assert row["score"][1] == f"{float(row['score'][0]):.3f}"
        assert row["hit_rate"][1] == f"{100 * float(row['hit_rate'][0]):.0f} %"
    medians_table = next(table for table, css in zip(page.tables, page.css, strict=True) if "medians" in css)
    assert medians_table[0]["digits/median"] == ("1200", "1,2001,000–1,400 · 5/5")
    assert medians_table[-1]["text/median"] == ("inf", "miss— · 0/5")


def test_a_number_that_was_changed_is_noticed(text: str) -> None:
    """The comparison above can fail."""
    page = Page(text.replace('data-v="1200"', 'data-v="1201"'))
    shown = [table for table, css in zip(page.tables, page.css, strict=True) if "medians" in css]
    assert not same(shown[0][0]["digits/median"][0], "1200.0")


def test_short_answers_by_hand(text: str) -> None:
    words = Page(text).words["answers"]
    assert "lion" in words and "score" in words and "on 2 workloads, by samples" in words
    assert "all 10 cells of lion; 90\u00a0% of the finished ones hit" in words
    assert "nothing was tuned" in words


def test_numbers_beside_lines_are_ranks_with_letters_for_ties(tmp_path: Path) -> None:
    cells, evals = tables(("a", "b", "c"), ("digits",), 2, 1, missing=0)
    cells["samples_to_target"] = np.where(cells["label"] == "c", 100.0, 200.0)
    write(inputs(tmp_path, cells, evals), boards(cells, FEW))
    svg = (tmp_path / "report" / "times-1-digits.svg").read_text()
    assert [name in svg for name in ("1 c", "2a a", "2b b")] == [True, True, True]


def test_the_profile_starts_and_ends_where_scores_do(small: Path) -> None:
    cells, _ = tables(studies=3, trials=2)
    text = (small / "report" / "profile-1.svg").read_text()
    times = medians(study_times(cells))
    ratios = times / times.min()
    for label, row in ratios.iterrows():
        first, last = (row <= 1).mean(), (row <= 4).mean()
        assert f"{label}: {first:.0%} at τ = 1, {last:.0%} at 4" in text


# -- what it is made of ------------------------------------------------------------------------------


def test_sections_in_the_order_of_a_readers_questions(text: str) -> None:
    page = Page(text)
    assert page.headings == HEADINGS


def test_one_file_that_fetches_nothing(text: str) -> None:
    page = Page(text)
    assert not [tag for tag, _ in page.tags if tag in ("link", "img", "iframe", "object", "base")]
    links = [value for _, own in page.tags for key in ("src", "href") if (value := own.get(key))]
    assert links and all(link.startswith("#") for link in links)
    assert "@import" not in text and "url(" not in text
    assert {link[1:] for link in links} <= {own.get("id") for _, own in page.tags}


def test_ids_are_unique_and_refer_to_something(tmp_path: Path) -> None:
    cells, evals = tables()
    page = report(
        inputs(tmp_path, pd.concat([cells, cells.assign(id=cells["id"] + "r", data="real")]), evals)
    )
    ids = [own["id"] for _, own in page.tags if own.get("id")]
    assert len(ids) == len(set(ids))
    named = {
        value
        for _, own in page.tags
        for key in ("aria-controls", "aria-labelledby")
        if (value := own.get(key))
    }
    assert named and named <= set(ids)


def test_every_drawing_has_a_name_and_a_description(small: Path) -> None:
    files = sorted((small / "report").glob("*.svg"))
    kinds = {path.stem.split("-")[0] for path in files}
    assert kinds == {"profile", "times", "curve", "tuning", "map", "diag"}
    for path in files:
        root = ET.fromstring(path.read_text())
        names = [child.tag.rpartition("}")[2] for child in root]
        assert "title" in names and "desc" in names
        assert not any("nan" in value.lower() for element in root.iter() for value in element.attrib.values())


def test_figures_of_an_earlier_report_go_and_other_files_stay(tmp_path: Path) -> None:
    cells, evals = tables(("adamw",), studies=2, trials=1)
    write(inputs(tmp_path, cells, evals), boards(cells, FEW))
    old = tmp_path / "report" / "times-1-text.svg"
    mine = tmp_path / "report" / "mine.svg"
    mine.write_text("<svg/>")
    assert old.exists()
    fewer = cells.loc[cells["workload"] == "digits"]
    write(inputs(tmp_path, fewer, evals), boards(fewer, FEW))
    assert not old.exists() and mine.exists()


def test_notices_stand_at_the_very_top(tmp_path: Path) -> None:
    cells, evals = tables(studies=2, trials=1)
    cells.loc[cells["label"] == "sgd", "target"] = 0.5
    found = inputs(tmp_path, cells, evals, headline=["incomplete: of 100 cells 10 missing"])
    one = boards(cells, Rules(mixed=True))
    text = write(found, one).read_text()
    top = text[: text.index("<nav")]
    assert "incomplete: of 100 cells 10 missing" in top and "mixed, on request" in top


def test_commands_are_shown_whole(tmp_path: Path) -> None:
    cells, evals = tables(studies=2, trials=1)
    line = "3 cells missing (digits · lion · study 0): python -m runner -m 'a=\"b\"' study=0"
    found = inputs(tmp_path, cells, evals, missing=[line], headline=["incomplete"])
    words = report(found).words["missing"]
    assert "python -m runner -m 'a=\"b\"' study=0" in words


def test_cards_recipes_targets_and_manifests_of_an_experiment(text: str) -> None:
    page = Page(text)
    assert "torch.optim.AdamW" in page.words["algorithms"] and "optimizer.lr" in page.words["algorithms"]
    assert "best of adamw" in page.words["workloads"]  # how the target of digits was set
    assert "These cells used 0.97; the list has 0.9877" in page.words["workloads"]
    assert "Not listed in conf/targets/v1.yaml here" in page.words["workloads"]  # of text
    words = page.words["manifest"]
    assert "c0ffee" in words and "a processor" in words and "30 cells" in words


def test_the_card_of_a_method_of_the_project() -> None:
    from runner.report.cards import card, targets

    assert card("algorithms.optimizers.lion.Lion").startswith("Lion: every weight moves")
    assert card("torch.optim.AdamW").startswith("AdamW")
    for nothing in (
        "",
        "os",
        "os.system",
        "../../etc.passwd",
        "algorithms..x",
        "algorithms.optimizers.lion.Nobody",
    ):
        assert card(nothing) == ""
    config = {"_target_": "a.B", "x": {"_target_": "c.D"}, "y": [{"_target_": "e.F"}], "z": 1}
    assert [found[:2] for found in targets(config)] == [("algorithm", "a.B"), ("x", "c.D"), ("y", "e.F")]


def test_the_card_of_a_class_from_outside_is_its_own_docstring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runner.report.cards import card

    (tmp_path / "outside_of_it").mkdir()
    (tmp_path / "outside_of_it" / "__init__.py").write_text("from .inner import Steep as Steepest\n")
    (tmp_path / "outside_of_it" / "inner.py").write_text('class Steep:\n    """Steep: downhill."""\n1 / 0\n')
    monkeypatch.syspath_prepend(tmp_path)
    assert card("outside_of_it.Steepest") == "Steep: downhill."  # read, not run
    assert card("torch.optim.RAdam").startswith("Implements RAdam algorithm.")


@pytest.mark.parametrize(
    ("name", "starts"), [("sgd", "SGD with heavy-ball"), ("nesterov", "SGD with Nesterov")]
)
def test_two_methods_of_one_class_have_their_own_cards(name: str, starts: str) -> None:
    from runner.report.cards import card, targets

    config = compose([f"algorithm={name}"])["algorithm"]
    _, target, settings = next(found for found in targets(config) if found[0] == "optimizer")
    assert card(target, settings).startswith(starts)


def test_diverged_and_failed_cells_are_told(experiment: Path) -> None:
    write_cell(experiment, "adamw", "digits", 5, status="failed", error=f"ValueError: {EVIL[:40]}")
    page = Page(write_folder(experiment).read_text())
    assert "1 × failed: ValueError: <script>alert('x')</script>" in page.words["algorithms"]


def test_published_boards_have_reports_with_the_same_numbers(experiment: Path, tmp_path: Path) -> None:
    found = read(experiment)
    publish(found, boards(found.cells, Rules()), home=tmp_path / "boards")
    published, own = (
        Page(write_folder(folder).read_text()) for folder in (tmp_path / "boards" / "exp", experiment)
    )
    pick = [k for k, css in enumerate(own.css) if "board" in css or "medians" in css]
    assert [published.tables[k] for k in pick] == [own.tables[k] for k in pick]
    assert "c0ffee" in published.words["manifest"] and "torch.optim.AdamW" in published.words["algorithms"]


def test_a_fault_in_one_section_costs_no_other(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from runner.report import page

    def broken(material: object) -> list[object]:
        raise KeyError("x")

    sections = tuple(s._replace(make=broken) if s.name == "curves" else s for s in page.SECTIONS)
    monkeypatch.setattr(page, "SECTIONS", sections)
    with pytest.warns(UserWarning, match="Validation curves: KeyError"):
        found = Page(write_folder(experiment).read_text())
    assert "failed" in found.words["curves"] and found.headings == HEADINGS


# -- whatever the tables hold ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case", [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in degenerate()]
)
def test_degenerate_tables_open_and_say_why(case: str, tmp_path: Path) -> None:
    cells, evals = degenerate()[case]
    page = report(inputs(tmp_path, cells, evals))
    assert page.headings == HEADINGS
    for name, words in page.words.items():
        assert words.strip(), f"nothing in {name}"
    assert all(page.tables), "a table without rows"
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert not [own for _, own in page.tags for key in own if key.startswith("on")]
    for path in (tmp_path / "report").glob("*.svg"):
        tags = {element.tag.rpartition("}")[2] for element in ET.fromstring(path.read_text()).iter()}
        assert tags <= {"svg", "title", "desc", "style", "rect", "path", "text", "circle"}
    if not made(cells)[0]:
        assert "no leaderboard" in page.words["answers"].lower()


def test_hostile_names_are_whole_in_the_board(tmp_path: Path) -> None:
    cells, evals = degenerate()["hostile names"]
    page = report(inputs(tmp_path, cells, evals))
    first = next(table for table, css in zip(page.tables, page.css, strict=True) if "board" in css)
    assert {row["label"][0] for row in first} == {
        text.replace("\x01", "\ufffd") for text in (EVIL, EVIL + "2", "a\nb", "")
    }


def test_misses_are_said_to_be_misses(tmp_path: Path) -> None:
    cells, evals = tables(missing=0.9, seed=3, trials=1)
    one, _ = made(cells)
    write(inputs(tmp_path, cells, evals), one, Rules())
    missed = one[0].workloads.loc[~np.isfinite(one[0].workloads["median"])]
    assert len(missed)
    for workload in one[0].goals:
        svg = (tmp_path / "report" / f"times-1-{workload}.svg").read_text()
        assert svg.count("✕ miss") == (missed["workload"] == workload).sum()


def test_curves_of_runs_that_missed_end_hollow(tmp_path: Path) -> None:
    cells, evals = tables(("hits", "misses"), ("digits",), 3, 1, missing=0)
    lost = cells["label"] == "misses"
    cells.loc[lost, ["samples_to_target", "seconds_to_target", "steps_to_target"]] = math.inf
    write(inputs(tmp_path, cells, evals), boards(cells, FEW))
    svg = ET.fromstring((tmp_path / "report" / "curve-1-digits-samples.svg").read_text())
    dots = [element.get("class") for element in svg.iter() if element.tag.endswith("circle")]
    assert sorted(dots) == ["f c0", "l c1"]


# -- the command -------------------------------------------------------------------------------------


def test_the_command_prints_where_the_report_is(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = call(main, capsys, experiment, "--open", "no", "--by", "steps")
    assert (said.code, said.out, said.err) == (0, f"{experiment / 'report.html'}\n", "")
    assert "by steps" in (experiment / "report.html").read_text()


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such folder" in refusal(main, capsys, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "no cells" in refusal(main, capsys, tmp_path / "empty")


def test_a_folder_that_cannot_be_written_is_one_line(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (experiment / "report").write_text("a file where the folder would be")
    assert "cannot be written" in refusal(main, capsys, experiment)


def test_what_cannot_be_compared_has_a_report_all_the_same(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cell(experiment, "adamw", "digits", 6, targets="v2")
    assert call(main, capsys, experiment).code == 0
    page = Page((experiment / "report.html").read_text())
    assert "cannot share a leaderboard" in page.words["answers"] and "--allow-mixed" in page.words["answers"]
    assert call(main, capsys, experiment, "--allow-mixed").code == 0
    assert "mixed, on request" in (experiment / "report.html").read_text()

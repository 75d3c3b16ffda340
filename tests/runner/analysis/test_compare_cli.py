"""``python -m runner.compare`` from a user's point of view."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from runner import compare
from tests.experiments import write_cell


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """Two workloads; adamw takes half as long as lion, in seven studies."""
    folder = tmp_path / "exp"
    for workload in ("digits", "cifar10_synthetic"):
        for study in range(7):
            at = 1000.0 + 10 * study
            write_cell(folder, "adamw", workload, study, at=at)
            write_cell(folder, "lion", workload, study, at=2 * at if study else None)
    write_cell(folder, "alone", "digits", 9)
    return folder


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    code = compare.main([str(arg) for arg in args])
    return code, *capsys.readouterr()


def test_what_it_says(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, experiment, "adamw", "lion")
    assert (code, err) == (0, "")
    assert "adamw needs 0.5 x the samples of lion to reach the target where both hit" in out
    assert "12 of 14 pairs; 95 % interval 0.5 to 0.5" in out
    assert "separable at 95 % (p = 0.00012): adamw is faster" in out
    assert "2 only A hit, 0 only B, 0 neither, 0 ties; hit rates: A 100 %, B 85.7 %" in out
    assert out.isascii() and max(map(len, out.splitlines())) <= 90
    table = [line for line in out.splitlines() if line.startswith(("|", "+"))]
    assert len(table) == 7 and max(map(len, table)) <= 80


def test_not_separable(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, experiment, "adamw", "lion", "--level", "0.99999")
    assert "not separable at 99.999 % (p = 0.00012): with 14 pairs" in out
    _, out, _ = run(capsys, experiment, "adamw", "alone")
    assert "no pairs: " in out and "how many more studies would separate them is unknown" in out


def test_all_numbers_as_csv(experiment: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(capsys, experiment, "lion", "adamw", "--by", "steps", "--csv", tmp_path / "c.csv")[0] == 0
    table = pd.read_csv(tmp_path / "c.csv")
    assert list(table["scope"]) == ["overall", "workload", "workload"]
    assert list(table["ratio"]) == pytest.approx([2, 2, 2])
    assert set(table["by"]) == {"steps"} and list(table["faster"]) == ["adamw"] * 3
    code, _, err = run(capsys, experiment, "lion", "adamw", "--csv", tmp_path / "no" / "c.csv")
    assert code == 2 and err.count("\n") == 1 and "cannot be written" in err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["adam", "lion"], "did you mean adamw"), (["lion", "lion"], "itself"),
        (["adamw", "lion", "--level", "95"], "between 0 and 1"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(
    experiment: Path, capsys: pytest.CaptureFixture[str], args: list[str], words: str
) -> None:
    code, out, err = run(capsys, experiment, *args)
    assert (code, out, err.count("\n")) == (2, "", 1) and words in err


def test_a_folder_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (tmp_path / "absent", tmp_path):
        code, _, err = run(capsys, folder, "a", "b")
        assert code == 2 and err.count("\n") == 1


def test_cells_of_unlike_targets_are_refused(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cell(experiment, "lion", "digits", 7, target=0.5)
    code, _, err = run(capsys, experiment, "adamw", "lion")
    assert code == 2 and err.count("\n") == 1 and "target of digits" in err
    code, out, _ = run(capsys, experiment, "adamw", "lion", "--allow-mixed")
    assert code == 0 and "mixed, on request: target of digits" in out


@pytest.mark.parametrize("name", ["[bold]x[/bold]", "<script>'\"", "a\nb", "y" * 300])
def test_names_of_any_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    for study in range(2):
        for label, stem in ((name, "one"), ("b", "two")):
            folder = write_cell(tmp_path / "exp", stem, "[red]w", study, id=f"{stem}{study}")
            card = json.loads((folder.path / "cell.json").read_text())
            (folder.path / "cell.json").write_text(json.dumps(card | {"label": label}))
    code, out, err = run(capsys, tmp_path / "exp", name, "b")
    assert (code, err) == (0, "") and "[red]w" in out
    assert name.split("\n")[0][:29] in out


def test_two_cells_for_one_place(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cell(experiment, "lion", "digits", 1, id="twin")
    code, _, err = run(capsys, experiment, "adamw", "lion")
    assert code == 2 and err.count("\n") == 1 and "twin" in err

"""``python -m runner.score`` from a user's point of view: its options, its files, what it refuses."""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from runner import import_logs, score
from runner.provenance.source import current
from tests.experiments import Said, call, refusal, write_cell, write_grid

Capture = pytest.CaptureFixture[str]
V06 = Path(__file__).parent / "data_algoperf" / "v06_trimmed.tar.xz"
TWO = {("digits", "adamw"): [1000, 1000], ("digits", "lion"): [2500, 2500]}
HOSTILE = (
    "[red]",
    "a|b",
    "two\nlines",
    "<script>alert(1)</script>",
    "x" * 300,
    ":smile:",
    "it's `ls`",
    "a\\",
)


def run(capsys: Capture, *args: object) -> Said:
    said = call(score.main, capsys, *args)
    assert said.code == 0, said.err
    return said


def refused(capsys: Capture, *args: object) -> str:
    return refusal(score.main, capsys, *args)


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """adamw at 1,000 samples, lion at 2,500, two studies each."""
    write_grid(tmp_path / "two", TWO)
    return tmp_path / "two"


# -- what it says and writes -------------------------------------------------------------------------


def test_the_board_of_a_grid(
    tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """As a user runs it, piped: no escape codes, no table wider than 80 columns, nothing on stderr."""
    folder = tmp_path / "exp"
    write_cell(folder, "slow[lr=0.1]", at=4000).append_eval({"steps": 1, "validation/accuracy": 0.98})
    write_cell(folder, "fast", at=1000)
    write_cell(folder, "fast", at=None, workload="mnist[target=0.5]", target=0.5)
    write_cell(folder, "slow[lr=0.1]", at=None, workload="mnist[target=0.5]", target=0.5)
    done = command(str(folder), module="runner.score")
    said = Said(done.returncode, done.stdout, done.stderr)
    assert (said.code, said.err) == (0, "") and "\x1b" not in said.out
    *board, report = said.lines
    assert max(map(len, board)) <= 80 and report == f"report: {folder / 'report.html'}"
    assert "digits: accuracy ≥ 0.97" in said.out and "mnist[target=0.5]: accuracy ≥ 0.5" in said.out
    assert "target never reached, scored 0 for every algorithm: mnist[target=0.5]" in said.out
    assert said.row("fast") == ["1", "fast", "0.500", "too few studies", "50 %"]
    assert said.row("slow[lr=0.1]")[:3] == ["2", "slow[lr=0.1]", "0.000"]  # exactly four times as slow
    assert said.row("slow[lr=0.1]", 2) == [
        "2", "slow[lr=0.1]", "4,000", "4,000–4,000", "4.00", "1/1", "1/1", "0.98"
    ]  # fmt: skip
    assert said.row("fast", 3) == ["—", "fast", "miss", "—", "—", "0/1", "0/1", "—"]
    names = {"cells", "leaderboard.csv", "leaderboard.md", "cells.csv", "cells.parquet", "evals.parquet"}
    assert {path.name for path in folder.iterdir()} >= names
    csv = pd.read_csv(folder / "leaderboard.csv")
    assert csv["label"].tolist() == ["fast", "slow[lr=0.1]"] and csv["score"].tolist() == [0.5, 0]
    assert csv["digits/median"].tolist() == [1000, 4000] and set(csv["by"]) == {"samples"}
    for cells in (pd.read_csv(folder / "cells.csv"), pd.read_parquet(folder / "cells.parquet")):
        assert len(cells) == 4 and cells["samples_to_target"].max() == math.inf
    assert pd.read_parquet(folder / "evals.parquet")["label"].tolist() == ["slow[lr=0.1]"]
    assert (folder / "leaderboard.md").read_text().startswith("# exp\n\n## On embedded data\n")


def test_five_studies_have_an_interval_and_the_baselines_speed(tmp_path: Path, capsys: Capture) -> None:
    write_grid(tmp_path, {("w", "adamw"): [900, 1000, 1000, 1000, 1100], ("w", "lion"): [500] * 5})
    said = run(capsys, tmp_path)
    assert said.row("lion") == ["1", "lion", "1.000", "1.000–1.000", "100 %", "2.00 (1.80–2.20)"]
    assert said.row("adamw")[5] == "1.00 (1.00–1.00)" and "× adamw" in said.out
    assert said.row("lion", 1) == ["1", "lion", "100 %", "100 %", "5", "1", "10k", "10"]
    assert said.row("adamw", 2)[2:5] == ["1,000", "900–1,100", "2.00"]


@pytest.mark.parametrize(
    ("options", "scores", "extra"),
    [
        ((), {"adamw": 1, "lion": 0.5}, "1 workload, by samples, misses beyond 4×"),
        (("--by", "seconds"), {"adamw": 1, "lion": 0.5}, "by seconds"),
        (("--by", "steps"), {"adamw": 1, "lion": 0.5}, "by steps"),
        (("--tau-max", "2"), {"adamw": 1, "lion": 0}, "misses beyond 2×"),
        (("--tau-max", "7"), {"adamw": 1, "lion": 0.75}, "misses beyond 7×"),
        (("--study-pick", "eval_index"), {"adamw": 1, "lion": 0.5}, "studies' trials by evaluation index"),
        # ratio 2.5 lies between points 49 (2.4848…) and 50 of 0…99: 49 whole steps and a half
        (("--integral", "trapezoid"), {"adamw": 1, "lion": 49.5 / 99}, "AlgoPerf's integral"),
        (("--baseline", "lion"), {"adamw": 1, "lion": 0.5}, "× lion"),
        (("--resamples", "0"), {"adamw": 1, "lion": 0.5}, "too few studies"),
    ],
)
def test_options(two: Path, capsys: Capture, options: tuple, scores: dict, extra: str) -> None:
    for cell in (two / "cells").iterdir():  # eval_index needs one
        file = cell / "status.json"
        file.write_text(file.read_text().replace('"hit": true', '"hit": true, "eval_index_to_target": 3'))
    said = run(capsys, two, *options)
    assert extra in " ".join(said.out.split())
    csv = pd.read_csv(two / "leaderboard.csv").set_index("label")
    assert csv["score"].to_dict() == pytest.approx(scores)
    faster = 2.5 if "--baseline" in options else 0.4
    other = "adamw" if "--baseline" in options else "lion"
    assert csv.loc[other, "speedup"] == pytest.approx(faster)


def test_by_eval_index_another_trial_may_stand_for_a_study(tmp_path: Path, capsys: Capture) -> None:
    write_cell(tmp_path, "a", trial=0, at=2000, eval_index_to_target=1)
    write_cell(tmp_path, "a", trial=1, at=1000, eval_index_to_target=2)
    for trial in (0, 1):
        write_cell(tmp_path, "b", trial=trial, at=1000, eval_index_to_target=9)
    for pick, score_of_a in (("time", 1), ("eval_index", 2 / 3)):
        run(capsys, tmp_path, "--study-pick", pick)
        csv = pd.read_csv(tmp_path / "leaderboard.csv").set_index("label")
        assert csv.loc["a", "score"] == pytest.approx(score_of_a), pick


def test_the_seed_moves_the_intervals_alone(tmp_path: Path, capsys: Capture) -> None:
    chance = {
        ("w", label): [100 + (k * 37 + n * 11) % 60 for k in range(5)] for n, label in enumerate("abcd")
    }
    write_grid(tmp_path, chance)
    boards = []
    for options in ((), ("--seed", 0), ("--seed", 1), ("--seed", 0, "--resamples", 50)):
        run(capsys, tmp_path, *options)
        boards.append(pd.read_csv(tmp_path / "leaderboard.csv"))
    first, same, other, fewer = boards
    pd.testing.assert_frame_equal(first, same)
    for board in (other, fewer):
        assert board["score"].equals(first["score"])
        assert not board[["low", "high", "rank_stability"]].equals(first[["low", "high", "rank_stability"]])


def test_v06_comes_out_as_published(tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "v06"
    args = (V06, folder, "--ruleset", "external_tuning", "--quiet")
    assert call(import_logs.main, capsys, *args).code == 0
    said = run(capsys, folder, "--compat", "--study-pick", "eval_index")
    assert said.row("shampoo")[:3] == ["1", "shampoo", "0.6244"]
    assert said.row("baseline")[:3] == ["2", "baseline", "0.4590"]
    assert said.lines[0] == "4 of 240 imported trials have no evaluations and are ignored"
    assert "8 workloads, by seconds" in said.out and "On real data, external tuning" in said.out
    assert {"leaderboard.csv", "leaderboard.md"} <= {path.name for path in folder.iterdir()}
    exact = run(capsys, folder).row("shampoo")[2]
    assert len(exact) == 5 and float(exact) == pytest.approx(0.62, abs=0.1)  # by time, exact: three decimals
    why = "samples are not recorded", "each submission counts its own steps"
    for by, words in zip(("samples", "steps"), why, strict=True):
        assert (
            words in refused(capsys, folder, "--by", by)
            and refused(capsys, folder, "--by", by)[-11:] == ("compares them"[-11:])
        )


def test_scoring_again_gives_the_same_bytes(two: Path, capsys: Capture) -> None:
    said = run(capsys, two)
    names = ("leaderboard.csv", "leaderboard.md", "cells.csv", "cells.parquet", "evals.parquet")
    before = {name: (two / name).read_bytes() for name in names}
    assert run(capsys, two) == said
    assert {name: (two / name).read_bytes() for name in names} == before
    assert not [path for path in two.iterdir() if path.name.endswith(".tmp")]


def test_provisional_targets_and_workloads_without_one_are_named(tmp_path: Path, capsys: Capture) -> None:
    for label in "ab":
        write_cell(tmp_path, label, "sure")
        write_cell(tmp_path, label, "unsure", provisional=True)
        write_cell(tmp_path, label, "aimless", at=None, target=None)
    said = run(capsys, tmp_path)
    assert (
        "provisional target, published elsewhere and not reproduced here (conf/targets): unsure" in said.lines
    )
    assert "not ranked, no target: aimless" in said.lines
    assert "2 workloads" in said.out and said.row("a")[2] == "1.000"


def test_one_algorithm_alone_is_said_to_be_alone(tmp_path: Path, capsys: Capture) -> None:
    write_grid(tmp_path, {("w", "a"): [10, 20]})
    assert "only one algorithm: there is nothing to rank it against" in run(capsys, tmp_path).lines


# -- hostile names -----------------------------------------------------------------------------------


def test_hostile_labels(tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "a [b] | <i>"
    for place, label in enumerate(HOSTILE):
        for study in (0, 1):
            write_cell(folder, label, "w|<b>", study, at=1000 + 100 * place, id=f"c{place}{study}")
    for label in (HOSTILE[2], ":smile:"):
        write_cell(folder, label, "w|<b>", 2, status="failed", id=f"c{label[:3]}")
    said = run(capsys, folder)
    tables = [line for line in said.lines if line.startswith(("|", "+"))]
    assert max(map(len, tables)) <= 80 and "\x1b" not in said.out
    for label in (HOSTILE[0], *HOSTILE[5:]):
        assert said.row(label)[1] == label
    assert "alert(1)" in said.out and said.out.count("x" * 10) > 20  # folded, whole
    assert "w|<b>: accuracy ≥ 0.97" in said.out and ":smile: · study 2" in said.out
    assert pd.read_csv(folder / "leaderboard.csv")["label"].tolist() == list(HOSTILE)
    page = (folder / "leaderboard.md").read_text()
    assert page.startswith("# a \\[b] \\| &lt;i>\n") and "<script" not in page and "<b>" not in page
    rows = [line.replace("\\|", "") for line in page.splitlines() if line.startswith("| ")]
    assert {row.count("|") for row in rows if " too few studies " in row} == {6}  # five words each
    assert "two lines" in page and "\\[red]" in page and "\\`ls\\`" in page and " a\\\\ " in page


@pytest.mark.parametrize("label", HOSTILE)
def test_hostile_labels_in_messages_are_one_line(tmp_path: Path, capsys: Capture, label: str) -> None:
    write_cell(tmp_path, label, id="one")
    assert " ".join(label.split()) in refused(capsys, tmp_path)
    write_cell(tmp_path, label, id="two")
    assert "2 cells claim" in refused(capsys, tmp_path) and "one and two" in refused(capsys, tmp_path)


# -- bad input ---------------------------------------------------------------------------------------


def test_a_folder_with_nothing_to_score(tmp_path: Path, capsys: Capture) -> None:
    write_cell(tmp_path / "there" / "exp")
    (tmp_path / "empty").mkdir()
    assert "no such folder" in refused(capsys, tmp_path / "nowhere")
    assert "holds no cells" in refused(capsys, tmp_path / "empty")
    assert "did you mean" in refused(capsys, tmp_path / "there")
    file = tmp_path / "file"
    file.write_text("x")
    assert "no such folder" in refused(capsys, file)


def test_a_cells_folder_names_its_experiment(two: Path, capsys: Capture) -> None:
    cell = sorted((two / "cells").iterdir())[0]
    line = refused(capsys, cell)
    assert "the folder of one cell" in line and line.endswith(f"pass its experiment, {os.path.relpath(two)}")


def test_one_cell(tmp_path: Path, capsys: Capture) -> None:
    write_cell(tmp_path, at=640).append_eval({"steps": 1, "validation/accuracy": 0.98})
    line = refused(capsys, tmp_path)
    assert line.startswith(
        "only one cell, digits · adamw · study 0 · trial 0, which reached its target at 640 samples"
    )
    assert "best accuracy on digits: 0.98" in line and "needs a second algorithm" in line
    assert line.endswith(f"; to see the results so far: python -m runner.report {tmp_path}")
    write_cell(tmp_path, at=None)
    assert "did not reach its target" in refused(capsys, tmp_path)


def test_nothing_finished_all_missed_no_target(tmp_path: Path, capsys: Capture) -> None:
    for study, status in enumerate(("failed", "running", "failed")):
        write_cell(tmp_path / "unfinished", study=study, status=status)
    line = refused(capsys, tmp_path / "unfinished")
    assert line.startswith("no finished cell to score: 2 failed, 1 running; 2 failed (")
    assert line.endswith(f"python -m runner.retry {tmp_path / 'unfinished'} --states failed")
    assert len(pd.read_csv(tmp_path / "unfinished" / "cells.csv")) == 3  # the table helps to find out why
    write_grid(tmp_path / "missed", {("w", "a"): [None, None], ("w", "b"): [None]})
    line = refused(capsys, tmp_path / "missed")
    assert line.startswith("all missed: none of the 3 finished cells") and "python -m runner.report " in line
    write_grid(tmp_path / "aimless", {("w", "a"): [None, None]}, target=None)
    assert "no workload has a target" in refused(capsys, tmp_path / "aimless")
    assert not (tmp_path / "missed" / "leaderboard.csv").exists()


def imported(tmp_path: Path, capsys: Capture) -> Path:
    logs = tmp_path / "logs"
    for label, time in (("a", 10), ("b", 20)):
        folder = logs / label / "study_0" / "fastmri_jax" / "trial_1"
        folder.mkdir(parents=True)
        rows = f"global_step,score,accumulated_submission_time,validation/ssim\n1,{time},{time},0.8\n"
        (folder / "eval_measurements.csv").write_text(rows)
        meta = '{"workload.target_metric_name": "ssim", "workload.validation_target_value": 0.7}'
        (folder / "meta_data_0.json").write_text(meta)
    assert call(import_logs.main, capsys, logs, tmp_path / "import").code == 0
    return tmp_path / "import"


@pytest.mark.parametrize("name", ["cells.parquet", "evals.parquet"])
def test_a_damaged_import(tmp_path: Path, capsys: Capture, name: str) -> None:
    folder = imported(tmp_path, capsys)
    run(capsys, folder)
    whole = (folder / name).read_bytes()
    for damage in (b"torn", whole[: len(whole) // 2], b""):
        (folder / name).write_bytes(damage)
        assert "cannot be read" in refused(capsys, folder)
    (folder / name).unlink()
    assert "import the logs again" in refused(capsys, folder)


@pytest.mark.parametrize("column", ["label", "study", "status", "seconds_to_target", "best_metric"])
def test_an_import_without_a_column(tmp_path: Path, capsys: Capture, column: str) -> None:
    folder = imported(tmp_path, capsys)
    pd.read_parquet(folder / "cells.parquet").drop(columns=column).to_parquet(folder / "cells.parquet")
    assert f"no column {column}" in refused(capsys, folder)


def test_times_that_are_no_times(tmp_path: Path, capsys: Capture) -> None:
    folder = imported(tmp_path, capsys)
    cells = pd.read_parquet(folder / "cells.parquet")
    for value, words in (("soon", "not a number"), (-1.0, "never negative")):
        cells.assign(seconds_to_target=value).to_parquet(folder / "cells.parquet")
        assert words in refused(capsys, folder)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--baseline", "adam"), "no algorithm here is called adam: did you mean adamw?"),
        (("--tau-max", "1"), "--tau-max 1: must be a number above 1"),
        (("--tau-max", "nan"), "must be a number above 1"),
        (("--tau-max", "inf"), "must be a number above 1"),
        (("--resamples", "-1"), "--resamples -1: must be 0 or more"),
        (("--seed", "-1"), "--seed -1: must be 0 or more"),
        (("--study-pick", "eval_index"), "no column eval_index_to_target"),
        (("--compat", "--integral", "exact"), "remove --integral exact"),
        (("--check",), "is not a published leaderboard"),
    ],
)
def test_options_without_sense(two: Path, capsys: Capture, options: tuple, words: str) -> None:
    assert words in refused(capsys, two, *options)
    assert not (two / "leaderboard.csv").exists()


def test_argparse_refuses_what_it_does_not_know(two: Path, capsys: Capture) -> None:
    for options in (("--by", "hours"), ("--integral", "simpson"), ("--zap",), ("--tau-max", "four")):
        with pytest.raises(SystemExit) as end:
            score.main([str(two), *options])
        assert end.value.code == 2 and capsys.readouterr().out == ""


def test_a_folder_that_cannot_be_written(two: Path, capsys: Capture) -> None:
    """Costs the files: the board is there to be read."""
    before = run(capsys, two)
    (two / "cells.csv").unlink()
    (two / "cells.csv").mkdir()
    said = run(capsys, two)
    assert said.out == before.out and "cannot be written" in said.err and said.err.startswith("warning: ")


def test_stale_cells_on_a_board_come_with_their_retry(tmp_path: Path, capsys: Capture) -> None:
    write_cell(tmp_path, "a", source="s", sources={"runner.train.loop": "before"})
    write_cell(tmp_path, "b", source="t", sources={"runner.train.loop": current("runner.train.loop")})
    line = refused(capsys, tmp_path)
    assert "cannot share a leaderboard: source (runner.train.loop)" in line and "--allow-mixed" in line
    assert line.endswith(f"to train the stale cells again: python -m runner.retry {tmp_path} --states stale")


def test_the_report_is_written_last_unless_it_is_not_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label, at in (("adamw", 1000.0), ("lion", 2000.0)):
        write_cell(tmp_path / "exp", label, at=at)
    assert score.main([str(tmp_path / "exp")]) == 0
    page = tmp_path / "exp" / "report.html"
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {page}"
    assert "<html" in page.read_text() and "lion" in page.read_text()
    page.unlink()
    assert score.main([str(tmp_path / "exp"), "--no-report"]) == 0
    assert not page.exists()

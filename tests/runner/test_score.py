"""The board: the rules on small tables, and the command from a user's point of view."""

from __future__ import annotations

import json
import math
import random
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner import score
from runner.errors import UserError
from runner.score import leaderboard, study_costs
from runner.tables import load
from tests.experiments import write_cell

Place = tuple[str, str, int, int, float | None]  # workload, label, study, trial, samples to target


def table(*places: Place, **columns: Any) -> pd.DataFrame:
    """A table of finished cells."""
    rows = [
        {
            "id": f"{workload}{label}{study}{trial}", "workload": workload, "label": label, "study": study,
            "trial": trial, "status": "done", "hit": at is not None, "best_metric": 0.5, "metric": "accuracy",
            "target": 0.9, "minimize": False, "open_division": False,
            **{f"{unit}_to_target": math.inf if at is None else at for unit in score.UNITS}, **columns,
        }
        for workload, label, study, trial, at in places
    ]  # fmt: skip
    return pd.DataFrame(rows)


def column(board: pd.DataFrame, name: str) -> dict[Any, Any]:
    return board.set_index("label")[name].to_dict()


# -- the rules ---------------------------------------------------------------------------------------


def test_a_study_counts_with_its_fastest_trial_that_hit() -> None:
    cells = table(("w", "a", 0, 1, 30), ("w", "a", 0, 2, 10), ("w", "a", 0, 3, None), ("w", "a", 1, 1, None))
    assert study_costs(score.records(cells), "samples") == {0: 10, 1: math.inf}


@pytest.mark.parametrize(
    ("studies", "cost"),
    [
        ([7], 7), ([None], math.inf), ([1, 3, 100], 3), ([1, 3], 2), ([1, None], math.inf), ([1, 2, None], 2),
        ([1, 2, None, None], math.inf), ([4, 2, 6, None], 5), ([None, None], math.inf),
    ],
)  # fmt: skip
def test_the_median_over_studies(studies: list[float | None], cost: float) -> None:
    cells = table(*(("w", "a", study, 0, at) for study, at in enumerate(studies)))
    board = leaderboard(cells)
    assert board["samples"].tolist() == [cost]
    assert board["hit_rate"].tolist() == [sum(at is not None for at in studies) / len(studies)]


def test_an_absent_study_is_absent_and_an_unfinished_cell_counts_nowhere() -> None:
    cells = table(("w", "a", 0, 0, 10), ("w", "a", 1, 0, 20), ("w", "a", 2, 0, None), ("w", "b", 0, 0, 11))
    cells.loc[2, "status"] = "failed"
    board = leaderboard(cells)
    assert column(board, "samples") == {"a": 15, "b": 11}
    assert column(board, "finished") == {"a": 2, "b": 1} and column(board, "studies") == {"a": 2, "b": 1}
    assert column(board, "hit_rate") == {"a": 1, "b": 1} and column(board, "rank") == {"b": 1, "a": 2}


def test_a_diverged_cell_is_a_miss() -> None:
    cells = table(("w", "a", 0, 0, None), ("w", "b", 0, 0, 5))
    cells.loc[0, "status"] = "diverged"
    board = leaderboard(cells)
    assert column(board, "samples") == {"a": math.inf, "b": 5} and column(board, "hits") == {"a": 0, "b": 1}


def test_algorithms_rank_by_the_geometric_mean_of_their_ratios() -> None:
    cells = table(
        ("v", "a", 0, 0, 100), ("w", "a", 0, 0, 80), ("v", "b", 0, 0, 300), ("w", "b", 0, 0, 10),
        ("v", "c", 0, 0, 900), ("w", "c", 0, 0, 90),
    )  # fmt: skip
    board = leaderboard(cells)
    scores = column(board, "score")
    assert scores["a"] == pytest.approx(math.sqrt(1 * 8)) and scores["b"] == pytest.approx(math.sqrt(3 * 1))
    assert scores["c"] == pytest.approx(math.sqrt(9 * 9))
    assert column(board, "rank") == {"b": 1, "a": 2, "c": 3}
    assert board["label"].tolist() == ["b", "b", "a", "a", "c", "c"]


def test_misses_come_last_and_more_hits_first() -> None:
    cells = table(
        ("u", "all", 0, 0, 900), ("v", "all", 0, 0, 900), ("w", "all", 0, 0, 900),
        ("u", "two", 0, 0, 1), ("v", "two", 0, 0, 1), ("w", "two", 0, 0, None),
        ("u", "absent", 0, 0, 2), ("v", "absent", 0, 0, 2),
        ("u", "none", 0, 0, None), ("v", "none", 0, 0, None), ("w", "none", 0, 0, None),
    )  # fmt: skip
    board = leaderboard(cells)
    assert column(board, "rank") == {"all": 1, "two": 2, "absent": 3, "none": 4}
    scores = column(board, "score")
    assert scores["all"] == pytest.approx((900 * 900) ** (1 / 3))
    assert all(math.isinf(scores[label]) for label in ("two", "absent", "none"))


def test_a_workload_that_nobody_hits_or_without_a_target_ranks_nobody() -> None:
    hard = [("hard", label, 0, 0, None) for label in "ab"]
    cells = table(("w", "a", 0, 0, 10), ("w", "b", 0, 0, 20), *hard)
    aimless = table(("free", "a", 0, 0, None), target=math.nan, samples_to_target=math.nan)
    board = leaderboard(pd.concat([cells, aimless], ignore_index=True))
    assert column(board, "score") == {"a": pytest.approx(1), "b": pytest.approx(2)}


def test_equals_share_a_rank_and_a_target_reached_at_once_divides_by_nothing() -> None:
    board = leaderboard(table(("w", "a", 0, 0, 0), ("w", "b", 0, 0, 0), ("w", "c", 0, 0, 5)))
    assert column(board, "rank") == {"a": 1, "b": 1, "c": 3}
    assert column(board, "ratio") == {"a": 1, "b": 1, "c": math.inf}


def test_by_chooses_what_is_compared() -> None:
    cells = table(("w", "a", 0, 0, 10), ("w", "b", 0, 0, 20))
    cells["seconds_to_target"] = [4.0, 1.0]
    assert column(leaderboard(cells), "rank") == {"a": 1, "b": 2}
    board = leaderboard(cells, by="seconds")
    assert column(board, "rank") == {"b": 1, "a": 2} and column(board, "score") == {
        "b": 1,
        "a": pytest.approx(4),
    }


def test_two_cells_in_one_place_are_refused_by_name_unless_one_is_unfinished() -> None:
    cells = table(("w", "a", 0, 1, 10), ("w", "a", 0, 1, 20), ("w", "b", 0, 0, 20))
    cells["id"] = ["first", "second", "third"]
    with pytest.raises(UserError, match=r"w · a · study 0 · trial 1: first and second"):
        leaderboard(cells)
    cells.loc[1, "status"] = "failed"
    assert column(leaderboard(cells), "samples") == {"a": 10, "b": 20}


def test_unlike_cells_are_refused_where_the_unit_makes_them_unlike() -> None:
    cells = table(("w", "a", 0, 0, 10), ("w", "b", 0, 0, 20))
    cells["threads"] = [1, 4]
    assert len(leaderboard(cells)) == 2
    with pytest.raises(UserError, match="threads is 1 and 4; --by samples compares them"):
        leaderboard(cells, by="seconds")
    cells["target"] = [0.9, 0.8]
    with pytest.raises(UserError, match=r"cells of w cannot share a board: target is 0.8 and 0.9"):
        leaderboard(cells)


def test_nothing_finished_is_the_users_mistake() -> None:
    cells = table(("w", "a", 0, 0, None), ("w", "a", 1, 0, None), ("w", "a", 2, 0, None))
    cells["status"] = ["failed", "running", "failed"]
    with pytest.raises(UserError, match="no finished cell to score: 2 failed, 1 running"):
        leaderboard(cells)


COST = st.one_of(st.none(), st.integers(1, 50))
CELLS = st.dictionaries(
    st.tuples(st.sampled_from("vw"), st.sampled_from("abc"), st.integers(0, 3), st.integers(0, 2)),
    COST,
    min_size=1,
)


@settings(max_examples=60, deadline=None)
@given(CELLS, st.randoms(use_true_random=False))
def test_it_agrees_with_the_rules_written_out(places: dict[Any, float | None], chance: random.Random) -> None:
    rows = [(*place, at) for place, at in places.items()]
    board = leaderboard(table(*rows))
    costs = {}
    for workload, label in {(w, a) for w, a, _, _ in places}:
        per_study = {}
        for (w, a, study, _), at in places.items():
            if (w, a) == (workload, label):
                per_study[study] = min(per_study.get(study, math.inf), math.inf if at is None else at)
        costs[workload, label] = statistics.median(per_study.values())
    assert {(r.workload, r.label): r.samples for r in board.itertuples()} == costs
    chance.shuffle(rows)
    pd.testing.assert_frame_equal(leaderboard(table(*rows)), board)
    contested = [w for w in "vw" if any(math.isfinite(c) for (v, _), c in costs.items() if v == w)]
    for label, value in column(board, "score").items():
        ratio = 1.0
        for w in contested:
            ratio *= costs.get((w, label), math.inf) / min(c for (v, _), c in costs.items() if v == w)
        expected = ratio ** (1 / len(contested)) if contested else math.inf
        assert value == pytest.approx(expected) or (not contested and math.isinf(value))


# -- the command -------------------------------------------------------------------------------------


def run_score(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, list[str], str]:
    code = score.main([str(arg) for arg in args])
    captured = capsys.readouterr()
    return code, captured.out.splitlines(), captured.err


def test_the_command_writes_the_tables_and_prints_the_board(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cell(tmp_path, "slow[lr=0.1]", at=4000).append_eval({"steps": 1, "validation/accuracy": 0.98})
    write_cell(tmp_path, "fast", at=1000, open_division=True)
    write_cell(tmp_path, "fast", at=None, workload="mnist[target=0.5]", target=0.5)
    write_cell(tmp_path, "fast", study=1, status="failed", error="boom")
    write_cell(tmp_path, "slow[lr=0.1]", study=1, status="running")
    code, lines, errors = run_score(capsys, tmp_path)
    out = "\n".join(lines)
    assert code == 0 and errors == ""
    tables = [line for line in lines if line.startswith(("|", "+"))]
    assert max(len(line) for line in tables) <= 80 and "\x1b" not in out
    assert "digits: accuracy ≥ 0.97" in out and "mnist[target=0.5]: accuracy ≥ 0.5" in out
    row = next(line for line in lines if "slow[lr=0.1]" in line and "4,000" in line)
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        "2", "slow[lr=0.1]", "4,000", "4", "400", "1/1", "1", "0.98"
    ]  # fmt: skip
    assert any("fast (open)" in line and "1,000" in line for line in lines) and "miss" in out
    assert "hit by nobody, so not ranked: mnist[target=0.5]" in out
    assert lines[-1] == (
        "not finished: 1 failed (digits · fast · study 1 · trial 0), "
        "1 running (digits · slow[lr=0.1] · study 1 · trial 0)"
    )
    written = pd.read_csv(tmp_path / "leaderboard.csv")
    assert written["label"].tolist() == ["fast", "fast", "slow[lr=0.1]"] and written["rank"].tolist() == [
        1,
        1,
        2,
    ]
    for cells in (pd.read_csv(tmp_path / "cells.csv"), pd.read_parquet(tmp_path / "cells.parquet")):
        assert len(cells) == 5 and cells["samples_to_target"].max() == math.inf
    assert pd.read_parquet(tmp_path / "evals.parquet")["label"].tolist() == ["slow[lr=0.1]"]
    again = run_score(capsys, tmp_path, "--by", "seconds")
    assert again[0] == 0 and not [path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp")]


def test_a_long_list_of_unfinished_cells_is_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cell(tmp_path)
    for study in range(1, 10):
        write_cell(tmp_path, study=study, status="oom")
    _, lines, _ = run_score(capsys, tmp_path)
    assert lines[-1].startswith("not finished: 9 oom (digits · adamw · study 1 ") and lines[-1].endswith(
        "and 3 more)"
    )


def test_mistakes_are_one_line_and_exit_code_2(tmp_path: Path, command: Callable[..., Any]) -> None:
    unfinished = tmp_path / "unfinished"
    write_cell(unfinished, status="failed", error="boom")
    for folder, message in (
        (tmp_path / "nowhere", "no such folder"),
        (tmp_path, "holds no cells; did you mean"),
        (unfinished, "no finished cell to score: 1 failed"),
    ):
        done = command(str(folder), module="runner.score")
        assert (done.returncode, done.stdout) == (2, "") and done.stderr.count("\n") == 1
        assert done.stderr.startswith("error: ") and message in done.stderr
    assert len(pd.read_csv(unfinished / "cells.csv")) == 1


def test_a_folder_that_cannot_be_written_is_said_to_be_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cell(tmp_path)
    (tmp_path / "cells.csv").mkdir()
    code, _, errors = run_score(capsys, tmp_path)
    assert code == 2 and "cannot be written" in errors and errors.count("\n") == 1


def test_provisional_targets_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for workload in ("sure", "unsure"):
        write_cell(tmp_path / "x", workload=workload)
    card = next((tmp_path / "x" / "cells").glob("unsure*")) / "cell.json"
    card.write_text(card.read_text().rstrip().removesuffix("}") + ', "provisional": true}')
    assert score.main([str(tmp_path / "x")]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "provisional" in line]
    assert line.endswith("conf/targets): unsure")


def test_data_of_different_kinds_never_share_a_board(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = {"digits": "embedded", "drawn": "synthetic", "cifar10": "real", "cifar10_npz": "jpeg75"}
    for workload, data in kinds.items():
        for label, at in (("a", 100.0), ("b", 200.0)):
            folder = write_cell(tmp_path / "x", label, workload, at=at)
            card = folder.path / "cell.json"
            card.write_text(json.dumps({**json.loads(card.read_text()), "data": data}))
    assert score.main([str(tmp_path / "x")]) == 0
    out = capsys.readouterr().out
    headings = [line.split()[1] for line in out.splitlines() if line.startswith("On ")]
    assert headings == ["embedded", "jpeg75", "real"] and "2 workloads, by samples" in out
    board = pd.read_csv(tmp_path / "x" / "leaderboard.csv")
    ranked = board[board["workload"] == "cifar10_npz"]
    assert ranked["rank"].tolist() == [1, 2] and set(ranked["data"]) == {"jpeg75"}
    with pytest.raises(UserError, match="embedded and jpeg75 and real data never share a board"):
        leaderboard(load(tmp_path / "x")[0])

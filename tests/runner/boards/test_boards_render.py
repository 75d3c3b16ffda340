"""Boards as words: numbers, intervals, marks; the same on a terminal and in Markdown."""

from __future__ import annotations

import io
import math

import pandas as pd
import pytest
from rich.console import Console

from runner.base.errors import UserError
from runner.boards.board import Board, boards, flat
from runner.boards.render import markdown, show
from runner.boards.rules import Rules, unit_of, variants_of
from runner.boards.sheets import LEVEL, number, percent, rough, sheets_of

NAN, MISS = math.nan, math.inf


def cells(*rows: tuple, **more: object) -> pd.DataFrame:
    """From (workload, label, study, trial, samples to target)."""
    table = pd.DataFrame(rows, columns=["workload", "label", "study", "trial", "samples_to_target"])
    facts = {"status": "done", "best_metric": 0.5, "metric": "accuracy", "minimize": False, "target": 0.9}
    return table.assign(id=[str(place) for place in range(len(rows))], **{**facts, **more})


def one(table: pd.DataFrame, rules: Rules | None = None) -> Board:
    (board,) = boards(table, rules or Rules(resamples=20))
    return board


def shown(board: Board, width: int = 80, terminal: bool = False) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, highlight=False, emoji=False, force_terminal=terminal)
    show([board], ["top [b]"], ["end: python -m x 'a [b]'"], console)
    return file.getvalue()


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.12344, "0.1234"), (999.4, "999.4"), (1000, "1,000"), (9_999_999, "9,999,999"),
     (12_345_678, "1.23e+07"), (-0.5, "-0.5"), (MISS, "miss"), (NAN, "miss"), (None, "miss")],
)  # fmt: skip
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (368.4, "368"), (9_999, "9,999"), (21_900, "21.9k"), (2_190_000, "2.19M"), (3.21e9, "3.21G"),
     (NAN, "—"), (None, "—")],
)  # fmt: skip
def test_rough_numbers(value: float, text: str) -> None:
    assert rough(value) == text


def test_percents() -> None:
    assert [percent(share) for share in (0, 0.125, 0.666, 1, NAN, None)] == [
        "0 %", "12 %", "67 %", "100 %", "—", "—"
    ]  # fmt: skip


def test_places_on_a_workload_are_shared_by_equals_and_none_is_a_miss() -> None:
    table = cells(("w", "a", 0, 0, 10), ("w", "b", 0, 0, 10), ("w", "c", 0, 0, 20), ("w", "d", 0, 0, MISS))
    ranking, _, workload = sheets_of(one(table))
    assert [row[:2] for row in workload.rows] == [["1", "a"], ["1", "b"], ["3", "c"], ["—", "d"]]
    assert [row[0].rstrip(LEVEL) for row in ranking.rows] == ["1", "1", "3", "4"]
    assert workload.rows[3][2:5] == ["miss", "—", "—"] and workload.title == "w: accuracy ≥ 0.9"


def test_too_few_studies_have_no_interval_in_words_whatever_the_table_holds() -> None:
    four = cells(*(("w", label, study, 0, 10 + study) for label in "ab" for study in range(4)))
    five = cells(*(("w", label, study, 0, 10 + study) for label in "ab" for study in range(5)))
    assert {row[3] for row in sheets_of(one(four))[0].rows} == {"too few studies"}
    assert all("–" in row[3] for row in sheets_of(one(five))[0].rows)
    assert {row[3] for row in sheets_of(one(five, Rules(resamples=0)))[0].rows} == {"—"}


def test_a_rank_that_cannot_be_told_from_the_next_is_marked() -> None:
    rows = [("w", label, study, 0, at) for label, at in (("a", 10), ("b", 11)) for study in range(2)]
    board = one(cells(*rows))
    assert board.ranking["separable_from_next"].iloc[0] is False  # two studies each tell nothing apart
    assert [row[0] for row in sheets_of(board)[0].rows] == [f"1{LEVEL}", "2"]
    many = [("w", label, study, 0, at + study) for label, at in (("a", 10), ("b", 30)) for study in range(9)]
    assert [row[0] for row in sheets_of(one(cells(*many)))[0].rows] == ["1", "2"]


def test_a_minimised_metric_and_a_workload_without_facts() -> None:
    table = cells(("w", "a", 0, 0, 10), ("w", "b", 0, 0, 20), metric="loss", minimize=True, target=0.125)
    assert sheets_of(one(table))[2].title == "w: loss ≤ 0.125"
    bare = table.drop(columns=["metric", "minimize", "target"])
    assert sheets_of(one(bare))[2].title == "w"


def test_marks_stand_beside_the_label_in_both() -> None:
    board = one(cells(("w", "a", 0, 0, 10), ("w", "b", 0, 0, 20)))
    marked = Board(**{**board.__dict__, "marks": {"b": "disputed"}})
    assert "b (disputed)" in shown(marked) and "| b (disputed) |" in markdown("x", [marked], [], [])
    assert "a (" not in shown(marked)


def test_no_escape_codes_when_piped_and_some_on_a_terminal() -> None:
    board = one(cells(("w", "a", 0, 0, 10), ("w", "b", 0, 0, 20)))
    assert "\x1b" not in shown(board) and "\x1b" in shown(board, terminal=True)
    assert shown(board).startswith("top [b]\n") and shown(board).endswith("end: python -m x 'a [b]'\n")


@pytest.mark.parametrize("width", [80, 60])
def test_long_labels_fold_and_lose_nothing(width: int) -> None:
    label = "".join(f"{place:03d}" for place in range(100))
    text = shown(one(cells(("w", label, 0, 0, 10), ("w", "adamw", 0, 0, 20))), width)
    assert max(map(len, text.splitlines())) <= 80
    folded = [line.split("|")[2].strip() for line in text.splitlines() if line.startswith("|")]
    assert label in "".join(folded)


def test_a_command_stays_on_one_line_however_long() -> None:
    file = io.StringIO()
    show([], [], ["x" * 500], Console(file=file, width=80))
    assert file.getvalue() == "x" * 500 + "\n"


def test_the_worth_of_a_ratio_follows_the_limit() -> None:
    table = cells(("w", "a", 0, 0, 10), ("w", "b", 0, 0, 20))
    assert "earns (4 − r) / 3;" in markdown("x", [one(table)], [], [])
    assert "earns (2.5 − r) / 1.5;" in markdown("x", [one(table, Rules(tau_max=2.5))], [], [])


def test_a_board_as_one_flat_table() -> None:
    table = cells(("v", "a", 0, 0, 10), ("v", "b", 0, 0, 20), ("w", "b", 0, 0, 5))
    found = flat([one(table)]).set_index("label")
    assert found.loc["a", ["v/median", "v/ratio", "v/hits"]].tolist() == [10, 1, 1]
    assert found.loc["b", ["v/median", "v/ratio", "w/median", "w/reached"]].tolist() == [20, 2, 5, 0.5]
    assert math.isnan(found.loc["a", "w/median"]) and found.loc["a", "score"] == 0.5
    assert set(found["by"]) == {"samples"} and set(found["data"]) == {"unknown"}


# -- rules -------------------------------------------------------------------------------------------


def test_rules_come_back_from_json_and_a_newer_versions_do_not() -> None:
    rules = Rules(by="steps", tau_max=3, baseline="x", mixed=True)
    assert Rules.from_dict(rules.to_dict()) == rules and Rules.from_dict({}) == Rules()
    with pytest.raises(UserError, match="rules from a newer version: norm"):
        Rules.from_dict({**rules.to_dict(), "norm": 2})


def test_the_usual_baseline_is_adamw_where_there_is_one() -> None:
    def settled(wanted: str | None, *labels: str) -> str | None:
        return Rules(baseline=wanted).settled(pd.DataFrame({"label": labels})).baseline

    assert settled(None, "adamw", "b") == "adamw" and settled(None, "a", "b") is None
    assert settled("b", "adamw", "b") == "b" and settled("b", "adamw", "a") is None


def test_units_of_imports() -> None:
    table = pd.DataFrame()
    assert [unit_of(table, None), unit_of(table, None, imported=True)] == ["samples", "seconds"]
    assert unit_of(table, "steps") == "steps"
    for unit in ("samples", "steps"):
        with pytest.raises(UserError, match=f"--by {unit}: in imported logs"):
            unit_of(table, unit, imported=True)


def test_variants_need_their_base() -> None:
    table = pd.DataFrame({
        "workload": ["w", "w_x", "v_x", "u", "z"], "base_workload": ["w", "w", "v", None, math.nan]
    })  # fmt: skip
    assert variants_of(table) == {"w_x": "w"} and variants_of(table[["workload"]]) == {}


def test_variants_of_a_table_decide_the_base(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("w", "a", 0, 0, 10), ("x", "a", 0, 0, 10), ("w", "b", 0, 0, 10), ("x", "b", 0, 0, MISS)]
    table = cells(*rows)
    plain = one(table).ranking.set_index("label")["score"].to_dict()
    held = one(table.assign(base_workload="w")).ranking.set_index("label")["score"].to_dict()
    assert plain == {"a": 1, "b": 0.5} and held == {"a": 1, "b": 0}


def test_a_row_that_hits_has_reached_its_target_whatever_its_other_trials_did() -> None:
    rows = [("w", "a", study, trial, 10 if trial == 0 else MISS) for study in range(3) for trial in range(3)]
    rows += [("w", "b", study, trial, MISS) for study in range(3) for trial in range(3)]
    table = cells(*rows, best_metric=[0.95, 0.2, 0.3] * 3 + [0.2, 0.8, 0.3] * 2 + [NAN] * 3)
    workload = sheets_of(one(table))[2]
    assert workload.columns[-1] == "reached"
    assert [row[-1] for row in workload.rows] == ["0.95", "0.8"]


@pytest.mark.parametrize(("minimize", "said"), [(True, "0.1"), (False, "0.9")])
def test_where_nothing_hit_the_scored_run_is_the_best_trial(minimize: bool, said: str) -> None:
    table = cells(("w", "a", 0, 0, MISS), ("w", "a", 0, 1, MISS), ("w", "b", 0, 0, 5))
    table = table.assign(best_metric=[0.1, 0.9, 0.5], minimize=minimize)
    assert [row[-1] for row in sheets_of(one(table))[2].rows if row[1] == "a"] == [said]


def test_what_was_reached_follows_the_way_a_trial_is_picked() -> None:
    table = cells(("w", "a", 0, 0, 10), ("w", "a", 0, 1, 20), ("w", "b", 0, 0, 5))
    table = table.assign(best_metric=[0.91, 0.99, 0.95], eval_index_to_target=[4, 2, 1])
    (board,) = boards(table, Rules(pick="eval_index", resamples=0))
    assert sheets_of(board)[2].rows[1][-1] == "0.99"


def test_runs_that_never_had_a_value_have_reached_nothing() -> None:
    table = cells(("w", "a", 0, 0, 10), ("w", "a", 1, 0, MISS), ("w", "b", 0, 0, 5))
    table = table.assign(best_metric=[0.91, NAN, 0.95])
    assert sheets_of(one(table))[2].rows[1][-1] == "—"


def test_a_target_met_by_the_untrained_model_ranks_nobody_by_the_seconds_of_set_up() -> None:
    table = cells(("w", "a", 0, 0, 0), ("w", "b", 0, 0, 0), ("w", "c", 0, 0, 5))
    table = table.assign(seconds_to_target=[0.3, 0.1, 9.0])
    board = one(table, Rules(by="seconds", resamples=0))
    assert [row[:2] for row in sheets_of(board)[2].rows] == [["1", "a"], ["1", "b"], ["3", "c"]]
    assert board.ranking.set_index("label")["score"].tolist()[:2] == [1, 1]
    assert [
        line
        for line in board.notices
        if "already met by the untrained model" in line and line.endswith(": w")
    ]


def test_numbers_stay_whole_on_80_columns() -> None:
    studies = [10240, 14720, 11000, 12000, 13000]
    labels = ["a_label_as_long_as_this_one", *(f"lion[lr=0.000{place}]" for place in range(10))]
    rows = [
        ("cifar10_synthetic", label, study, 0, at) for label in labels for study, at in enumerate(studies)
    ]
    text = shown(one(cells(*rows)))
    assert text.count("10,240–14,720") == len(labels)
    assert max(map(len, text.splitlines())) <= 80

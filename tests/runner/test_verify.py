"""``python -m runner.verify``: cells of a published board run again, honest ones and doctored ones."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from runner import score, verify
from runner.cells.cell import Cell
from runner.train.session import run_cell
from runner.verify import choose, unlike, unlike_summary, within
from tests.experiments import Said, call, refusal, write_grid

Capture = pytest.CaptureFixture[str]
SMALL = (
    "workload=breast_cancer",
    "workload.budget_samples=720",
    "workload.target=0.6",
    "log=none",
    "trial=0",
)
PAGE = "leaderboard.md"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with results/exp (two algorithms, two studies, trained), and its board."""
    here = tmp_path_factory.mktemp("real")
    for label in ("adamw", "lion"):
        for study in (0, 1):
            where = (f"results_dir={here}/results", "name=exp", f"algorithm={label}", f"study={study}")
            cell = Cell.from_overrides([*SMALL, *where])
            cell.submit()
            assert run_cell(cell.folder.path)["status"] == "done"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        assert score.main(["results/exp", "--publish"]) == 0
    return here


@pytest.fixture
def board(real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the board, to be doctored."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(real / "results" / "leaderboards", "results/leaderboards")) / "exp"


@pytest.fixture(scope="module")
def rerun(real: Path) -> tuple[Path, Said]:
    """Every cell of the board run again, once; the folders of the reruns, and what verify said."""
    kept, whole = real / "kept", real / "whole"
    shutil.copytree(real / "results" / "leaderboards" / "exp", whole / "results" / "leaderboards" / "exp")
    import contextlib
    import io

    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.chdir(whole)
        with contextlib.redirect_stderr(err):
            code = verify.main(
                ["results/leaderboards/exp", "--cells", "9", "--workers", "1", "--keep", str(kept)]
            )
    return kept, Said(code, out.getvalue(), err.getvalue())


@pytest.fixture
def again(rerun: tuple[Path, Said], capsys: Capture) -> Callable[..., Said]:
    """verify, with the reruns that are there already: nothing is trained."""
    return lambda board, *args: call(
        verify.main, capsys, board, "--cells", 9, "--workers", 1, "--keep", rerun[0], *args
    )


def row_of(board: Path, label: str, study: int) -> dict[str, Any]:
    cells = pd.read_parquet(board / "cells.parquet")
    return cells.loc[(cells["label"] == label) & (cells["study"] == study)].iloc[0].to_dict()


def doctor(board: Path, name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    change(pd.read_parquet(board / name)).to_parquet(board / name)


def faster(frame: pd.DataFrame, cell: str) -> pd.DataFrame:
    frame.loc[frame["id"] == cell, "samples_to_target"] = 16.0
    return frame


def verdicts(board: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (board / "verifications.jsonl").read_text().splitlines()]


def passes(capsys: Capture, board: Path) -> bool:
    return call(score.main, capsys, board, "--check").code == 0


# -- for real ----------------------------------------------------------------------------------------


def test_honest_cells_are_the_same_bit_for_bit(real: Path, rerun: tuple[Path, Said], capsys: Capture) -> None:
    kept, said = rerun
    assert said.code == 0, said.err
    assert len(said.lines) == 4
    assert all(
        line.startswith("same: ") and line.endswith(": every evaluation, bit for bit") for line in said.lines
    )
    assert "4 cells: 4 done" in said.err and len(list((kept / "verify" / "cells").iterdir())) == 4
    board = real / "whole" / "results" / "leaderboards" / "exp"
    found = verdicts(board)
    assert [row["verdict"] for row in found] == ["same"] * 4 and len({row["id"] for row in found}) == 4
    assert found[0].keys() == {"id", "label", "title", "verdict", "why", "machine", "date", "commit"}
    assert str(real) not in (board / "verifications.jsonl").read_text()
    page = (board / PAGE).read_text()
    assert "Rerun so far: 4 same." in page and str(real) not in page and "disputed" not in page
    assert passes(capsys, board)


def test_a_doctored_evaluation_is_disputed(board: Path, again: Callable[..., Said], capsys: Capture) -> None:
    cell = row_of(board, "lion", 1)["id"]

    def change(evals: pd.DataFrame) -> pd.DataFrame:
        last = evals.index[evals["id"] == cell][-1]
        evals.loc[last, "validation/loss"] = math.nextafter(
            evals.loc[last, "validation/loss"], 0
        )  # the last bit
        return evals

    doctor(board, "evals.parquet", change)
    assert passes(capsys, board)  # no number of the board depends on it
    said = again(board)
    assert said.code == 1
    (line,) = [line for line in said.lines if not line.startswith("same: ")]
    assert line.startswith(
        "disputed: breast_cancer[budget_samples=720,target=0.6] · lion · study 1 · trial 0: "
    )
    assert "the same kind of machine, and validation/loss of evaluation " in line
    page = (board / PAGE).read_text()
    assert "| lion (disputed) |" in page and "adamw (disputed)" not in page and "Rerun so far: " in page
    assert "> **disputed: breast\\_cancer" in page and passes(capsys, board)
    assert [row["id"] for row in verdicts(board) if row["verdict"] == "disputed"] == [cell]
    shown = call(score.main, capsys, board)  # on the terminal, too
    assert shown.lines[0].startswith("disputed: breast_cancer") and "lion (disputed)" in shown.out


def test_doctored_summaries_that_every_printed_number_follows(
    board: Path, again: Callable[..., Said], capsys: Capture
) -> None:
    """Somebody changes the table of cells, and publishes what comes of it: --check finds nothing."""
    cell = row_of(board, "lion", 0)["id"]
    doctor(board, "cells.parquet", lambda cells: faster(cells, cell))
    assert not passes(capsys, board)
    rewrite(board)
    assert passes(capsys, board)
    said = again(board)
    assert said.code == 1
    (line,) = [line for line in said.lines if not line.startswith("same: ")]
    assert "samples_to_target is 480.0 instead of 16.0" in line or "instead of 16.0" in line
    assert "| lion (disputed) |" in (board / PAGE).read_text() and passes(capsys, board)


def rewrite(board: Path) -> None:
    """Print a doctored board's numbers anew."""
    from runner.boards import publish
    from runner.boards.board import boards, flat
    from runner.boards.inputs import read, write_csv

    inputs = read(board)
    assert inputs.rules is not None
    write_csv(
        board / "leaderboard.csv", flat(boards(inputs.cells, inputs.rules, inputs.sources, inputs.workloads))
    )
    publish.refresh(board)


def test_a_dry_run_records_nothing(board: Path, again: Callable[..., Said]) -> None:
    doctor(board, "evals.parquet", lambda evals: evals.assign(steps=evals["steps"] + 1))
    before = {path.name: path.read_bytes() for path in board.iterdir()}
    said = again(board, "--dry-run")
    assert said.code == 1 and len([line for line in said.lines if line.startswith("disputed: ")]) == 4
    assert {path.name: path.read_bytes() for path in board.iterdir()} == before


def test_evaluations_that_are_gone(board: Path, again: Callable[..., Said]) -> None:
    whole = pd.read_parquet(board / "evals.parquet")
    doctor(board, "evals.parquet", lambda evals: evals.iloc[:0])
    assert "evaluations instead of 0" in again(board, "--dry-run").out
    whole.drop(columns="validation/loss").to_parquet(board / "evals.parquet")
    assert again(board, "--dry-run").code == 0  # what is not published is not compared


# -- GPUs, whose kernels add up in another order each time -------------------------------------------


def on_a_gpu(monkeypatch: pytest.MonkeyPatch, deterministic: bool) -> None:
    """The reruns count as those of cells on a GPU."""
    judge = verify.judge

    def judged(inputs: Any, cell: Cell, *rerun: Any) -> verify.Verdict:
        workload = {**cell.config["workload"], "deterministic": deterministic}
        config = {**cell.config, "device": "cuda", "workload": workload}
        return judge(inputs, replace(cell, config=config), *rerun)

    monkeypatch.setattr(verify, "judge", judged)


def noisy(board: Path) -> None:
    doctor(board, "evals.parquet", lambda evals: evals.assign(**{"train/loss": evals["train/loss"] + 1e-6}))


def test_noise_of_a_gpu_is_no_dispute(
    board: Path, again: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy(board)
    assert again(board, "--dry-run").out.count("disputed: ") == 4  # a CPU has none
    on_a_gpu(monkeypatch, deterministic=False)
    said = again(board)
    assert said.code == 0 and said.out.count("agrees: ") == 4
    assert "a GPU without workload.deterministic; " in said.lines[0] and "studies spread" in said.lines[0]
    assert "disputed" not in (board / PAGE).read_text()


def test_a_gpu_that_is_told_to_be_reproducible_has_none(
    board: Path, again: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy(board)
    on_a_gpu(monkeypatch, deterministic=True)
    said = again(board, "--dry-run")
    assert (
        said.code == 1 and said.out.count("disputed: ") == 4 and "the same kind of machine" in said.lines[0]
    )


def test_what_is_further_off_than_the_studies_is_disputed_on_a_gpu_too(
    board: Path, again: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_gpu(monkeypatch, deterministic=False)
    cell = row_of(board, "lion", 0)["id"]
    doctor(board, "cells.parquet", lambda cells: faster(cells, cell))
    said = again(board, "--dry-run")
    assert said.code == 1 and said.out.count("disputed: ") == 1 and said.out.count("same: ") == 3


# -- other source, other machines --------------------------------------------------------------------


def manifest(board: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    file = board / "manifest.json"
    record = json.loads(file.read_text())
    change(record)
    file.write_text(json.dumps(record))


def other_source(record: dict[str, Any]) -> None:
    for modules in record["sources"].values():
        modules["runner.train.loop"] = "before"


def other_machine(record: dict[str, Any]) -> None:
    for machine in record["machines"]:
        machine["value"]["device"] = "another"


def test_other_source_is_said_where_it_led_to_other_numbers(board: Path, again: Callable[..., Said]) -> None:
    manifest(board, other_source)
    assert again(board, "--dry-run").out.count("same: ") == 4  # the same numbers all the same
    doctor(board, "evals.parquet", lambda evals: evals.assign(drawn=evals["drawn"] + 1))
    said = again(board)
    assert said.code == 0 and said.out.count("other source: ") == 4
    assert "runner.train.loop changed since" in said.lines[0] and "disputed" not in (board / PAGE).read_text()
    assert "Rerun so far: 4 other source." in (board / PAGE).read_text()


def test_another_machine_is_held_against_the_spread_of_the_studies(
    board: Path, again: Callable[..., Said]
) -> None:
    manifest(board, other_machine)
    bit = pd.read_parquet(board / "evals.parquet")
    bit["validation/loss"] += 1e-12
    bit.to_parquet(board / "evals.parquet")
    said = again(board, "--dry-run")
    assert said.code == 0 and said.out.count("agrees: ") == 4 and "another machine; " in said.lines[0]
    cell = row_of(board, "lion", 0)["id"]
    doctor(board, "cells.parquet", lambda cells: faster(cells, cell))
    said = again(board, "--dry-run")
    assert said.code == 1 and said.out.count("agrees: ") == 3
    assert "samples to target instead of 16 (studies spread" in said.out


def cells_of(**samples: list[float]) -> pd.DataFrame:
    rows = [
        {"workload": "w", "label": label, "study": study, "trial": 0, "status": "done",
         "samples_to_target": at, "best_metric": 0.9 - 0.01 * study, "minimize": False, "metric": "accuracy"}
        for label, own in samples.items() for study, at in enumerate(own)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("was", "now", "agrees"),
    [
        (100, 100, True), (100, 140, True), (140, 100, True),  # the others: 100 to 140
        (10, 120, False),  # too good: it must not widen the spread that it is held against
        (1000, 120, False),
        (100, 1000, True),  # the rerun is one of the runs that show how far they lie apart
    ],
)  # fmt: skip
def test_hits_within_the_spread(was: float, now: float, agrees: bool) -> None:
    cells = cells_of(a=[was, 100, 120, 140], b=[1, 9, 9, 9])
    old = cells.iloc[0].to_dict()
    assert within(cells, old, {**old, "samples_to_target": float(now)})[0] is agrees


@pytest.mark.parametrize(
    ("was", "now", "best", "agrees"),
    [
        (math.inf, math.inf, 0.90, True), (math.inf, math.inf, 0.885, True),
        (math.inf, math.inf, 0.0, False),
        (math.inf, 100, 0.905, True), (100, math.inf, 0.89, True), (math.nan, math.nan, 0.89, True),
        (math.inf, math.inf, math.nan, False),
    ],
)  # fmt: skip
def test_misses_by_their_best_metric(was: float, now: float, best: float, agrees: bool) -> None:
    cells = cells_of(a=[was, 100, 120, math.inf])
    old = cells.iloc[0].to_dict()
    new = {**old, "samples_to_target": float(now), "best_metric": best}
    assert within(cells, old, new)[0] is agrees


def test_two_runs_that_diverged_at_once_agree() -> None:
    cells = cells_of(a=[math.inf, math.inf]).assign(best_metric=math.nan)
    old = cells.iloc[0].to_dict()
    assert within(cells, old, dict(old))[0] is True


# -- the comparison ----------------------------------------------------------------------------------


def test_the_first_difference_of_two_tables() -> None:
    before = pd.DataFrame(
        {"id": ["x", "x"], "steps": [0, 1], "validation/loss": [0.5, 0.25], "other": [None, 1]}
    )
    before["seconds"], before["clock/eval"] = [0.0, 1.0], [0.0, 1.0]
    now = before.assign(id="y", seconds=9.0, **{"clock/eval": 9.0})
    assert unlike(before, now) is None and unlike(before, now.assign(new=1)) is None
    assert unlike(before, now.iloc[:1]) == "1 evaluations instead of 2"
    changed = now.assign(**{"validation/loss": [0.5, 0.2500001]})
    assert unlike(before, changed) == "validation/loss of evaluation 1 is 0.2500001 instead of 0.25"
    assert unlike(before, now.drop(columns="validation/loss")) == (
        "validation/loss of evaluation 0 is None instead of 0.5"
    )
    row = {"status": "done", "hit": True, "samples_to_target": 3.0, "best_metric": math.nan, "seconds": 1.0}
    assert unlike_summary(row, {**row, "seconds": 2.0, "target": None}) is None
    assert unlike_summary(row, {**row, "hit": False}) == "hit is False instead of True"


def test_the_draw_is_seeded_and_of_finished_cells() -> None:
    cells = pd.DataFrame(
        {"id": list("abcdefgh"), "label": list("xxxxyyyy"), "status": ["done"] * 7 + ["failed"]}
    )
    assert choose(cells, 3, [], None, 1) == choose(cells.iloc[::-1], 3, [], None, 1)
    assert {tuple(choose(cells, 3, [], None, seed)) for seed in range(20)} != {tuple("abc")}
    assert sorted(choose(cells, 99, [], None, 1)) == list("abcdefg")
    assert sorted(choose(cells, 99, [], "y", 1)) == list("efg") and choose(cells, 1, ["d", "a"], None, 1) == [
        "d",
        "a",
    ]


# -- bad input ---------------------------------------------------------------------------------------


def test_bad_input_is_one_line(board: Path, capsys: Capture) -> None:
    cell = row_of(board, "lion", 0)["id"]
    for args, words in (
        (("--cells", 0), "--cells 0: expected 1 or more"),
        (("--cells", -3), "expected 1 or more"),
        (("--id", "nothing"), "--id nothing: no such finished cell on this leaderboard"),
        (("--id", f"{cell[:-1]}x"), f"did you mean {cell}"),
        (("--label", "lyon"), "--label lyon: no such algorithm on this leaderboard; did you mean lion?"),
        (("--workers", 0), "workers: got 0"),
    ):
        assert words in refusal(verify.main, capsys, board, *args), args
    assert not (board / "verifications.jsonl").exists()


def test_what_is_no_published_board(board: Path, capsys: Capture) -> None:
    assert "no such folder" in refusal(verify.main, capsys, "nowhere")
    write_grid(Path("results/exp"), {("digits", "a"): [1], ("digits", "b"): [2]})
    assert "results/exp is not a published leaderboard" in refusal(verify.main, capsys, "results/exp")
    (board / "configs.jsonl.gz").write_bytes(b"torn")
    assert "configs.jsonl.gz cannot be read" in refusal(verify.main, capsys, board)
    record = json.loads((board / "board.json").read_text())
    (board / "board.json").write_text(json.dumps({**record, "imported": True}))
    assert "was imported: there are no configs" in refusal(verify.main, capsys, board)
    (board / "board.json").write_text("{")
    assert "board.json is damaged" in refusal(verify.main, capsys, board)

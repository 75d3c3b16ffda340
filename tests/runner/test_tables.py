"""Reading an experiment's folder: complete, damaged, half finished."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from runner.base.errors import UserError
from runner.cells.cell import Cell
from runner.cells.tables import cell_row, load
from runner.train.session import run_cell
from tests.experiments import write_cell


def test_a_cell_that_was_run_reads_back_what_it_recorded(tmp_path: Path) -> None:
    overrides = [f"results_dir={tmp_path}", "workload=breast_cancer", "algorithm.optimizer.lr=0.01"]
    overrides += ["workload.target=0.3", "workload.budget_samples=3200", "study=2", "trial=0"]
    cell = Cell.from_overrides(overrides)
    cell.submit()
    status = run_cell(cell.folder.path)
    cells, evals = load(tmp_path / "default")
    row = cells.iloc[0]
    assert len(cells) == 1 and row["status"] == "done" and row["id"] == cell.id
    assert row["workload"] == cell.config["workload_label"] and row["label"] == "adamw[lr=0.01]"
    assert (row["study"], row["trial"], row["threads"], row["device"]) == (2, 0, 1, "cpu")
    for key, value in status["summary"].items():
        assert row[key] == value, key
    assert row["hit"] and row["samples_to_target"] == status["summary"]["samples_to_target"]
    assert row["hparam/optimizer.lr"] == 0.01 and row["hparam/optimizer.betas"] == "[0.9, 0.999]"
    assert not [name for name in cells if "_target_" in name]
    assert row["source"] == cell.source and len(row["data_checksum"]) == 16
    written = cell.folder.evals()
    assert len(evals) == len(written) == row["evals"]
    assert evals["validation/loss"].tolist() == [r["validation/loss"] for r in written]
    assert row["best_metric"] == evals["validation/loss"].min()
    assert evals["id"].unique().tolist() == [cell.id] and evals["study"].unique().tolist() == [2]


def test_hit_columns_tell_misses_from_what_is_unfinished_or_has_no_target(tmp_path: Path) -> None:
    write_cell(tmp_path, "hit", at=1200)
    write_cell(tmp_path, "miss", at=None)
    write_cell(tmp_path, "diverged", at=None, status="diverged")
    write_cell(tmp_path, "running", status="running")
    write_cell(tmp_path, "failed", status="failed", error="ValueError: boom")
    write_cell(tmp_path, "aimless", at=None, target=None)
    cells = load(tmp_path)[0].set_index("label")
    assert cells.loc["hit", "samples_to_target"] == 1200
    for unit in ("samples", "seconds", "steps", "drawn"):
        column = cells[f"{unit}_to_target"]
        assert column.dtype == "float64"
        assert math.isinf(column["miss"]) and math.isinf(column["diverged"])
        assert column[["running", "failed", "aimless"]].isna().all()
    assert cells.loc["failed", "error"] == "ValueError: boom" and pd.isna(cells.loc["hit", "error"])
    assert cells.loc["failed", "host"] == "node1"


def test_best_metric_goes_the_metrics_way_and_ignores_nan(tmp_path: Path) -> None:
    up, down = write_cell(tmp_path, "up"), write_cell(tmp_path, "down", metric="loss", minimize=True)
    running = write_cell(tmp_path, "running", status="running")
    for value in (math.nan, 0.5, 0.9, 0.7):
        for folder in (up, down, running):
            folder.append_eval({"validation/accuracy": value, "validation/loss": value})
    best = load(tmp_path)[0].set_index("label")["best_metric"]
    assert best.to_dict() == {"up": 0.9, "down": 0.5, "running": 0.9}


def test_damaged_and_missing_files_cost_what_they_held_and_no_more(tmp_path: Path) -> None:
    torn = write_cell(tmp_path, "torn")
    torn.append_eval({"steps": 1, "validation/accuracy": 0.5})
    with torn.evals_file.open("a") as file:
        file.write('{"steps": 2, "validation/acc')
    bare = write_cell(tmp_path, "bare")
    for file in (bare.status_file, bare.manifest_file, bare.config_file):
        file.unlink()
    old = write_cell(tmp_path, "old")
    (old.path / "cell.json").unlink()
    half = write_cell(tmp_path, "half")
    half.status_file.write_text('{"status": "do')
    cells, evals = load(tmp_path)
    cells = cells.set_index("label")
    assert evals["steps"].tolist() == [1] and evals["label"].tolist() == ["torn"]
    assert cells.loc["torn", "samples_to_target"] == 1000
    assert cells.loc["bare", "status"] == cells.loc["half", "status"] == "pending"
    assert (
        cells.loc["old"]
        .drop(["id", "folder"])
        .equals(cells.loc["torn"].drop(["id", "folder"]).replace(0.5, math.nan))
    )


def test_what_is_no_cell_is_left_out(tmp_path: Path) -> None:
    kept = write_cell(tmp_path, "kept")
    shutil.copytree(kept.path, tmp_path / "superseded" / "old")
    (tmp_path / "cells" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "cells" / "notes.txt").write_text("mine")
    anonymous = write_cell(tmp_path, "anonymous")
    (anonymous.path / "cell.json").unlink()
    anonymous.config_file.write_text("id: [")
    with pytest.warns(UserWarning, match="anonymous.* is skipped"):
        cells, _ = load(tmp_path)
    assert cells["label"].tolist() == ["kept"]


def test_unknown_columns_of_any_kind_survive_and_can_be_written(tmp_path: Path) -> None:
    mixed = {
        "a": (1, "x"),
        "b": ([1], {"k": 2}),
        "c": (1, 2.5),
        "d": (True, False),
        "e": (10**30, 1),
        "f": (3, 4),
    }
    for place, label in enumerate(("first", "second")):
        folder = write_cell(tmp_path, label, **{key: values[place] for key, values in mixed.items()})
        folder.append_eval(
            {key: values[place] for key, values in mixed.items()} | {"label": "impostor", "id": 7}
        )
    folder.append_eval({"f": 5})
    cells, evals = load(tmp_path)
    assert cells["label"].tolist() == ["first", "second"] and evals["label"].tolist() == [
        "first",
        "second",
        "second",
    ]
    assert [str(evals[key].dtype) for key in "cdf"] == ["float64", "boolean", "int64"]
    assert [str(cells[key].dtype) for key in ("c", "d", "f", "study")] == [
        "float64",
        "bool",
        "int64",
        "int64",
    ]
    assert cells["b"].tolist() == ["[1]", '{"k": 2}']
    for table in (cells, evals):
        table.to_parquet(tmp_path / "t.parquet")
        assert pd.read_parquet(tmp_path / "t.parquet").columns.tolist() == table.columns.tolist()


def test_the_order_is_that_of_the_folders_names(tmp_path: Path) -> None:
    for label in ("c", "a", "b"):
        write_cell(tmp_path, label).append_eval({"steps": 1})
    cells, evals = load(tmp_path)
    assert cells["label"].tolist() == evals["label"].tolist() == ["a", "b", "c"]


def test_a_card_that_says_it_all_spares_reading_the_config(tmp_path: Path) -> None:
    folder = write_cell(tmp_path, status="running")
    card = json.loads((folder.path / "cell.json").read_text())
    card |= {"hparams": {"optimizer.lr": 0.5}, "metric": "loss", "minimize": True}
    (folder.path / "cell.json").write_text(json.dumps(card))
    folder.append_eval({"validation/loss": 1.0, "validation/accuracy": 2.0})
    row = cell_row(folder.path)
    assert row["hparam/optimizer.lr"] == 0.5 and row["best_metric"] == 1.0


def test_an_empty_folder_and_an_absent_one_are_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"holds no cells$"):
        load(tmp_path)
    write_cell(tmp_path / "demo")
    with pytest.raises(UserError, match=re.escape(f"did you mean {tmp_path / 'demo'}?")):
        load(tmp_path)
    with pytest.raises(UserError, match="not the folder of a cell"):
        cell_row(tmp_path)


def test_importing_the_tables_imports_no_pandas() -> None:
    code = "import sys, runner, runner.cells.tables; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

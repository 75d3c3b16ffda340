"""AlgoPerf's logs as our tables: published scores come out, and whatever real logs hold is a notice."""

import json
import math
import shutil
import statistics
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from runner import load
from runner.base.errors import UserError
from runner.import_logs import main
from runner.stats import board

# AlgoPerf v0.6, external tuning; of each trial the columns that count, up to its hit, other rows rounded.
V06 = Path(__file__).parent / "data_algoperf" / "v06_trimmed.tar.xz"
HEADER = "global_step,score,accumulated_submission_time,validation/ssim"
META = {"workload.target_metric_name": "ssim", "workload.validation_target_value": 0.7}


def trial(root, place, rows=("1,10,10,0.6", "2,20,20,0.7"), header=HEADER, meta=META, hparams=None):
    folder = root / place
    folder.mkdir(parents=True)
    if rows is not None:
        (folder / "eval_measurements.csv").write_text("\n".join([header, *rows]) + "\n")
    if meta is not None:
        (folder / "meta_data_0.json").write_text(json.dumps(meta))
    if hparams is not None:
        (folder / "hparams.json").write_text(json.dumps(hparams))
    return folder


def imported(logs, out, *options):
    assert main([str(logs), str(out), *options]) == 0
    return pd.read_parquet(out / "cells.parquet"), json.loads((out / "imported.json").read_text())


def kinds(record):
    return {notice["kind"]: notice["count"] for notice in record["notices"]}


def one(tmp_path, *options, **facts):
    """The only trial's row, and the notices."""
    trial(tmp_path / "logs", "sub/study_0/fastmri_jax/trial_1", **facts)
    cells, record = imported(tmp_path / "logs", tmp_path / "out", *options)
    (row,) = cells.to_dict("records")
    return row, kinds(record)


def published(cells):
    """AlgoPerf's own score, written out plainly: pick by evaluation index, trapezoid on 100 points."""
    times = {}
    for (label, workload), group in cells[cells.status == "done"].groupby(["label", "workload"]):
        studies = []
        for _, study in group.groupby("study"):
            hits = study[study.hit].sort_values(["eval_index_to_target", "seconds_to_target"])
            studies.append(hits.seconds_to_target.iloc[0] if len(hits) else math.inf)
        times[label, workload] = statistics.median(studies)
    labels, workloads = sorted(set(cells.label)), sorted(set(cells.workload))
    grid, scores = np.linspace(1, 4, 100), {}
    for label in labels:
        ratios = []
        for workload in workloads:
            best = min(times.get((other, workload), math.inf) for other in labels)
            own = times.get((label, workload), math.inf)
            ratios.append(own / best if math.isfinite(own) and own <= 4 * best else math.inf)
        scores[label] = np.trapezoid([np.mean(np.array(ratios) <= tau) for tau in grid], grid) / 3
    return scores


def test_published_scores_come_out(tmp_path, capsys):
    cells, record = imported(V06, tmp_path / "out", "--ruleset", "external_tuning")
    scores = published(cells)
    assert {label: f"{score:.4f}" for label, score in scores.items()} == {
        "shampoo": "0.6244",
        "baseline": "0.4590",
    }
    assert record["counts"] | {"evaluations": 0} == {
        "trials": 240, "evaluations": 0, "submissions": 2, "workloads": 8, "hits": 61, "failed": 4,
    }  # fmt: skip
    assert kinds(record) == {"trial without eval_measurements.csv: crashed": 4}
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    assert err.count("notice: ") == 1
    main([str(V06), str(tmp_path / "out"), "--quiet"])
    assert capsys.readouterr().err == ""


def test_a_folder_a_tar_and_a_zip_give_the_same(tmp_path):
    logs = tmp_path / "logs"
    trial(logs, "sub/study_0/fastmri_jax/trial_1")
    trial(logs, "sub/study_0/fastmri_jax/trial_2", rows=None, meta=None)  # an empty folder
    expected, _ = imported(logs, tmp_path / "a")
    for kind in ("xztar", "gztar", "zip"):
        archive = shutil.make_archive(str(tmp_path / "packed" / "logs"), kind, logs)
        cells, _ = imported(Path(archive), tmp_path / kind)
        pd.testing.assert_frame_equal(cells, expected)
    assert list(expected.status) == ["done", "failed"]


def test_first_hit_by_value_and_nan_never_hits(tmp_path):
    rows = ("1,10,10,nan", "2,20,20,", "3,30,30,0.69", "4,40,40,0.7", "5,50,50,0.9")
    row, notices = one(tmp_path, rows=rows)
    assert (row["hit"], row["seconds_to_target"], row["steps_to_target"]) == (True, 40, 4)
    assert (row["eval_index_to_target"], row["best_metric"], row["evals"]) == (3, 0.9, 5)
    assert math.isnan(row["samples_to_target"])
    assert notices == {}


def test_an_infinite_value_is_no_hit_and_no_best(tmp_path):
    row, notices = one(tmp_path, rows=("1,10,10,inf", "2,20,20,0.6", "3,30,30,0.75", "4,40,40,-inf"))
    assert (row["steps_to_target"], row["best_metric"]) == (3, 0.75)
    assert notices == {"infinite value of validation/ssim, treated as missing": 1}


@pytest.mark.parametrize("packed", [False, True])
def test_what_macos_adds_to_a_folder_is_no_submission(tmp_path, packed):
    logs = tmp_path / "logs"
    place = "study_0/fastmri_jax/trial_1"
    trial(logs, f"sub/{place}")
    trial(logs, f"__MACOSX/sub/{place}", rows=None, meta=None)
    for name in (
        "sub/._study_0",
        f"sub/{place}/._eval_measurements.csv",
        f"__MACOSX/sub/{place}/._hparams.json",
    ):
        (logs / name).write_bytes(b"\0\5\x16\7")
    (logs / "sub/._study_0").unlink()
    trial(logs, f"._sub/{place}", rows=None, meta=None)
    source = shutil.make_archive(str(tmp_path / "packed"), "zip", logs) if packed else logs
    cells, record = imported(source, tmp_path / "out")
    assert cells["label"].tolist() == ["sub"] and record["notices"] == []


def test_a_miss_is_infinite_and_a_crash_has_no_time(tmp_path):
    assert one(tmp_path / "a", rows=("1,10,10,0.1",))[0]["seconds_to_target"] == math.inf
    row, notices = one(tmp_path / "b", rows=None)
    assert row["status"] == "failed"
    assert math.isnan(row["seconds_to_target"])
    assert notices == {"trial without eval_measurements.csv: crashed": 1}


@pytest.mark.parametrize(
    ("rows", "notice"),
    [
        (("1,10,10,0.6", HEADER, "2,20,20,0.7"), "header repeated among the evaluations, skipped"),
        (("1,10,10,0.6", "9,9", "2,20,20,0.7"), "line whose length differs from its header, skipped"),
        (("1,10,10,bad", "2,20,20,0.7"), "entry that is not a number, treated as NaN"),
        (("1,30,30,0.6", "2,20,20,0.7"), "evaluations whose time decreases, kept in order"),
    ],
)
def test_damaged_lines_are_notices_and_spare_the_other_files(tmp_path, rows, notice):
    trial(tmp_path / "logs", "sub/study_0/fastmri_jax/trial_2")
    trial(tmp_path / "logs", "sub/study_0/fastmri_jax/trial_1", rows=rows)
    cells, record = imported(tmp_path / "logs", tmp_path / "out")
    notices = kinds(record)
    for row in cells.to_dict("records"):
        assert (row["seconds_to_target"], row["eval_index_to_target"]) == (20, 1)
    assert notices == {notice: 1}


def test_columns_in_any_order_keep_each_files_rows(tmp_path):
    for k, header in enumerate((HEADER, ",".join(reversed(HEADER.split(","))), HEADER)):
        rows = [f"1,10,10,0.{k}", f"2,{k}0,{k}0,0.8"] if header == HEADER else ["0.1,10,10,1", "0.8,10,10,2"]
        trial(tmp_path / "logs", f"sub/study_0/fastmri_jax/trial_{k + 9}", rows=rows, header=header)
    cells, _ = imported(tmp_path / "logs", tmp_path / "out")
    assert list(cells.trial) == [9, 10, 11]
    assert list(cells.seconds_to_target) == [0, 10, 20]
    evals = pd.read_parquet(tmp_path / "out" / "evals.parquet")
    assert list(evals.trial) == [9, 9, 10, 10, 11, 11]
    assert list(evals.eval_index) == [0, 1] * 3


def test_strays_variants_symbols_and_twins(tmp_path):
    logs = tmp_path / "logs"
    trial(logs, "a b+ü'/study_0/fastmri_jax/trial_1", hparams={"lr": 0.1, "list": [1], "deep": {"a": 1}})
    trial(logs, "a b+ü'/study_0/fastmri_pytorch/trial_1")
    trial(logs, "a b+ü'/study_0/trial_1")
    trial(logs, "a b+ü'/study_0/fastmri_tanh_jax/trial_1")
    trial(logs, "more/a b+ü'/study_0/fastmri_jax/trial_1", meta=None, hparams={"lr": 1})
    cells, record = imported(logs, tmp_path / "out")
    assert sorted(cells.label) == ["a b+ü'", "more/a b+ü'"]
    assert kinds(record) == {
        "unexpected folder, ignored": 1,
        "second folder for one trial, ignored": 1,
        "trial without meta_data_*.json": 1,
        "variant of fastmri, left out (--variants keeps it): fastmri_tanh": 1,
    }
    cells, _ = imported(logs, tmp_path / "out", "--variants", "fastmri_tanh")
    assert dict(zip(cells.workload, cells.base_workload, strict=True)) == {
        "fastmri": "fastmri",
        "fastmri_tanh": "fastmri",
    }


def test_targets_of_most_metadata_or_of_a_file(tmp_path):
    logs, out = tmp_path / "logs", tmp_path / "out"
    other = META | {"workload.validation_target_value": 0.95}
    for k in range(3):
        folder = trial(logs, f"sub/study_{k}/fastmri_jax/trial_1", meta=other if k == 0 else META)
    (folder / "meta_data_10.json").write_text(json.dumps(META))
    (folder / "meta_data_2.json").write_text(json.dumps(other))
    cells, record = imported(logs, out)
    assert set(cells.target) == {0.7}
    assert list(cells.resumes) == [0, 0, 2]
    assert len(record["notices"]) == 2
    file = tmp_path / "t.csv"
    file.write_text("validation_target,workload,direction,metric_name\n0.6,fastmri,max,validation/ssim\n")
    assert set(imported(logs, out, "--targets", str(file))[0].seconds_to_target) == {10}


def test_error_is_minimised_and_an_unknown_metric_has_no_target(tmp_path):
    header = HEADER.replace("ssim", "wer")
    meta = META | {"workload.target_metric_name": "wer"}
    assert one(tmp_path / "a", header=header, meta=meta)[0]["seconds_to_target"] == 10
    header, meta = HEADER.replace("ssim", "zap"), META | {"workload.target_metric_name": "zap"}
    row, notices = one(tmp_path / "b", header=header, meta=meta)
    assert math.isnan(row["seconds_to_target"])
    assert set(notices) == {"metric of unknown direction, ignored as a target", "workload without a target"}


def bad_inputs(root):
    (root / "empty").mkdir()
    (root / "text.tar.xz").write_text("no archive")
    whole = V06.read_bytes()
    (root / "cut.tar.xz").write_bytes(whole[: len(whole) // 2])
    with tarfile.open(root / "none.tar", "w"):
        pass
    (root / "no_column.csv").write_text("workload,target\n")
    return ["empty", "text.tar.xz", "cut.tar.xz", "none.tar", "absent"]


def test_bad_input_is_one_line_and_2(tmp_path, capsys):
    for name in bad_inputs(tmp_path):
        assert main([str(tmp_path / name), str(tmp_path / "out")]) == 2, name
        err = capsys.readouterr().err
        assert err.startswith("error: ") and err.count("\n") == 1, err
    assert main([str(V06), str(tmp_path / "out"), "--targets", str(tmp_path / "no_column.csv")]) == 2
    (tmp_path / "own" / "cells").mkdir(parents=True)
    assert main([str(V06), str(tmp_path / "own")]) == 2
    assert capsys.readouterr().err.count("\n") == 2
    assert not (tmp_path / "out").exists()


def test_what_was_imported_loads_and_scores_as_published(tmp_path):
    imported(V06, tmp_path / "v06")
    cells, evals = load(tmp_path / "v06")
    scored = board(cells, "seconds", pick="eval_index", integral="trapezoid", resamples=0)
    assert dict(zip(scored["label"], scored["score"].round(4), strict=True)) == {
        "shampoo": 0.6244,
        "baseline": 0.459,
    }
    assert set(evals["id"]) <= set(cells["id"])
    (tmp_path / "v06" / "evals.parquet").write_bytes(b"torn")
    with pytest.raises(UserError, match="import the logs again"):
        load(tmp_path / "v06")

"""Logistic regression as a user meets it: runs, and one clear line for every file that will not do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from runner.compose.config import compose
from runner.launch.local import Inline
from runner.launch.start import run_grid
from tests.workloads.test_logreg import DATA, random_rows, write

Command = Callable[..., "CompletedProcess[str]"]
SHORT = ("workload=logreg", "log=none", "workload.test_file=null")


def statuses(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in folder.glob("default/cells/*/status.json")]


def run(tmp_path: Path, *grid: list[str]) -> list[list[dict]]:
    """What ``python -m runner`` does, in this process; the evaluations of each cell, in the grid's order."""
    common = [*SHORT, f"results_dir={tmp_path}"]
    assert run_grid([[*common, f"name=cell{i}", *cell] for i, cell in enumerate(grid)], Inline()) == 0
    files = [next(tmp_path.glob(f"cell{i}/cells/*/evals.jsonl")) for i in range(len(grid))]
    return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


def test_a_whole_batch_algorithm_separates_sparse_and_whole_rows(tmp_path: Path) -> None:
    y, x = random_rows(n=60, d=60)  # as many features as rows: separable
    options = [
        f"workload.file={write(tmp_path / 'separable', y, x)}", "algorithm=normalized_lr_gd",
        "workload.scale=max_abs", "workload.budget_samples=14400", "workload.eval_every=480",
    ]  # fmt: skip
    for rows in run(tmp_path, *([*options, f"workload.sparse={form}"] for form in ("true", "false"))):
        assert rows[-1]["drawn"] == 14400 and rows[-1]["steps"] == 300  # 48 rows a step
        assert rows[-1]["train/loss"] < 0.1 < rows[1]["train/loss"]


@pytest.mark.data
def test_heart_scale(tmp_path: Path) -> None:
    if not (DATA / "libsvm" / "heart_scale").exists():
        pytest.skip(f"no libsvm/heart_scale in {DATA}: set BENCH_DATA to the folder that holds it")
    options = ["workload.file=libsvm/heart_scale", "workload.budget_samples=21600", f"data_dir={DATA}"]
    for rows in run(tmp_path, *([*options, f"algorithm={a}"] for a in ("normalized_lr_gd", "adamw"))):
        assert rows[-1]["drawn"] >= 21600 and rows[-1]["validation/accuracy"] > 0.7


def test_files_that_will_not_do_are_one_line_each(command: Command, tmp_path: Path) -> None:
    y, x = random_rows()
    good = write(tmp_path / "good", y, x).read_text()
    contents = {
        "word": "1 3:abc\n", "empty": "", "single": "1 1:1\n" * 20, "nan": good + "nan 1:1\n",
        "infinite": good + "1 2:inf\n", "unsorted": good + "1 2:1 1:1\n",
    }  # fmt: skip
    says = {
        "word": "word:1: '3:abc' is not index:value", "empty": "holds no rows", "single": "one class alone",
        "nan": "nan:61: label nan is not finite", "infinite": "infinite:61: '2:inf' is not a finite number",
        "unsorted": "unsorted:61: index 1 comes behind 2", "missing": "no file", "folder": "Is a directory",
    }  # fmt: skip
    bad = tmp_path / "bad"
    (bad / "folder").mkdir(parents=True)
    for name, content in contents.items():
        (bad / name).write_text(content)
    files = ",".join(str(bad / name) for name in says)
    done = command("-m", "algorithm=adamw", *SHORT, f"workload.file={files}")
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    for name, message in says.items():
        (line,) = (line for line in done.stderr.splitlines() if message in line)
        assert "failed: " in line and str(bad / name) in line
    assert all(status["user_error"] for status in statuses(tmp_path)) and len(statuses(tmp_path)) == len(says)


def test_data_that_is_not_there_and_options_that_contradict(command: Command, tmp_path: Path) -> None:
    options = ("workload=logreg", "log=none", "workload.download=false", f"data_dir={tmp_path / 'nothing'}")
    done = command("-m", "algorithm=adamw", *options, "workload.sparse=null,true", "workload.scale=standard")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"no {tmp_path / 'nothing' / 'libsvm' / 'a9a'}: save https://" in done.stderr
    assert "downloading is off" in done.stderr and "scale=max_abs keeps them" in done.stderr


def test_the_test_file_follows_the_file() -> None:
    files = compose(["workload=logreg", "workload.file=libsvm/mnist"])["workload"]
    assert (files["file"], files["test_file"]) == ("libsvm/mnist", "libsvm/mnist.t")
    none = compose(["workload=logreg", "workload.file=libsvm/heart_scale", "workload.test_file=null"])
    assert none["workload"]["test_file"] is None and none["workload"]["target"] is None
    assert none["workload_label"] == "logreg[file=libsvm/heart_scale,test_file=None]"

"""Paths as people give them: under ``~``, relative, with spaces; and a plugin that changes the directory."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from runner import load, run
from runner.__main__ import main
from runner.compose.config import compose
from runner.launch.local import Local
from runner.launch.start import run_grid
from runner.methods.__main__ import main as methods
from runner.status import main as status

ROWS = "".join(f"{'+1' if i % 2 else '-1'} 1:{i % 2} 2:{i / 40}\n" for i in range(40))
CELL = (
    "workload=logreg", "workload.test_file=null", "workload.download=false", "workload.budget_samples=400",
    "workload.batch_size=10", "workload.eval_every=200", "workload.target=null", "algorithm=sgd", "log=none",
)  # fmt: skip


def launched(*arguments: str) -> object:
    """``python -m runner`` in this process; its exit code."""
    try:
        return main(arguments)
    except SystemExit as left:
        return left.code
    finally:
        GlobalHydra.instance().clear()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a data file and a preset in it; the working directory is another."""
    monkeypatch.setattr("sys.argv", ["python -m runner"])
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BENCH_DATA", raising=False)
    for folder in ("home/data", "home/conf/algorithm", "here"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "home" / "data" / "rows.svm").write_text(ROWS)
    preset = "# My own\ndefaults: [sgd, _self_]\noptimizer: {lr: 0.5}\n"
    (tmp_path / "home" / "conf" / "algorithm" / "mine.yaml").write_text(preset)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def test_a_run_under_a_home(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = ("workload.file=~/data/rows.svm", "results_dir=~/my results", "hydra/launcher=inline")
    assert launched(*CELL, *places) == 0, capsys.readouterr().err
    cells, _ = load("~/my results/default")
    assert list(cells["status"]) == ["done"]
    assert list(Path.cwd().iterdir()) == []
    assert status(["~/my results/default", "--once"]) == 0


@pytest.mark.parametrize("value", ["~/data/a", "'~/data/a'", '"~/data/a"'])
def test_both_spellings_of_a_home(home: Path, value: str) -> None:
    config = compose(
        [f"data_dir={value}", f"results_dir={value}", "workload=logreg", f"workload.file={value}"]
    )
    wanted = str(home / "data" / "a")
    assert config["data_dir"] == config["results_dir"] == config["workload"]["file"] == wanted
    assert config["workload"]["test_file"] == f"{wanted}.t"
    absolute = compose([f"data_dir={wanted}", "workload=logreg", f"workload.file={wanted}"])
    assert absolute["workload_label"] == config["workload_label"]


def test_a_home_in_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_DATA", "~/data")
    assert compose([])["data_dir"] == str(home / "data")


def test_what_only_looks_like_a_home_stays(home: Path) -> None:
    assert compose(["label='a,~b'"])["label"] == "a,~b"
    assert compose(["data_dir=~nobody-of-that-name/x"])["data_dir"].endswith("here/~nobody-of-that-name/x")
    assert "transform" not in compose(["algorithm=sgd", "~ruleset"])["algorithm"]


@pytest.mark.parametrize("flags", [("--config-dir=~/conf",), ("--config-dir", "~/conf"), ("-cd", "~/conf")])
def test_a_folder_of_presets_under_a_home(
    home: Path, flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert launched(*flags, "algorithm=mine", "workload=digits", "dry_run=true") == 0, capsys.readouterr().err
    if flags[0] != "-cd":
        assert methods([*flags, "mine"]) == 0


def test_a_folder_of_presets_from_python(home: Path) -> None:
    places = ("workload.file=~/data/rows.svm", "results_dir=~/results", "algorithm=mine")
    row = run([*(o for o in CELL if o != "algorithm=sgd"), *places], config_dirs=["~/conf"], inline=True)
    assert row["status"] == "done" and row["hparam/optimizer.lr"] == 0.5


def test_folders_stand_still_when_a_plugin_changes_the_directory(home: Path) -> None:
    data = Path("data")
    data.mkdir()
    (data / "rows.svm").write_text(ROWS)
    wanders = "algorithm.optimizer._target_=tests.doubles.faults.Wanders"
    jobs = [[*CELL, "workload.file=rows.svm", "data_dir=data", wanders, f"study={i}"] for i in range(2)]
    assert run_grid(jobs, Local(workers=1)) == 0
    cells, _ = load("results/default")
    assert list(cells["status"]) == ["done", "done"]


def test_what_is_printed_is_short_enough_to_paste(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raises = "algorithm.optimizer._target_=tests.doubles.faults.Raises"
    jobs = [[*CELL, "workload.file=~/data/rows.svm", raises, f"study={i}"] for i in range(2)]
    assert run_grid(jobs, Local(workers=1)) == 1
    assert "python -m runner.retry results/default\n" in capsys.readouterr().err

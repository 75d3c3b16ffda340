"""The command for workloads: exit codes, one line a check, no traceback for a user's mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from runner.check import WORKLOAD_CHECKS, failures
from runner.check.__main__ import main
from runner.check.result import ok
from tests.doubles.workloads import config


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of configs with a good workload and a bad one."""
    (tmp_path / "workload").mkdir()
    for name, double in (("good", "Blobs"), ("leaky", "workloads_planted.LeaksValidation")):
        text = yaml.safe_dump({**config(double), "name": name})
        (tmp_path / "workload" / f"{name}.yaml").write_text(f"# A double\n{text}")
    return tmp_path


def test_a_good_workload_exits_0_with_a_line_for_each_check(capsys: pytest.CaptureFixture[str]) -> None:
    names = [name for name in WORKLOAD_CHECKS if name != "process"]
    code, out, err = run(capsys, "workload=digits", "--only", ",".join(names))
    assert (code, err) == (0, "")
    assert [line.split() for line in out.splitlines()[:-1]] == [["ok", "digits", name] for name in names]
    assert out.splitlines()[-1] == "10 ok, 0 failed, 0 not applicable"


def test_a_broken_rule_exits_1_and_says_which(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, out, _ = run(capsys, "workload=good,leaky", "--only", "splits,init", "--config-dir", str(folder))
    assert code == 1
    found = [" ".join(line.split()[:3]) for line in out.splitlines()[:-1]]
    assert found == ["ok good splits", "ok good init", "FAILED leaky splits", "ok leaky init"]
    assert "10.31% of the 97 rows of validation are in training too" in out


def test_failures_are_one_line_each(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WORKLOAD_CHECKS, "process", lambda _subject: ok())  # it takes seconds
    (line,) = failures(["workload=leaky"], [folder])
    assert line.startswith("leaky: splits: 10.31% of the 97 rows")


def test_keys_of_the_workload_can_be_changed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "workload=digits", "workload.eval_every=961", "--only", "info")
    assert code == 1
    assert out.startswith("FAILED  digits[eval_every=961]  info        eval_every=961 is no multiple")


def test_with_an_algorithm_it_is_the_algorithm_that_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "algorithm=adamw", "workload=digits", "--only", "step")
    assert (code, out.splitlines()[0].split()) == (0, ["ok", "adamw", "on", "digits", "step"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["workload=digitz"], "did you mean digits"),
        (["workload=digits", "workload.eval_evry=1"], "eval_every"),
        (["workload=digits", "workload.batch_size=0"], "workload.batch_size"),
        (["workload=digits", "--only", "splitz"], "did you mean splits"),
        (["workload=digits", "--only", "resume"], "unknown check 'resume'"),
        (["algorithm=adamw", "--only", "reference"], "unknown check 'reference'"),
        (["workload=mnist", "workload.download=false", "data_dir=/no/such/folder"], "no train-images"),
    ],
)
def test_bad_input_exits_2_with_one_line(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert says in err
    assert len(err.splitlines()) == 1
    assert out == ""


def test_neither_is_an_error_that_says_both_ways(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "--only", "splits")
    assert code == 2
    assert "runner.check algorithm=adamw" in err and "runner.check workload=digits" in err

"""The command: exit codes, one line a check, no traceback for a user's mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.check import CHECKS, WORKLOAD_CHECKS
from runner.check.__main__ import main
from runner.check.subjects import SMALL


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    out, err = capsys.readouterr()
    return code, out, err


def test_list_names_every_check_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--list")
    assert code == 0
    lines = out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        "checks of an algorithm (algorithm=mine):",
        "checks of a workload (workload=mine, and no algorithm):",
    ]
    listed = [line.split(maxsplit=1) for line in lines if line.startswith(" ")]
    assert [name for name, _ in listed] == [*CHECKS, *WORKLOAD_CHECKS]
    assert all(len(summary) > 20 for _, summary in listed)


def test_a_good_algorithm_exits_0_with_a_line_for_each_workload(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "algorithm=adamw", "--only", "card,step")
    assert (code, err) == (0, "")
    lines = [["ok", "adamw", "on", name, check] for name in SMALL for check in ("card", "step")]
    assert [line.split() for line in out.splitlines()[:-1]] == lines
    assert out.splitlines()[-1] == f"{len(lines)} ok, 0 failed, 0 not applicable"


def test_a_broken_rule_exits_1_and_says_which(capsys: pytest.CaptureFixture[str]) -> None:
    still = ("algorithm=adamw", "workload=breast_cancer", "algorithm.optimizer.lr=0")
    code, out, _ = run(capsys, *still, "--only", "learns,repeat")
    assert code == 1
    assert out.splitlines()[0].startswith("FAILED  adamw[lr=0] on breast_cancer  learns      after 60 steps")
    assert out.splitlines()[-1] == "1 ok, 1 failed, 0 not applicable"


def test_a_workload_that_is_refused_gets_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "algorithm=anyloss", "workload=digits", "--only", "step,repeat")
    assert code == 0
    assert len(out.splitlines()) == 2
    assert out.startswith(
        "n/a     anyloss on digits  the others  not for this workload: objective: needs a binary"
    )


def test_overrides_may_stand_behind_options(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--only", "card", "algorithm=adamw", "workload=digits")
    assert (code, len(out.splitlines())) == (0, 2)


def test_several_algorithms_by_commas(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "algorithm=adamw,sgd", "workload=breast_cancer", "--only", "card")
    assert [line.split()[1] for line in out.splitlines()[:-1]] == ["adamw", "sgd"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "which algorithm, or which workload?"),
        (["algorithm=adamv"], "did you mean adam"),
        (["algorithm=adamw", "workload=digitz"], "did you mean digits"),
        (["algorithm=adamw", "algorithm.optimizer.lrr=1"], "lrr"),
        (["algorithm=adamw", "--only", "resum"], "did you mean resume"),
    ],
)
def test_bad_input_exits_2_with_one_line(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert len(err.splitlines()) == 1


LBFGS = "# LBFGS\n{cost}_target_: torch.optim.LBFGS\nlr: 0.1\nmax_iter: 2\nhistory_size: 3\n{waits}"


def test_the_yaml_of_a_librarys_class_says_what_it_costs_and_that_it_waits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "algorithm/optimizer/mine.yaml"
    file.parent.mkdir(parents=True)
    checks = [
        "algorithm=mine",
        "workload=breast_cancer",
        "--config-dir",
        str(tmp_path),
        "--only",
        "syncs,cost",
    ]
    file.write_text(LBFGS.format(cost="", waits=""))
    code, out, _ = run(capsys, *checks)
    assert code == 1 and "by a tensor's value at lbfgs.py" in out and "a comment of its YAML" in out
    file.write_text(LBFGS.format(cost="# Cost: 1.8 forward, 1.8 backward.\n", waits="syncs_every: 1\n"))
    code, out, _ = run(capsys, *checks)
    assert code == 0 and "declares syncs_every=1" in out


def test_a_wait_is_that_of_the_class_whatever_package_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "algorithm/optimizer/mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# LBFGS\n_target_: pytorch_optimizer.LBFGS\n")
    overrides = ["algorithm=mine", "workload=breast_cancer", "--config-dir", str(tmp_path)]
    assert "value at lbfgs.py" in run(capsys, *overrides, "--only", "syncs")[1]

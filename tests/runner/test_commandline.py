"""The command line, in this process: what is planned, for which launcher, and what a mistake brings."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore

from runner.__main__ import main

Ran = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ran(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ran:
    """Exit code, stdout and stderr of ``python -m runner <arguments>``, as a plan."""
    monkeypatch.setattr(sys, "argv", [])

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main([*arguments, "dry_run=true", f"results_dir={tmp_path / 'results'}"])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def conf(tmp_path: Path) -> Callable[..., Path]:
    """Write files of a config folder: ``experiment/mine`` -> its content after the package header."""

    def write(**files: str) -> Path:
        for name, content in files.items():
            file = tmp_path / "conf" / "experiment" / f"{name}.yaml"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"# @package _global_\n{content}\n", "utf-8")
        return tmp_path / "conf"

    return write


@pytest.fixture
def plugins() -> Iterator[None]:
    """Launchers and a sweeper of other plugins, as installed."""
    store = ConfigStore.instance()
    for name in ("submitit_slurm", "submitit_local", "ray"):
        node = {"_target_": f"hydra_plugins.{name}.Launcher", "partition": None}
        store.store(group="hydra/launcher", name=name, node=node, provider="other")
    node = {"_target_": "hydra_plugins.optuna.Sweeper", "n_trials": 20, "params": None}
    store.store(group="hydra/sweeper", name="optuna", node=node, provider="other")
    yield
    for group, names in (("launcher", ("submitit_slurm", "submitit_local", "ray")), ("sweeper", ("optuna",))):
        for name in names:
            del store.repo["hydra"][group][f"{name}.yaml"]


def rows(out: str) -> list[tuple[str, str, int]]:
    """(workload, algorithm, cells) of a plan."""
    found = re.findall(r"^\|(\S+) +\| (\S+) +\| +(\d+)\|", out, re.MULTILINE)
    return [(workload, algorithm, int(cells)) for workload, algorithm, cells in found]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-m", "algorithm=nesterov,sgd", "algorithm.optimizer.momentum=0.8"],
         [("digits", "nesterov[momentum=0.8]", 1), ("digits", "sgd[momentum=0.8]", 1)]),
        (["-m", "workload=cifar10,cifar10_npz", "workload.model=resnet18"],
         [("cifar10[model=resnet18]", "adamw", 1), ("cifar10_npz[model=resnet18]", "adamw", 1)]),
        (["-m", "ruleset=external_tuning,self_tuning", "ruleset.studies=2"], [("digits", "adamw", 12)]),
        (["-m", "algorithm/estimator=sam,asam", "algorithm.estimator.rho=0.1"],
         [("digits", "adamw+sam[rho=0.1]", 1), ("digits", "adamw+asam[rho=0.1]", 1)]),
        (["-m", "algorithm=lion,adamw", "algorithm/loss=null"],
         [("digits", "lion", 1), ("digits", "adamw", 1)]),
        (["algorithm=lion", "-m", "study=0,1"], [("digits", "lion", 2)]),
        (["-m", "study=range(3)"], [("digits", "adamw", 3)]),
        (["-m", "algorithm=glob(adam*,exclude=*_*)"], [("digits", "adam", 1), ("digits", "adamw", 1)]),
        (["-m", "algorithm=lion,lion.yaml"], [("digits", "lion", 1)]),
        (["hydra.mode=MULTIRUN", "study=0,1"], [("digits", "adamw", 2)]),
    ],
)  # fmt: skip
def test_a_grid_has_the_keys_of_its_own_files(
    ran: Ran, arguments: list[str], expected: list[tuple[str, str, int]]
) -> None:
    code, out, err = ran(*arguments)
    assert (code, rows(out)) == (0, expected), err


def test_overrides_stand_on_both_sides_of_a_flag(ran: Ran, conf: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "second" / "experiment").mkdir(parents=True)
    (tmp_path / "second" / "experiment" / "theirs.yaml").write_text("# @package _global_\nstudy: 5\n")
    folder = conf(mine="name: mine")
    code, out, err = ran("algorithm=lion", "--config-dir", str(folder), "+experiment=mine", "study=1")
    assert (code, rows(out)) == (0, [("digits", "lion", 1)]), err
    folders = "--config-dir", str(folder), f"--config-dir={tmp_path / 'second'}"
    assert ran("algorithm=lion", *folders, "+experiment=theirs")[0] == 0


@pytest.mark.parametrize("command_line", ["hydra/launcher=slurm", None])
def test_an_experiments_launcher_is_the_launcher(
    ran: Ran, conf: Callable[..., Path], command_line: str | None
) -> None:
    chosen = "" if command_line else "defaults: [override /hydra/launcher: slurm]\n"
    folder = conf(mine=f"{chosen}hydra: {{launcher: {{time: 60}}}}")
    code, out, err = ran("--config-dir", str(folder), "+experiment=mine", *filter(None, [command_line]))
    assert code == 0 and "1 task of 1 array (time limit: 1 h at most)" in out, err


def test_the_command_lines_launcher_wins_over_the_experiments(ran: Ran, conf: Callable[..., Path]) -> None:
    folder = conf(mine="defaults: [override /hydra/launcher: slurm]")
    out = ran("--config-dir", str(folder), "+experiment=mine", "hydra/launcher=local")[1]
    assert "worker" in out and "array" not in out


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize("flags", [[], ["-m"]])
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("hydra/launcher=submitit_slurm", "cells run with hydra/launcher=slurm"),
        ("hydra/launcher=ray", "cells run with hydra/launcher=local, slurm or inline"),
        ("hydra/launcher=basic", "cells run with hydra/launcher=local, slurm or inline"),
        ("hydra/launcher=not_installed", "cells run with hydra/launcher=local, slurm or inline"),
        ("hydra/sweeper=optuna", "grids are swept by -m key=a,b"),
        ("hydra/sweeper=ax", "grids are swept by -m key=a,b"),
        ("+experiment=launcher", "cells run with hydra/launcher=slurm"),
        ("+experiment=sweeper", "grids are swept by -m key=a,b"),
    ],
)
def test_other_plugins_are_refused_before_anything_is_queued(
    ran: Ran, conf: Callable[..., Path], flags: list[str], override: str, message: str
) -> None:
    folder = conf(launcher="defaults: [override /hydra/launcher: submitit_slurm]",
                  sweeper="defaults: [override /hydra/sweeper: optuna]")  # fmt: skip
    code, _, err = ran(*flags, "--config-dir", str(folder), override)
    assert code == 2 and message in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["+experiment=demo"], "hydra.sweeper.params .* defines a grid: add -m"),
        (["-m", "+experiment=demo,linked"], "experiment=demo: sets its own launcher"),
        (["-m", "hydra/launcher=local,inline"], "the whole grid shares one hydra/launcher"),
        (["--experimental-rerun", "x.pickle"], "launch the same command again"),
        (["--config-name", "nope"], r"\+experiment=<name>"),
        (["--config-dir", "no/where"], "no such folder"),
        (["hydra.searchpath=[file:///x]"], "--config-dir <folder>"),
        (["--algorithm", "lion"], "write algorithm=lion"),
        (["--no-such-flag"], "unknown flag --no-such-flag"),
        (["--cfg", "foo"], "invalid choice: 'foo'"),
        (["algorithm=[lion,sgd]"], "-m algorithm=lion,sgd"),
        (
            ["hydra/launcher=slurm", "hydra.launcher.time=1:30:00"],
            "got '1:30:00', expected minutes, such as 90",
        ),
        (["hydra/launcher=slurm", "hydra.launcher.mem_gb=16G"], "got '16G', expected gigabytes, such as 16"),
        (
            ["hydra/launcher=slurm", "hydra.launcher.setup=x"],
            "hydra.launcher.setup: got 'x', expected a list",
        ),
        (["hydra.launcher.time=30"], "hydra/launcher=slurm has it"),
        (["-m", "algorithm.optimizer.lr=interval(0,1)"], "list them"),
        (["-m", "algorithm=nesterov,lion", "algorithm.optimizer.momentum=0.8"], "algorithm.optimizer.betas"),
        (["--cfg", "job", "label=a,b"], "-m label=a,b"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(ran: Ran, arguments: list[str], message: str) -> None:
    code, out, err = ran(*arguments)
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1, err
    assert re.search(message, err) and not out


def test_a_launchers_option_that_it_has_not_is_named(ran: Ran, conf: Callable[..., Path]) -> None:
    code, _, err = ran("--config-dir", str(conf(mine="hydra: {launcher: {time: 60}}")), "+experiment=mine")
    assert code == 2 and "experiment/mine: time is not an option of local" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name:\ta\n\tb: 1\n", r"line 2: invalid YAML: found character '\\t'"),
        (b"study: [1\n", "line 3: invalid YAML: expected ',' or '\\]'"),
        (b"study: 1\nstudy: 2\n", "line 3: invalid YAML: found duplicate key study"),
        (b"name: \xfc\n", "not UTF-8"),
    ],
)
def test_a_broken_file_is_named(ran: Ran, conf: Callable[..., Path], content: bytes, message: str) -> None:
    folder = conf(mine="")
    (folder / "experiment" / "mine.yaml").write_bytes(b"# @package _global_\n" + content)
    code, _, err = ran("--config-dir", str(folder), "+experiment=mine")
    assert code == 2 and err.count("\n") == 1 and re.search(f"experiment/mine.yaml.*{message}", err), err


def test_an_editors_dangling_link_is_passed_over(ran: Ran, conf: Callable[..., Path], tmp_path: Path) -> None:
    (conf(mine="") / "experiment" / ".#mine.yaml").symlink_to(tmp_path / "nowhere")
    assert ran("--config-dir", str(tmp_path / "conf"), "algorithm=lion")[0] == 0


@pytest.mark.parametrize(
    ("name", "code"), [("workload/digits", 2), ("algorithm/lion", 2), ("workload/digits_of_mine", 0)]
)
def test_a_file_of_ones_own_takes_no_name_of_ours(ran: Ran, tmp_path: Path, name: str, code: int) -> None:
    file = tmp_path / "own" / f"{name}.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("name: mine\n", "utf-8")
    found, _, err = ran("--config-dir", str(tmp_path / "own"), "study=1")
    assert found == code and ("rename yours" in err) == (code == 2), err

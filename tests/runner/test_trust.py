"""Results folders from elsewhere: what their configs, manifests and ids name is neither run nor followed."""

from __future__ import annotations

import copy
import gzip
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from runner import UserError, score, verify
from runner.base.files import write_json
from runner.boards.publish import configs
from runner.cells.cell import Cell, identity
from runner.cells.launches import Launch
from runner.cells.survey import look
from runner.cells.tables import load
from runner.contract.records import CellFolder
from runner.provenance import allowances, trust
from runner.report.__main__ import main as report
from runner.retry import how
from runner.retry import main as retry
from runner.status import main as status
from runner.train.session import run_cell
from tests.experiments import call, refusal, write_cell

Capture = pytest.CaptureFixture[str]
TINY = ("log=none", "workload.budget_samples=640", "stop_at_target=false", "workload.target=0.97")
METHOD = """
import os, torch
open({mark!r}, "w").close()


class Mine(torch.optim.SGD):
    pass


def make(params, **settings):
    return Mine(params, **settings)
"""


class Settings:
    """The settings of a user of his own, and a folder with a method of somebody else's."""

    def __init__(self, root: Path) -> None:
        self.file = root / "settings/time-to-target/allowed"
        self.code, self.mark, self.experiment = root / "code", root / "mark", root / "results/exp"
        self.code.mkdir()
        (self.code / "foreign_method.py").write_text(METHOD.format(mark=str(self.mark)))

    @property
    def has_run(self) -> bool:
        return self.mark.exists()

    @property
    def remembered(self) -> list[str]:
        return self.file.read_text().split() if self.file.exists() else []

    def cell(self, target: object = "foreign_method.Mine", **changes: Any) -> CellFolder:
        """A cell that failed elsewhere, whose config is as somebody wrote it."""
        where = f"results_dir={self.experiment.parent}", "name=exp", "algorithm=sgd"
        cell = Cell.from_overrides([*where, *TINY])
        assert cell.submit()
        config = cell.folder.config()
        config["algorithm"]["optimizer"]["_target_"] = target
        config |= changes
        cell.folder.create({**config, "id": cell.id}, {})
        cell.folder.fail("once", "its traceback")
        return cell.folder


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    monkeypatch.setenv("RUNNER_ALLOW", "tests")
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield Settings(tmp_path)
    sys.modules.pop("foreign_method", None)


def forget(user: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in another shell."""
    monkeypatch.setenv("RUNNER_ALLOW", "tests")
    sys.path[:] = [entry for entry in sys.path if entry != str(user.code)]
    sys.modules.pop("foreign_method", None)


OUT_OF_BOUNDS = [
    "os.system", "builtins.eval", "functools.partial", "subprocess.run", "runner.train.session.run_cell",
    "torch.load", "torch.hub.load", "torch.nn.Module.__init__", "torch.nn.modules.module.torch.hub.load", "",
    "..", "torch.optim.optimizer.OrderedDict", "torch.nn.utils.clip_grad_norm_", "hydra.utils.get_method",
    "algorithms.optimizers.lion.torch.hub.load", "workloads.pydocs.data_id",
    "runner.contract.instantiate.build_part",
    "runner.logs.functools.partial", "torch.nn.functional.torch.load", "workloads.text.Path", "torch.optim",
]  # fmt: skip


@pytest.mark.parametrize("name", OUT_OF_BOUNDS)
def test_what_is_no_part_is_not_allowed(user: Settings, name: str) -> None:
    assert not trust.allowed(name)
    with pytest.raises(UserError):
        trust.resolved(name)
    for spec in ({"_target_": name}, {"a": [{"b": {"_target_": name}}]}):
        with pytest.raises(UserError, match="docs/security"):
            trust.check(spec)


@pytest.mark.parametrize(
    "name",
    [
        "torch.optim.AdamW",
        "torch.nn.ReLU",
        "torch.nn.functional.cross_entropy",
        "algorithms.optimizers.lion.Lion",
    ],
)
def test_parts_are(user: Settings, name: str) -> None:
    assert trust.allowed(name) and trust.resolved(name).__name__ == name.rpartition(".")[2]


def test_every_file_under_conf_names_what_is_allowed() -> None:
    import yaml

    from runner.base.paths import CONF

    for path in CONF.rglob("*.yaml"):
        named = [target for _, target in trust.targets(yaml.safe_load(path.read_text()))]
        assert all(map(trust.allowed, named)), path


def test_an_allowed_package_lends_no_other_module(user: Settings) -> None:
    sys.path.append(str(user.code))
    trust.allow(["foreign_method"])
    assert trust.resolved("foreign_method.Mine").__name__ == "Mine"
    for name in ("foreign_method.os.system", "foreign_method.make", "foreign_method.torch.hub.load"):
        with pytest.raises(UserError, match="not a class of foreign_method"):
            trust.resolved(name)


@pytest.mark.parametrize("spec", ["foreign_method.Mine", ["os.system"], "os.system", None])
@pytest.mark.parametrize("dry", [True, False])
def test_retry_builds_nothing_foreign(user: Settings, spec: object, dry: bool, capsys: Capture) -> None:
    sys.path.append(str(user.code))
    folder = user.cell(spec)
    said = call(retry, capsys, user.experiment, "--launcher", "inline", *(["--dry-run"] if dry else []))
    assert not user.has_run and user.remembered == []
    assert "algorithm.optimizer names " in said.err and "docs/security.md" in said.err
    assert said.code == 2 and "Traceback" not in said.err
    assert run_cell(folder.path)["error"].startswith("algorithm.optimizer names ")  # however it got there
    assert not user.has_run


@pytest.mark.parametrize(
    "text", ["${call:foreign_method.make}", "${oc.env:HOME}", "a ${x} b", "\\${call:x.y}"]
)
def test_a_stored_config_is_resolved_already(user: Settings, text: str, capsys: Capture) -> None:
    """A model from elsewhere is built by Hydra, which would resolve what its arguments hold."""
    sys.path.append(str(user.code))
    folder = user.cell("torch.optim.SGD")
    config = folder.config()
    config["workload"]["model"] = {"_target_": "torch.nn.Linear", "in_features": text, "out_features": 10}
    folder.create(config, {})
    said = call(retry, capsys, user.experiment, "--launcher", "inline")
    assert said.code == 2 and "workload.model.in_features holds" in said.err
    assert "workload.model.in_features holds" in run_cell(folder.path)["error"] and not user.has_run
    trust.check({"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": "${setup:0.1 * steps}"})


def test_what_is_allowed_once_stays_so(
    user: Settings, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    sys.path.append(str(user.code))
    folder = user.cell()
    inline = (user.experiment, "--launcher", "inline")
    assert "add --allow foreign_method" in call(retry, capsys, *inline).err
    assert call(status, capsys, user.experiment, "--allow", "foreign_method").code == 0
    assert user.remembered == [str(user.code), "foreign_method"]
    forget(user, monkeypatch)
    sys.path.append(str(user.code))
    assert call(retry, capsys, *inline).code == 0 and user.has_run
    assert folder.status()["status"] == "done"
    said = call(retry, capsys, *inline, "--allow", "../x")
    assert said.code == 2 and said.err.startswith("error: --allow ../x: expected the name of a package")


def test_running_a_method_oneself_allows_it(
    user: Settings, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    sys.path.append(str(user.code))
    named = "algorithm.optimizer._target_=foreign_method.make"
    where = f"results_dir={user.experiment.parent}", "name=exp", "algorithm=sgd"
    cell = Cell.from_overrides([*where, *TINY, named])
    assert user.remembered == []  # a plan of it is no run
    assert cell.submit() and run_cell(cell.folder.path)["status"] == "done"
    assert user.remembered == [str(user.code), "foreign_method", "foreign_method.make"]
    cell.folder.fail("once", "its traceback")
    forget(user, monkeypatch)
    assert call(retry, capsys, user.experiment, "--launcher", "inline").code == 0
    assert cell.folder.status()["status"] == "done"


def test_python_and_torch_are_not_allowed_by_running_them(
    user: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for target in ("builtins.dict", "torch.hub.load"):
        trust.own({"algorithm": {"_target_": target}}, {})
        assert trust.allowed(target)  # the cell that one has composed
        monkeypatch.setenv("RUNNER_ALLOW", "")
        assert not trust.allowed(target)
    assert user.remembered == []


def test_a_manifest_names_folders_in_vain(user: Settings, capsys: Capture) -> None:
    """Whatever is imported afterwards would be looked for there, too."""
    folder = user.cell("algorithms.no_such.Thing")
    paths = [str(user.code), "../../code", 3]
    write_json(
        folder.manifest_file, {**folder.manifest(), "paths": paths, "sources": {"foreign_method": "1"}}
    )
    folder.set_status("done", summary={})
    before = [*sys.path]
    call(status, capsys, user.experiment, "--check")
    call(retry, capsys, user.experiment, "--launcher", "inline")
    run_cell(folder.path)
    assert sys.path == before and not user.has_run


def test_settings_are_absolute_and_bad_lines_none(user: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    user.file.parent.mkdir(parents=True)
    user.file.write_text("# mine\n  good.name \n../bad\n\n/a/folder\n")
    assert allowances.names() == {"tests", "good.name"} and allowances.folders() == {"/a/folder"}
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert str(allowances.settings()).startswith(str(Path.home()))


def test_settings_that_cannot_be_written_allow_this_once(user: Settings, capsys: Capture) -> None:
    user.file.parent.parent.write_text("a file in the way")
    trust.allow(["some_package"])
    assert "warning: --allow is not remembered" in capsys.readouterr().err
    assert "some_package" in allowances.names() and "some_package" in os.environ["RUNNER_ALLOW"]
    trust.own({"_target_": "other_package.Thing"}, {})
    assert trust.allowed("other_package.Thing")


# -- published boards -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A board of two cells, trained."""
    here = tmp_path_factory.mktemp("published")
    short = "workload=breast_cancer", "workload.budget_samples=720", "workload.target=0.6", "log=none"
    for name in ("sgd", "adamw"):
        cell = Cell.from_overrides([f"results_dir={here}/results", "name=exp", *short, f"algorithm={name}"])
        assert cell.submit() and run_cell(cell.folder.path)["status"] == "done"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        assert score.main(["results/exp", "--publish"]) == 0
    return here / "results/leaderboards/exp"


@pytest.fixture
def board(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "board"))


def doctor(board: Path, change: Callable[[dict[str, Any]], object], honest: bool = True) -> None:
    """Change the config of one of the board's cells, in its tables too; ``honest``: its id is its hash."""
    before, *others = configs(board).values()
    after = copy.deepcopy(before)
    change(after)
    after["id"] = identity(after) if honest else after["id"]
    lines = "".join(f"{json.dumps(config)}\n" for config in (after, *others))
    (board / "configs.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    for name in ("cells.parquet", "evals.parquet"):
        pd.read_parquet(board / name).replace({"id": {before["id"]: after["id"]}}).to_parquet(board / name)


@pytest.mark.parametrize("options", [["--dry-run"], [], ["--keep", "kept"]])
def test_verify_builds_nothing_foreign(
    user: Settings, board: Path, options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(board.parent)
    sys.path.append(str(user.code))
    doctor(board, lambda config: config["algorithm"]["optimizer"].update(_target_="foreign_method.Mine"))
    said = refusal(verify.main, capsys, board, *options)
    assert "algorithm.optimizer names foreign_method.Mine" in said and "--allow foreign_method" in said
    assert not user.has_run and not Path("kept").exists()


@pytest.mark.parametrize(
    "name", ["x/../../out", "/tmp/out", "..", "0123456789abc", "ABCDEF0123", "", "0" * 10]
)
def test_an_id_is_the_hash_of_what_it_names(board: Path, name: str, capsys: Capture) -> None:
    doctor(board, lambda config: config.update(id=name), honest=False)
    before = sorted(board.parent.rglob("*"))
    said = refusal(verify.main, capsys, board, "--keep", board.parent / "kept")
    assert "is a path, not a cell id" in said or "is not a cell id" in said or "do not match its id" in said
    assert sorted(board.parent.rglob("*")) == before
    with pytest.raises(UserError, match="is not a cell id"):
        Cell.from_config(
            {**next(iter(configs(board).values())), "id": "x/../y", "results_dir": "r", "name": "n"}
        )


@pytest.mark.parametrize("name", ["x/../../out", "/tmp/out", ".."])
def test_no_command_reads_a_board_whose_ids_are_paths(board: Path, name: str, capsys: Capture) -> None:
    doctor(board, lambda config: config.update(id=name), honest=False)
    cells = board.parent / "results/exp/cells"
    for main, args in (
        (score.main, [board]),
        (score.main, [board, "--check"]),
        (verify.main, [board]),
        (report, [board]),
    ):
        assert "is a path, not a cell id" in refusal(main, capsys, *args)
    cells.mkdir(parents=True)
    for label in ("a", "b"):
        write_cell(cells.parent, label, id="0" * 10)
    assert "is a path, not a cell id" in refusal(score.main, capsys, cells.parent, "--against", board)


@pytest.mark.parametrize("name", ["x/../../out", "0" * 10, 3, None])
def test_retry_holds_an_id_against_its_folder(user: Settings, name: object, capsys: Capture) -> None:
    folder = user.cell("torch.optim.SGD")
    folder.create({**folder.config(), "id": name}, {})
    before = sorted(path for path in user.experiment.parent.rglob("*") if "jobs" not in path.parts)
    said = call(retry, capsys, user.experiment, "--launcher", "inline")
    assert said.code == 2 and "is not that of its folder" in said.err
    assert sorted(p for p in user.experiment.parent.rglob("*") if "jobs" not in p.parts) == before


@pytest.mark.parametrize("key", ["workload", "algorithm", "label", "study"])
def test_a_published_config_without_a_key_is_damaged(board: Path, key: str, capsys: Capture) -> None:
    doctor(board, lambda config: config.pop(key), honest=key != "workload")
    assert "is damaged" in refusal(verify.main, capsys, board)


# -- launches, links, names of folders -----------------------------------------------------------------


@pytest.mark.parametrize("launcher", [[], ["--launcher", "slurm"]])
def test_shell_lines_of_a_launch_are_ones_own(
    user: Settings, launcher: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    user.cell("torch.optim.SGD")
    mine = Launch.create(user.experiment, "slurm", {"setup": ["module load mine"]})
    assert how(look(user.experiment), None, {}) == ("slurm", {"setup": ["module load mine"]})
    write_json(mine.path / "job.json", {**mine.record, "options": {"setup": [f"touch {user.mark}"]}})
    assert "setup" not in how(look(user.experiment), "slurm", {})[1]
    monkeypatch.setenv("PATH", "")
    said = call(retry, capsys, user.experiment, *launcher)
    assert ("no sbatch" if launcher else "are not known to be yours") in said.err
    assert said.code == 2 and "Traceback" not in said.err


@pytest.mark.parametrize("name", ["log.txt", "evals.jsonl", "status.json", "config.yaml", "manifest.json"])
def test_a_cells_files_are_no_links(user: Settings, name: str, capsys: Capture) -> None:
    """One of them leads to a file of this user's, which a worker would have written to, or a table shown."""
    folder = user.cell("torch.optim.SGD")
    secret = user.code / "secret"
    secret.write_text(json.dumps({"validation/accuracy": 0.5, "error": "secret"}) + "\n")
    (folder.path / name).unlink(missing_ok=True)
    (folder.path / name).symlink_to(secret)
    before = secret.read_bytes()
    cells, evals = load(user.experiment)
    assert "secret" not in cells.to_json() and "secret" not in evals.to_json()
    assert "secret" not in call(status, capsys, user.experiment, "--check", "--cells", "--once").out
    retry([str(user.experiment), "workers=1", "--launcher", "local"])
    assert secret.read_bytes() == before


def test_pipes_in_the_place_of_files_stop_nobody(user: Settings, capsys: Capture) -> None:
    folder = user.cell("torch.optim.SGD")
    for name in ("evals.jsonl", "status.json", "manifest.json"):
        (folder.path / name).unlink(missing_ok=True)
        os.mkfifo(folder.path / name)
    load(user.experiment)
    assert call(status, capsys, user.experiment, "--check", "--once").code == 0


@pytest.mark.parametrize("name", ["../../../precious", "/precious", "other.1", ".."])
def test_a_result_comes_back_from_its_own_place_alone(user: Settings, name: str) -> None:
    """A manifest says which result a rerun replaces; one that failed moved that folder to its own place."""
    folder = user.cell("torch.optim.NoSuch")
    precious = user.experiment.parent.parent / "precious"
    for path in (precious, user.experiment / "superseded/other.1"):
        path.mkdir(parents=True)
    name = str(precious) if name == "/precious" else name
    write_json(folder.manifest_file, {**folder.manifest(), "supersedes": name})
    folder.set_status("pending")
    assert run_cell(folder.path)["status"] == "failed"
    assert precious.is_dir() and (user.experiment / "superseded/other.1").is_dir()

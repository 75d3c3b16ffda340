"""Checkpoints: what they can hold, what becomes of those that cannot be gone on from."""

from __future__ import annotations

import copy
import random
import shutil
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from runner.contract.records import CellFolder
from runner.launch.grid import job_of
from runner.provenance import source
from runner.train import checkpoint
from runner.train.session import run_cell
from tests.small_cells import evaluations, interrupted, submitted

# -- what a checkpoint can hold ----------------------------------------------------------------------


@pytest.mark.parametrize("parts", [{"optimizer": "Numpy"}, {"schedule": "NumpyCosine"}])
def test_numpys_numbers_come_back_as_they_were(tmp_path: Path, parts: dict[str, str]) -> None:
    whole, cut = (submitted(tmp_path, f"name={name}", **parts) for name in ("whole", "cut"))
    assert run_cell(whole.folder.path)["status"] == "done"
    assert interrupted(cut.folder.path)["status"] == "preempted"
    assert run_cell(cut.folder.path)["status"] == "done"
    assert cut.folder.manifest()["resumes"] == 1
    assert evaluations(cut.folder.path) == evaluations(whole.folder.path)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Exact", "algorithm.optimizer.param_groups.0.kept is a Fraction"),
        ("Lambda", "algorithm.optimizer.param_groups.0.kept is a function"),
    ],
)
def test_what_no_checkpoint_can_hold_fails_at_the_first_one(tmp_path: Path, name: str, says: str) -> None:
    cell = submitted(tmp_path, optimizer=name)
    status = interrupted(cell.folder.path)
    assert status["status"] == "failed" and says in status["error"], status
    assert (
        "which a checkpoint cannot hold: keep tensors" in status["error"] and "--allow" not in status["error"]
    )
    assert not cell.folder.checkpoint_file.exists()


def test_objects_of_an_allowed_package_come_back_and_others_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tests/conftest.py allows this package."""
    names = (f"name={name}" for name in ("whole", "cut", "other"))
    whole, cut, other = (submitted(tmp_path, name, optimizer="Objects").folder.path for name in names)
    assert run_cell(whole)["status"] == "done"
    assert interrupted(cut)["status"] == "preempted" and run_cell(cut)["status"] == "done"
    assert CellFolder(cut).manifest()["resumes"] == 1
    assert evaluations(cut) == evaluations(whole)
    monkeypatch.setenv("RUNNER_ALLOW", "tests.doubles.keepers.Objects")
    monkeypatch.setattr("runner.provenance.allowances.settings", lambda: None)
    status = interrupted(other)
    assert status["status"] == "failed"
    assert "is a Memory, which a checkpoint" in status["error"] and "add --allow tests (" in status["error"]
    assert not CellFolder(other).checkpoint_file.exists()


# -- checkpoints that cannot be gone on from ---------------------------------------------------------


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a cell that was interrupted at its second evaluation."""
    torch.set_num_threads(1)
    cell = submitted(tmp_path_factory.mktemp("cut"))
    assert interrupted(cell.folder.path)["status"] == "preempted"
    return cell.folder.path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the same cell evaluates to when nothing disturbs it."""
    torch.set_num_threads(1)
    cell = submitted(tmp_path_factory.mktemp("whole"))
    assert run_cell(cell.folder.path)["status"] == "done"
    return evaluations(cell.folder.path)


def resaved(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(file: Path) -> None:
        torch.save(change(torch.load(file, weights_only=True)), file)

    return apply


def flipped(share: float) -> Callable[[Path], None]:
    """One bit, so far into the file."""

    def apply(file: Path) -> None:
        data = bytearray(file.read_bytes())
        data[int(len(data) * share)] ^= 1
        file.write_bytes(data)

    return apply


def zeroed(file: Path) -> None:
    """A block that a file system lost."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 512] = bytes(512)
    file.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut short": lambda file: file.write_bytes(file.read_bytes()[:1000]),
    "empty": lambda file: file.write_bytes(b""),
    "a flipped bit of a tensor": flipped(0.4),
    "a block of zeros": zeroed,
    "no archive": lambda file: file.write_bytes(b"not a checkpoint"),
    "an empty dict": resaved(lambda _: {}),
    "a list": resaved(lambda _: [1, 2]),
    "of another cell": resaved(lambda state: {**state, "id": "other"}),
    "of other source": resaved(lambda state: {**state, "source": "other"}),
    "without progress": resaved(lambda state: {k: v for k, v in state.items() if k != "progress"}),
    "without weights": resaved(lambda state: {**state, "task": {}}),
    "without generators": resaved(lambda state: {**state, "rng": {}}),
    "of more evaluations": resaved(lambda s: {**s, "progress": {**s["progress"], "rows": 9}}),
    "a model of another shape": resaved(lambda s: {**s, "task": {k: torch.zeros(3) for k in s["task"]}}),
    "an object": lambda file: torch.save(Path("a"), file),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_starts_over_and_says_so(
    tmp_path: Path, cut: Path, whole: list[dict[str, Any]], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shutil.copytree(cut, tmp_path / cut.name)
    DAMAGE[what](path / "checkpoint.pt")
    events: list[dict[str, Any]] = []
    assert run_cell(path, events.append)["status"] == "done"
    assert evaluations(path) == whole
    manifest = CellFolder(path).manifest()
    assert "resumes" not in manifest and "starting over" in manifest["started_over"]
    assert [e["text"] for e in events if e["event"] == "notice"] == [manifest["started_over"]]
    assert manifest["started_over"] in capsys.readouterr().err


def test_a_checkpoint_from_before_an_edit_is_left_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its source has changed since: submitted again, the cell says at its start what it will not use."""
    cell = submitted(tmp_path)
    cell.folder.update_manifest({"source": "before"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "combined", lambda _: "before")
        assert interrupted(cell.folder.path)["status"] == "preempted"
        assert job_of(cell).note == "from its checkpoint"
    assert cell.folder.manifest()["source"] == "before" and job_of(cell).note == ""
    assert cell.submit()
    events: list[dict[str, Any]] = []
    assert run_cell(cell.folder.path, events.append)["status"] == "done"
    (notice,) = [event["text"] for event in events if event["event"] == "notice"]
    assert notice == "cannot resume from the checkpoint (its source differs): starting over"
    assert notice in capsys.readouterr().err and cell.folder.manifest()["started_over"] == notice


def test_an_absent_checkpoint_needs_no_words(tmp_path: Path, cut: Path, whole: list[dict[str, Any]]) -> None:
    path = shutil.copytree(cut, tmp_path / cut.name)
    (path / "checkpoint.pt").unlink()
    assert run_cell(path)["status"] == "done" and evaluations(path) == whole
    assert not {"resumes", "started_over"} & CellFolder(path).manifest().keys()


def test_a_sound_checkpoint_is_gone_on_from(tmp_path: Path, cut: Path, whole: list[dict[str, Any]]) -> None:
    path = shutil.copytree(cut, tmp_path / cut.name)
    assert run_cell(path)["status"] == "done" and evaluations(path) == whole
    manifest = CellFolder(path).manifest()
    assert manifest["resumes"] == 1 and "started_over" not in manifest


@pytest.mark.parametrize("blow", ["bit", "block"])
def test_damage_that_changes_what_is_read_is_seen(tmp_path: Path, cut: Path, blow: str) -> None:
    """Wherever it falls: either it is noticed, or what is read is what was written."""
    sound, chance = (cut / "checkpoint.pt").read_bytes(), random.Random(blow)
    written, file = checkpoint.read(cut / "checkpoint.pt"), tmp_path / "checkpoint.pt"
    unseen = 0
    for _ in range(150):
        data, at = bytearray(sound), chance.randrange(len(sound))
        if blow == "bit":
            data[at] ^= 1 << chance.randrange(8)
        else:
            data[at : at + 512] = bytes(len(data[at : at + 512]))
        file.write_bytes(data)
        if checkpoint.damage(file) is None:
            unseen += 1
            assert same(checkpoint.read(file), written), at
    assert unseen < 75  # padding between records


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


# -- where tensors are ---------------------------------------------------------------------------------

ELSEWHERE = torch.device("meta")  # stands for a GPU: a device on which nothing is computed here


def test_tensors_come_back_to_where_they_were() -> None:
    """The second is one that stays on the host on a GPU, such as a counter."""
    tree = {"a": [torch.ones(2, device=ELSEWHERE), torch.ones(2)], "n": deque([torch.ones(1)], 3), "b": 1}
    back = checkpoint.unpacked(_read(checkpoint.packed(tree, ELSEWHERE)), ELSEWHERE)
    assert [t.device.type for t in back["a"]] == ["meta", "cpu"]
    assert back["n"].maxlen == 3 and back["n"][0].device.type == "cpu" and back["b"] == 1


def test_on_the_cpu_nothing_is_marked() -> None:
    tree = {"a": [torch.ones(2)], "b": (1, "c")}
    assert same(checkpoint.packed(tree, torch.device("cpu")), tree)


def test_an_optimizers_state_is_left_on_the_host_for_it_to_take() -> None:
    tree = {"optimizer": {"state": {0: {"m": torch.ones(2)}}, "param_groups": [], "shared": torch.ones(1)}}
    back = checkpoint.unpacked(tree, ELSEWHERE)["optimizer"]
    assert back["state"][0]["m"].device.type == "cpu" and back["shared"].device.type == "meta"


def test_tensors_of_an_object_come_to_the_device() -> None:
    """Such as a preconditioner of a library; it may know itself."""
    inner = SimpleNamespace(q=[torch.ones(2)], r=(torch.ones(1), 2))
    inner.me = inner
    tree = {"optimizer": {"state": {0: {"preconditioner": inner}}, "param_groups": []}}
    back = checkpoint.unpacked(tree, ELSEWHERE)["optimizer"]["state"][0]["preconditioner"]
    assert back.me is back and back.q[0].device.type == back.r[0].device.type == "meta" and back.r[1] == 2


@pytest.mark.parametrize("kind", [torch.optim.RAdam, torch.optim.NAdam, torch.optim.Adamax])
def test_counters_of_torchs_optimizers_stay_on_the_host(kind: Any) -> None:
    """Where they load a state they bring all of it to the parameters, but for ``step``."""
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.grad = torch.ones(3)
    optimizer = kind([parameter])
    optimizer.step()
    counters = {name for name, value in optimizer.state[parameter].items() if value.dim() == 0}
    assert "step" in counters
    saved = copy.deepcopy(optimizer.state_dict())
    saved["state"][0] |= {name: {checkpoint.HOST: saved["state"][0][name]} for name in counters}
    resumed = kind([torch.nn.Parameter(torch.ones(3, device=ELSEWHERE))])
    resumed.load_state_dict(checkpoint.unpacked(saved, ELSEWHERE))
    checkpoint.put_back(resumed.state_dict(), saved, ELSEWHERE)
    (state,) = resumed.state.values()
    assert {name for name, value in state.items() if value.device.type == "cpu"} == counters


def _read(tree: Any) -> Any:
    """As a checkpoint gives it: all on the host."""
    if isinstance(tree, torch.Tensor):
        return torch.ones(tree.shape)
    if isinstance(tree, dict):
        return {key: _read(value) for key, value in tree.items()}
    return type(tree)(map(_read, tree)) if isinstance(tree, (list, tuple)) else tree

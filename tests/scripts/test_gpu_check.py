"""The acceptance run for a GPU, tried on the CPU: what it says of planted faults, and how it adds up."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from runner.check.result import failed
from runner.check.subject import Subject
from scripts import gpu_check
from scripts.gpu_checks import PARTS, bits, clocks, grids, parity, preflight
from scripts.gpu_checks.unit import Broken, NotRunHere, Place

Capture = pytest.CaptureFixture[str]
QUICK = "preflight,clock/events,waits/sgd"
UNITS = [f"{part}/{name}" for part, made in PARTS.items() for name in made()]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place("cpu", tmp_path / "files")


def check(*options: str) -> int:
    return gpu_check.main(["--device", "cpu", *options])


# -- how it adds up ------------------------------------------------------------------------------------


def test_what_has_not_run_is_never_ok_and_what_has_run_is_kept(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "gpu.json"
    assert check("--only", QUICK, "--json", str(file)) == 3
    record = json.loads(file.read_text())
    units, before = record["units"], file.stat().st_mtime_ns
    assert list(units) == UNITS and record["exit_code"] == 3 and record["of"]["device"] == "cpu"
    assert units["preflight/device"]["status"] == "ok" and units["preflight/device"]["seconds"] > 0
    assert units["clock/events"] == {"status": "not run", "text": "events are CUDA's"}
    assert {unit["status"] for name, unit in units.items() if name != "preflight/device"} == {"not run"}
    assert f"1 ok, 0 failed, {len(UNITS) - 1} not run of {len(UNITS)}" in capsys.readouterr().out
    assert check("--only", QUICK, "--json", str(file)) == 3
    again = capsys.readouterr().out
    assert "preflight/device" not in again and "clock/events" in again  # what is missing is tried once more
    assert file.stat().st_mtime_ns > before
    assert json.loads(file.read_text())["units"]["preflight/device"] == units["preflight/device"]


def test_a_fault_ends_it_with_one_and_all_of_it_with_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def broken(place: Place) -> dict[str, Any]:
        raise Broken("planted")

    def fails(place: Place) -> dict[str, Any]:
        raise ZeroDivisionError("its own mistake")

    def fine(place: Place) -> dict[str, Any]:
        return {"found": 1}

    file = tmp_path / "gpu.json"
    for units, code in (({"a": fine}, 0), ({"a": fine, "b": broken}, 1), ({"b": fails}, 1)):
        monkeypatch.setattr(gpu_check, "PARTS", {"part": lambda units=units: units})
        file.unlink(missing_ok=True)
        assert check("--json", str(file)) == code == json.loads(file.read_text())["exit_code"]
    said = capsys.readouterr().out
    assert "failed  part/b  planted" in said and "ZeroDivisionError: its own mistake" in said


def test_shards_are_all_of_it_and_what_begins_too_late_has_not_run(tmp_path: Path, capsys: Capture) -> None:
    shards = [gpu_check.shard(UNITS, f"{i}/3") for i in (1, 2, 3)]
    assert sorted(name for part in shards for name in part) == sorted(UNITS)
    file = tmp_path / "gpu.json"
    assert check("--only", "parity", "--minutes", "0", "--json", str(file)) == 3
    assert json.loads(file.read_text())["units"]["parity/adamw"]["text"] == "out of time (--minutes)"
    assert check("--list", "--only", "parity/a*,bits/wgsef-lm") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "bits/wgsef-lm"


def test_bad_input_is_one_line(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "gpu.json"
    file.write_text(json.dumps({"of": {"device": "cuda"}, "units": {}}))
    wrong = {
        ("--only", "bitz"): "--only bitz: no such part or unit; did you mean bits",
        ("--shard", "4/3"): "--shard 4/3: expected i/n, such as 1/3",
        ("--json", str(file)): "is of another machine, device or commit: name another file",
    }
    for options, message in wrong.items():
        assert check(*options) == 2
        assert message in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert gpu_check.main([]) == 2
        assert "torch has no GPU here" in capsys.readouterr().err


# -- that units find what they look for ----------------------------------------------------------------


def test_tf32_is_seen_before_anything_else(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def rounded(tensor: torch.Tensor, *_: Any) -> torch.Tensor:
        """To 10 bits of mantissa, as TF32 does."""
        return ((tensor.view(torch.int32) + (1 << 12)) & ~((1 << 13) - 1)).view(torch.float32)

    preflight.device(place)
    monkeypatch.setattr(torch.Tensor, "to", rounded)
    with pytest.raises(Broken, match=r"of fp32 is off by .*: TF32 is on"):
        preflight.device(place)


def test_parity_is_of_numbers(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parity.same_losses("sgd", place)["worst"] == 0
    other: Callable[[Subject], Subject] = lambda subject: subject.at("optimizer.lr", 0.3)  # noqa: E731
    monkeypatch.setattr(parity, "on_the_cpu", other)
    with pytest.raises(Broken, match="losses differ by"):
        parity.same_losses("sgd", place)


def test_bits_are_those_of_the_checks(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bits.same_bits("adamw", "breast_cancer", place)["checks"] == [*bits.CHECKS]
    assert not torch.are_deterministic_algorithms_enabled()
    with pytest.raises(NotRunHere, match="wgsef does not fit breast_cancer"):
        bits.same_bits("wgsef", "breast_cancer", place)
    monkeypatch.setattr(bits, "run_checks", lambda *_: [("repeat", failed("another loss"))])
    with pytest.raises(Broken, match="repeat: another loss"):
        bits.same_bits("adamw", "breast_cancer", place)


@pytest.mark.parametrize("where", clocks.ACCOUNTS)
def test_a_pause_is_found_on_its_account(where: str, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert clocks.paused(where, place)["planted_seconds"] > 0.2
    elsewhere = {"step": "swap", "enter_eval": "eval", "evaluation": "train"}[where]
    monkeypatch.setattr(clocks, "ACCOUNTS", {where: (elsewhere, clocks.ACCOUNTS[where][1]), "": ("log", 0)})
    with pytest.raises(Broken, match="the accounts grew by"):
        clocks.paused(where, place)


def test_a_clock_that_does_not_wait_for_the_device_is_found(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device of its own pace: pauses pile up until somebody waits, as kernels do."""
    owed = [0.0]

    def wait() -> None:
        time.sleep(owed[0])
        owed[0] = 0.0

    def launch() -> None:
        owed[0] += clocks.PAUSE

    monkeypatch.setattr(clocks, "pauses", lambda _place: launch)
    monkeypatch.setattr(clocks.machine, "synchronizer", lambda _device: wait)
    assert clocks.paused("step", place)
    monkeypatch.setattr(clocks.machine, "synchronizer", lambda _device: lambda: None)
    with pytest.raises(Broken, match="pauses in step"):
        clocks.paused("step", place)


@pytest.mark.slow
@pytest.mark.parametrize("name", grids.units())
def test_grids_take_their_courses(name: str, place: Place) -> None:
    grids.units()[name](place)


@pytest.mark.slow
def test_a_grid_that_trains_on_is_found(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grids, "BOTH", "algorithm.optimizer.lr=0.1,0.2")
    with pytest.raises(Broken, match="exit code 0, done"):
        grids.out_of_memory(replace(place))

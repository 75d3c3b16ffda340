"""What the doctor says of a machine: as it is, and with each thing that can be wrong planted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner import doctor
from runner.machine import gpus
from tests.doubles.fake_gpus import UUID, FakeGpus, four_gpus

__all__ = ["four_gpus"]


@pytest.fixture
def look(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """The findings, by what was looked at, and the exit code under ``code``."""

    def look(*options: str) -> dict[str, Any]:
        folders = ["--results-dir", f"{tmp_path}/results", "--data-dir", f"{tmp_path}/data"]
        code = doctor.main([*folders, *options, "--json"])
        findings = json.loads(capsys.readouterr().out)
        found: dict[str, Any] = {}
        for finding in findings:
            found.setdefault(finding["what"], []).append(finding)
        return {**found, "code": code}

    return look


def test_this_machine_in_a_process_of_its_own(tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "runner.doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    found = {finding["what"]: finding for finding in json.loads(done.stdout)}
    assert {"cores", "results", "data", "SLURM", "W&B", "torch", "GPU"} <= set(found)
    assert done.returncode == any(finding["status"] == "wrong" for finding in found.values())
    import torch

    assert found["torch"]["text"].startswith(f"{torch.__version__}, built for ")
    assert torch.backends.cpu.get_cpu_capability() in found["torch"]["text"]
    assert not any(line.endswith(" torch") for line in done.stderr.splitlines())  # that is a child's business
    assert not list(tmp_path.iterdir())


def test_it_is_read_at_80_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], four_gpus: FakeGpus
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    assert doctor.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80 and sum("Fake H100" in line for line in lines) == 4


def test_gpus_and_who_uses_them(look: Callable[..., dict[str, Any]], four_gpus: FakeGpus) -> None:
    error = "CUDA error: uncorrectable ECC error encountered"
    four_gpus.torch_says(gpus=[FakeGpus.one(i, error=error if i == 2 else None) for i in range(4)])
    four_gpus.smi_says(free={0: 1024, 1: 81920}, apps=[(0, 4242)])
    found = look()
    said = {finding["text"]: finding["status"] for finding in found["GPU"]}
    assert said == {
        f"Fake H100, GPU-{UUID.format(0)}, 80 GB, 1 GB free, used by 4242": "warning",
        f"Fake H100, GPU-{UUID.format(1)}, 80 GB, 80 GB free": "ok",
        f"Fake H100, GPU-{UUID.format(3)}, 80 GB; nvidia-smi does not report who is using it": "ok",
        f"Fake H100 GPU-{UUID.format(2)}: {error}": "wrong",
    }
    assert found["code"] == 1


@pytest.mark.parametrize(
    ("built", "hidden", "status", "words"),
    [
        ("cuda", False, "wrong", "torch cannot use it: the driver is too old"),
        ("cpu", False, "warning", "this torch is built for cpu"),
        ("cuda", True, "ok", "hidden by the environment"),
    ],
)
def test_a_gpu_that_cannot_be_used(
    built: str, hidden: bool, status: str, words: str, look: Callable[..., dict[str, Any]],
    four_gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    monkeypatch.setattr(gpus, "ROOT", tmp_path)
    four_gpus.torch_says(error="the driver is too old", built=built)
    if hidden:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = look()
    (finding,) = found["GPU"]
    assert finding["status"] == status and words in finding["text"]
    assert found["code"] == (status == "wrong")


def test_a_torch_that_cannot_be_imported(look: Callable[..., dict[str, Any]], four_gpus: FakeGpus) -> None:
    four_gpus.torch_says(problem="the process that asked ended with exit code 1: ImportError: libcudart")
    found = look()
    assert found["torch"][0]["status"] == "wrong" and "libcudart" in found["torch"][0]["text"]
    assert found["code"] == 1


@pytest.mark.parametrize(
    ("name", "value", "what", "status", "words"),
    [
        ("exclusive", lambda _folder: False, "locks", "wrong", "cells train twice"),
        ("clock_skew", lambda _folder: 3600.0, "clock", "warning", "+3600 s"),
        ("file_system", lambda _folder: "nfs4", "results", "warning", "network file system"),
        ("ROOM_GB", 1e9, "results", "warning", "GB free"),
        ("_existing", lambda _folder: Path("/proc/1/root/none"), "results", "wrong", "cannot be"),
    ],
)
def test_a_disk_that_will_not_do(
    name: str, value: Any, what: str, status: str, words: str, look: Callable[..., dict[str, Any]],
    four_gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(doctor, name, value)
    found = look()
    (finding,) = found[what]
    assert finding["status"] == status and words in finding["text"] and finding["remedy"]


def test_more_threads_than_cores_and_a_broken_cluster(
    look: Callable[..., dict[str, Any]], four_gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1000")
    for tool in ("sbatch", "sinfo"):
        (tmp_path / "bin" / tool).write_text(
            "#!/bin/sh\necho 'Unable to contact slurm controller' >&2\nexit 1\n"
        )
        (tmp_path / "bin" / tool).chmod(0o755)
    found = look()
    assert found["cores"][0]["status"] == found["SLURM"][0]["status"] == "warning"
    assert "Unable to contact slurm controller" in found["SLURM"][0]["text"]


def test_a_check_that_fails_is_a_finding(
    look: Callable[..., dict[str, Any]], four_gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def data_folder(_asked: doctor.Asked) -> Any:
        raise OSError("Input/output error")

    monkeypatch.setattr(doctor, "CHECKS", (data_folder,))
    found = look()
    assert "Input/output error" in found["data folder"][0]["text"] and found["code"] == 1


def test_the_file_system_under_a_folder(tmp_path: Path) -> None:
    assert doctor.file_system(Path("/proc")) == "proc"
    assert doctor.file_system(tmp_path)
    assert doctor.exclusive(tmp_path) and abs(doctor.clock_skew(tmp_path)) < 5
    assert not list(tmp_path.iterdir())


def test_names_of_files_do_nothing_to_a_terminal(
    tmp_path: Path, four_gpus: FakeGpus, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data\x1b]0;title\x07").mkdir()
    assert doctor.main(["--data-dir", str(tmp_path), "--results-dir", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "data]0;title" in said and "\x1b]" not in said and "\x07" not in said

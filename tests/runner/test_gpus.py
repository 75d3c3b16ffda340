"""Which GPUs there are: as torch says, by UUID, and what is said where there is none."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from runner.__main__ import main
from runner.base.errors import UserError
from runner.compose.config import compose
from runner.machine import gpus
from runner.machine.gpus import Gpu, automatic, find, required, uses
from tests.doubles.fake_gpus import UUID, FakeGpus, four_gpus

__all__ = ["four_gpus"]
SHORT = ["workload=digits", "workload.budget_samples=960", "log=none"]


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file system with a GPU's device file, for the signs of one."""
    monkeypatch.setattr(gpus, "ROOT", tmp_path)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    return tmp_path


def test_a_machine_without_a_sign_of_a_gpu_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, four_gpus: FakeGpus
) -> None:
    monkeypatch.setattr(gpus, "ROOT", tmp_path)
    assert automatic() == "cpu" and four_gpus.asked == 0


@pytest.mark.parametrize(
    "sign", ["dev/nvidia3", "proc/driver/nvidia/gpus/0000", "usr/lib/wsl/lib/libcuda.so.1"]
)
def test_a_sign_is_not_enough_torch_is_asked_once(
    sign: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, four_gpus: FakeGpus
) -> None:
    monkeypatch.setattr(gpus, "ROOT", tmp_path)
    (tmp_path / sign).parent.mkdir(parents=True)
    (tmp_path / sign).touch()
    assert [automatic(), automatic()] == ["cuda", "cuda"] and four_gpus.asked == 1


def test_torch_built_for_the_cpu_means_cpu_whatever_its_version_is_called(
    root: Path, four_gpus: FakeGpus
) -> None:
    four_gpus.torch_says(torch="2.9.0", built="cpu", error="Torch not compiled with CUDA enabled")
    assert automatic() == "cpu"


def test_a_driver_that_is_too_old_is_one_line_before_anything_is_written(
    root: Path, four_gpus: FakeGpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    four_gpus.torch_says(error="The NVIDIA driver on your system is too old (found version 11040).")
    overrides = [*SHORT, "workload.resources.device=null", f"results_dir={tmp_path}/results"]
    assert main(overrides) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "torch 9.9.9+cu999 cannot use it: The NVIDIA driver on your system is too old" in said
    assert "device=cpu" in said and "Traceback" not in said
    assert not (tmp_path / "results").exists()


def test_a_small_workload_is_trained_on_the_cpu_where_nothing_else_was_asked_for(
    root: Path, four_gpus: FakeGpus
) -> None:
    assert compose(["workload=digits"])["device"] == "cpu" and four_gpus.asked == 0
    assert compose(["workload=tiny_lm_pydocs"])["device"] == "cuda"
    assert compose(["workload=digits", "device=cuda"])["resources"]["gpus"] == 1


@pytest.mark.parametrize("hiding", ["", "-1", "-1,0", "NoDevFiles", "none", "void"])
def test_hidden_gpus_mean_cpu(
    hiding: str, root: Path, four_gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hiding)
    assert automatic() == "cpu" and four_gpus.asked == 0


@pytest.mark.parametrize(
    ("says", "message"),
    [
        ({"error": "Torch not compiled with CUDA enabled", "built": "cpu"}, "Torch not compiled with CUDA"),
        ({"problem": "it did not answer within 120 s"}, "it did not answer within 120 s"),
        ({"gpus": []}, "it counts none"),
        ({"gpus": [FakeGpus.one(0, error="CUDA error: ECC")]}, "Fake H100 .*: CUDA error: ECC"),
    ],
)
def test_cuda_without_a_gpu_is_refused_with_what_torch_says_before_any_cell(
    says: dict, message: str, four_gpus: FakeGpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    four_gpus.torch_says(**says)
    for launcher in ("local", "inline"):
        overrides = [*SHORT, "device=cuda", f"hydra/launcher={launcher}", f"results_dir={tmp_path}/results"]
        assert main(overrides) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert re.search(message, said) and "device=cpu" in said and "Traceback" not in said
    assert not list(tmp_path.glob("results/*/cells/*"))


def test_all_shows_what_the_environment_says(four_gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "all")
    four_gpus.torch_says(error="No CUDA GPUs are available")
    with pytest.raises(UserError, match=r"No CUDA GPUs are available \(CUDA_VISIBLE_DEVICES=all\)"):
        required()


def test_gpus_have_their_uuids_as_names_and_keep_those_that_were_given(
    four_gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [gpu.name for gpu in required()] == [f"GPU-{UUID.format(index)}" for index in range(4)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,MIG-x")
    four_gpus.torch_says(gpus=[FakeGpus.one(3), FakeGpus.one(7, model="A100 MIG 1g.5gb")])
    assert [(gpu.name, gpu.uuid) for gpu in required()] == [("3", UUID.format(3)), ("MIG-x", UUID.format(7))]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    four_gpus.torch_says(gpus=[FakeGpus.one(7, model="A100 MIG 1g.5gb")])
    assert [gpu.name for gpu in required()] == ["0"]  # torch has no name of a MIG instance that CUDA takes
    four_gpus.torch_says(built="rocm", gpus=[FakeGpus.one(0), FakeGpus.one(1)])
    assert [(gpu.name, gpu.variable) for gpu in required()] == [
        (n, "HIP_VISIBLE_DEVICES") for n in ("0", "1")
    ]


def test_one_dead_gpu_among_four_is_left_out(four_gpus: FakeGpus) -> None:
    error = "CUDA error: uncorrectable ECC error encountered"
    four_gpus.torch_says(gpus=[FakeGpus.one(i, error=error if i == 2 else None) for i in range(4)])
    assert [gpu.uuid for gpu in required()] == [UUID.format(i) for i in (0, 1, 3)]
    assert [gpu.error for gpu in find().unusable] == [error]


def test_what_nvidia_smi_says_is_taken_where_it_is_an_answer(four_gpus: FakeGpus) -> None:
    four_gpus.smi_says(free={0: 1024, 1: 2048}, apps=[(1, 4242), (9, 1)])
    found = uses(required())
    first, second, *_ = (gpu.name for gpu in required())
    assert found[first] == (1.0, ()) and found[second] == (2.0, (4242,)) and len(found) == 2
    four_gpus.smi_says(None)  # "No devices were found"
    assert uses(required()) == {}


def test_the_probe_answers_in_one_line_whatever_else_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus.find.cache_clear()
    found = find()
    gpus.find.cache_clear()
    import torch

    assert found.torch == torch.__version__
    assert bool(found.gpus) == torch.cuda.is_available() and (found.why is None) == bool(found.gpus)


def test_a_probe_that_dies_or_hangs_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    python = tmp_path / "python"
    for script, reason in (
        ("echo 'no libcuda' >&2; exit 3", "the process that asked ended with exit code 3: no libcuda"),
        ("sleep 20", "it did not answer within 1 s"),
    ):
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(python))
        monkeypatch.setattr(gpus, "PATIENCE", 1.0)
        gpus.find.cache_clear()
        assert find().why == reason
    gpus.find.cache_clear()


def test_a_claim_is_the_uuid_by_whichever_name_a_gpu_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert Gpu("0", "u").claim == Gpu("GPU-u", "u").claim == "gpu-u"
    assert Gpu("0").claim == "gpu-0"
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert Gpu("0", "u").claim == "gpu-u" and Gpu("0").claim == "gpu-7-0"


def test_our_own_processes_are_told_from_others() -> None:
    assert not gpus.is_ours(os.getpid()) and not gpus.is_ours(1) and not gpus.is_ours(2**22 + 1)
    child = os.fork()
    if child == 0:
        os._exit(0)
    assert gpus.is_ours(child)
    os.waitpid(child, 0)

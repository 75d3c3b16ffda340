"""Precision and compilation belong to the workload: every copy of its model has them, none pays twice.

What fp32 and TF32 compute on a GPU is read from torch's own switches: none was at hand.
"""

from __future__ import annotations

import contextlib
import copy
import operator
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from runner.base.errors import UserError
from runner.cells.cell import Cell
from runner.cells.tables import load
from runner.check.subjects import subjects
from runner.compose.config import algorithm_names, compose
from runner.contract.precision import specialise
from runner.machine import gpus, machine
from runner.train.session import run_cell
from tests.doubles.fake_gpus import UUID, FakeGpus, four_gpus
from tests.tasks import classification

__all__ = ["four_gpus"]
TINY = ["workload=breast_cancer", "workload.budget_samples=320", "log=none"]
OLD = "backends.cuda.matmul.allow_tf32", "backends.cudnn.allow_tf32"
NEW = "backends.cuda.matmul", "backends.cudnn.conv", "backends.cudnn.rnn"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.layer(x))


def test_what_one_model_compiled_the_next_one_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    # Warm-up compiles for a throw-away model: compiling again for the real one would be charged.
    counter, plain = CompileCounter(), Net()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    x = torch.randn(5, 4)
    for _ in range(3):
        model = specialise(Net(), compile=True)
        model.load_state_dict(plain.state_dict())
        assert torch.equal(model(x), plain(x)) and torch.equal(copy.deepcopy(model)(x), plain(x))
    assert counter.frame_count == 1


def test_bf16_rounds_inside_and_gives_floats() -> None:
    plain = Net()
    model = specialise(copy.deepcopy(plain), "bf16")
    x = torch.randn(64, 4)
    out = model(x)
    assert out.dtype == torch.float32 and not torch.equal(out, plain(x))
    assert torch.allclose(out, plain(x), atol=0.05)
    assert type(specialise(Net(), "bf16")) is type(model) and type(plain) is Net


def test_an_unknown_precision_is_named() -> None:
    with pytest.raises(ValueError, match="precision must be fp32, tf32 or bf16, got 'fp8'"):
        specialise(Net(), "fp8")


# -- TF32 --------------------------------------------------------------------------------------------


def tf32() -> list[bool]:
    """Each switch of TF32, by its old name and by its new one."""
    old = [bool(operator.attrgetter(name)(torch)) for name in OLD]
    return old + [operator.attrgetter(name)(torch).fp32_precision == "tf32" for name in NEW]


class Looks(torch.optim.SGD):
    """Writes down how TF32 is switched while it trains."""

    seen: ClassVar[list[list[bool]]] = []

    def step(self, closure: Any = None) -> Any:
        self.seen.append(tf32())
        return super().step(closure)


@pytest.fixture
def looks() -> Iterator[list[list[bool]]]:
    yield Looks.seen
    Looks.seen.clear()


def trained(folder: Path, *overrides: str) -> dict[str, Any]:
    target = f"algorithm.optimizer._target_={Looks.__module__}.Looks"
    where = [*TINY, "algorithm=sgd", target, f"results_dir={folder}", *overrides]
    cell = Cell.from_overrides(where)
    cell.submit()
    return run_cell(cell.folder.path)


def test_fp32_has_no_tf32_whatever_stood_before_it(tmp_path: Path, looks: list[list[bool]]) -> None:
    # cuDNN's is on in a fresh process: "fp32" on a GPU was 10 bits of mantissa in every convolution.
    before = tf32()
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    try:
        assert trained(tmp_path)["status"] == "done"
        assert len(looks) > 0 and not any(map(any, looks))
        assert all(tf32()), "the process is to be as the cell found it"
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before[1], before[0]


@pytest.mark.parametrize(("precision", "on"), [("fp32", False), ("tf32", True), ("bf16", False)])
def test_a_precision_sets_every_switch(precision: str, on: bool) -> None:
    before, threads = tf32(), torch.get_num_threads()
    try:
        for first in (True, False):  # what the cell before has left
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = first
            machine.configure(threads, False, precision)
            assert tf32() == [on] * 5
    finally:
        machine.configure(threads, False)
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before[1], before[0]


def test_tf32_on_a_cpu_is_refused_before_anything_is_written(four_gpus: FakeGpus) -> None:
    for device in ("cpu", "auto"):  # for this workload, auto is the CPU
        with pytest.raises(UserError, match="precision=tf32: only GPUs support it, but device=cpu"):
            compose([*TINY, "workload.precision=tf32", f"device={device}"])
    found = compose([*TINY, "workload.precision=tf32", "device=cuda"])
    assert found["workload"]["precision"] == "tf32"
    assert found["workload_label"] == "breast_cancer[budget_samples=320,precision=tf32]"


def test_tf32_on_a_gpu_without_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "Tesla V100")
    for found in ((7, 0), (7, 5)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device, found=found: found)
        with pytest.raises(UserError, match=r"Tesla V100 \(compute capability 7\.\d\) has no TF32"):
            machine.refuse_tf32(torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (8, 0))
    machine.refuse_tf32(torch.device("cuda"))


# -- what a manifest says of a GPU ---------------------------------------------------------------------


def test_a_gpu_is_recorded_with_what_its_speed_hangs_on(
    monkeypatch: pytest.MonkeyPatch, four_gpus: FakeGpus
) -> None:
    four_gpus.smi_says(free={0: 80000, 2: 80000}, driver="550.54.15", watts="350.00")
    properties = SimpleNamespace(uuid=UUID.format(2))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: properties)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "Fake H100")
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    found = machine.facts(torch.device("cuda"), object())
    assert found["hardware"]["device"] == "Fake H100"
    wanted = {"uuid": UUID.format(2), "cuda": "12.6", "cudnn": "91002", "tf32": False}
    assert found["gpu"] == wanted | {"driver": "550.54.15", "power_limit_w": 350.0}
    assert "gpu" not in machine.facts(torch.device("cpu"), object())


@pytest.mark.parametrize(("watts", "known"), [("[N/A]", {"driver": "550"}), ("No devices were found", {})])
def test_what_nvidia_smi_does_not_say_is_left_out(watts: str, known: dict, four_gpus: FakeGpus) -> None:
    four_gpus.smi_says(free={0: 1} if known else None, driver="550", watts=watts)
    assert gpus.settings(f"GPU-{UUID.format(0)}") == known
    assert gpus.settings(UUID.format(3)) == {}


def test_peak_memory_is_a_column_of_cells_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert trained(tmp_path, "study=1")["status"] == "done"  # on a CPU: nothing
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _device: calls.append("reset"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _device: calls.append("read") or 3 << 29)
    on_gpu = {name: getattr(machine, name) for name in ("reset_peak_memory", "peak_memory")}
    for name, function in on_gpu.items():
        monkeypatch.setattr(machine, name, lambda _device, function=function: function(torch.device("cuda")))
    assert trained(tmp_path)["status"] == "done" and calls == ["reset", "read"]
    cells = load(tmp_path / "default")[0].set_index("study")
    assert cells.loc[0, "peak_gpu_memory_gb"] == 1.5 and cells["peak_gpu_memory_gb"].isna()[1]


# -- second derivatives of compiled models -------------------------------------------------------------


HESSIAN = ["algorithm=gns_newton", "algorithm.hessian=exact"]


@pytest.mark.parametrize(
    ("chosen", "who"), [(["algorithm=bo_rep"], "reweighting"), (HESSIAN, "hessian=exact")]
)
def test_second_derivatives_of_a_compiled_model_are_refused_before_training(
    chosen: list[str], who: str, tmp_path: Path
) -> None:
    cell = Cell.from_overrides([*TINY, *chosen, "workload.compile=true", f"results_dir={tmp_path}"])
    cell.submit()
    status = run_cell(cell.folder.path)
    assert status["status"] == "failed" and status["user_error"] and not cell.folder.evals()
    assert f"{who}: takes second derivatives" in status["error"].replace("exact takes", "exact: takes")
    assert status["error"].endswith("say workload.compile=false")
    task = classification()
    task.info = replace(task.info, compiled=True)
    with pytest.raises(UserError, match=r"task\.hvp takes second derivatives"):
        task.hvp(task.data.next(), task.params)


@contextlib.contextmanager
def differentiated(patch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What asks, inside, for gradients of a model's weights that can be differentiated."""
    found: list[str] = []

    def watched(function: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            at = args[1] if function.__name__ == "grad" and len(args) > 1 else None
            of_weights = at is None or any(isinstance(p, nn.Parameter) for p in at)
            if options.get("create_graph") and of_weights:
                found.append(function.__name__)
            return function(*args, **options)

        return call

    with patch.context() as inside:
        for name in ("grad", "backward"):
            inside.setattr(torch.autograd, name, watched(getattr(torch.autograd, name)))
        yield found


@pytest.mark.slow
def test_every_method_that_takes_second_derivatives_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in algorithm_names():
        small = subjects([f"algorithm={name}", "workload=breast_cancer,digits"])
        subject = next(s for s in small if s.refusal is None)
        with differentiated(monkeypatch) as found:
            subject.train(12)
        said = subject.build_algorithm().compatible(replace(subject.info, compiled=True))
        assert bool(found) == (said is not None), name

"""Who gets which cores and GPUs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runner.base.errors import UserError
from runner.machine import slots as module
from runner.machine.gpus import Gpu
from runner.machine.slots import Claims, Slots, physical_cores
from tests.doubles.fake_gpus import FakeGpus, four_gpus

__all__ = ["four_gpus"]


def known(*names: str) -> list[Gpu]:
    return [Gpu(name) for name in names]


@pytest.fixture(autouse=True)
def own_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path


def test_cells_on_the_cpu_get_disjoint_cores() -> None:
    slots = Slots(cores=range(4))
    taken = [slots.take("cpu", 1) for _ in range(4)]
    assert all(slot is not None and slot.pinned and not slot.shared for slot in taken)
    assert sorted(core for slot in taken if slot for core in slot.cores) == [0, 1, 2, 3]
    assert slots.take("cpu", 1) is None
    assert taken[2] is not None
    slots.give(taken[2])
    again = slots.take("cpu", 1)
    assert again is not None and again.cores == taken[2].cores


def test_a_cell_that_wants_many_cores_waits_for_them_and_gets_all_there_are_at_most() -> None:
    slots = Slots(cores=range(4))
    one, three = slots.take("cpu", 1), slots.take("cpu", 3)
    assert one and three and len(three.cores) == 3
    slots.give(one)
    assert slots.take("cpu", 8) is None
    slots.give(three)
    everything = slots.take("cpu", 8)
    assert everything and everything.cores == (0, 1, 2, 3) and slots.take("cpu", 1) is None


def test_workers_overrides_how_many_and_crowding_is_told() -> None:
    few = Slots(cores=range(4), workers=2)
    taken = [few.take("cpu", 1) for _ in range(3)]
    assert [slot is not None for slot in taken] == [True, True, False]
    assert taken[0] and not taken[0].shared
    crowd = Slots(cores=range(2), workers=4)
    crowded = [crowd.take("cpu", 1) for _ in range(5)]
    assert [slot is not None for slot in crowded] == [True] * 4 + [False]
    assert all(slot.shared and not slot.pinned for slot in crowded[:4] if slot)


def test_gpus_are_lent_one_cell_each_or_as_many_as_asked_for() -> None:
    slots = Slots(cores=range(4), given=known("0", "GPU-abc"))
    first, second = slots.take("cuda", 1), slots.take("cuda", 1)
    assert first and second and {first.gpu, second.gpu} == set(known("0", "GPU-abc"))
    assert not set(first.cores) & set(second.cores) and not first.shared
    assert first.env == {"CUDA_VISIBLE_DEVICES": "0"} and slots.take("cuda", 1) is None
    slots.give(second)
    again = slots.take("cuda", 1)
    assert again and again.gpu == Gpu("GPU-abc")
    slots.give(first)
    shared = Slots(cores=range(4), given=known("0"), per_gpu=2)
    pair = [shared.take("cuda", 1) for _ in range(3)]
    assert pair[0] and pair[1] and pair[2] is None
    assert pair[0].gpu == pair[1].gpu == Gpu("0") and pair[0].shared and pair[1].shared


def test_another_launch_on_this_machine_gets_another_gpu_while_there_is_one() -> None:
    first, second = (Slots(cores=[], given=known("0", "1")) for _ in range(2))
    a, b = first.take("cuda", 1), second.take("cuda", 1)
    assert a and b and a.gpu != b.gpu and not a.shared and not b.shared
    assert second.take("cuda", 1) is None  # all are taken: wait
    first.give(a)
    again = second.take("cuda", 1)
    assert again and again.gpu == a.gpu and not again.shared


def test_two_launches_in_one_allocation_do_not_share_a_gpu_by_two_names(
    four_gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    first = Slots(cores=[], given=[Gpu("0", "u")])
    second = Slots(cores=[], given=[Gpu("GPU-u", "u")])
    taken = first.take("cuda", 1)
    assert taken and second.take("cuda", 1) is None
    assert second.lacking == "GPU GPU-u is in use by another launch on this machine: waiting for it"
    first.give(taken)
    assert second.take("cuda", 1) and second.lacking is None


def test_jobs_of_a_batch_system_may_all_call_theirs_0(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    for job in ("1", "2"):  # where torch does not tell UUIDs
        monkeypatch.setenv("SLURM_JOB_ID", job)
        taken.append(Slots(cores=[], given=known("0")).take("cuda", 1))
    assert all(slot and not slot.shared for slot in taken)


def test_other_peoples_processes_make_a_gpu_shared_and_too_little_memory_keeps_it_back(
    four_gpus: FakeGpus,
) -> None:
    four_gpus.smi_says(free={0: 500, 1: 80_000, 2: 500, 3: 80_000}, apps=[(1, 1)])
    slots = Slots(cores=range(4))
    taken = [slots.take("cuda", 1, 2.0) for _ in range(3)]
    assert taken[2] is None and slots.lacking and "has 0.5 GB free, but a cell needs 2" in slots.lacking
    by_uuid = {slot.gpu.uuid[7]: slot.shared for slot in taken if slot and slot.gpu}
    assert by_uuid == {"1": True, "3": False}
    four_gpus.smi_says(free=dict.fromkeys(range(4), 80_000))
    assert slots.take("cuda", 1, 2.0) and slots.lacking is None


def test_a_cell_that_wants_a_gpu_never_gets_cores_instead(four_gpus: FakeGpus) -> None:
    four_gpus.torch_says(error="No CUDA GPUs are available")
    with pytest.raises(UserError, match="No CUDA GPUs are available"):
        Slots(cores=range(4)).take("cuda", 1)
    assert Slots(cores=range(4)).take("cpu", 1) and four_gpus.asked == 1


def test_gpus_can_be_had_where_claims_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(tmp_path / "absent" / "deeper"))
    gpu, core = Slots(cores=[], given=known("0")).take("cuda", 1), Slots(cores=[0]).take("cpu", 1)
    assert gpu and not gpu.shared and core and not core.pinned


def test_how_many_fit() -> None:
    assert Slots(cores=range(8)).count("cpu", 2) == 4
    assert Slots(cores=range(2)).count("cpu", 16) == 1
    assert Slots(cores=range(8), workers=3).count("cpu", 1) == 3
    assert Slots(cores=range(8), given=known("0", "1"), per_gpu=2).count("cuda", 1) == 4


def test_another_launch_on_this_machine_gets_other_cores() -> None:
    first, second = Slots(cores=range(3)), Slots(cores=range(3))
    a, b = first.take("cpu", 1), second.take("cpu", 1)
    assert a and b and a.pinned and b.pinned and a.cores != b.cores
    c = second.take("cpu", 2)  # only one core is nobody's: better no pinning than another's core
    assert c and not c.pinned
    first.give(a)
    second.give(c)
    c = second.take("cpu", 2)
    assert c and c.pinned and not set(c.cores) & set(b.cores)


def test_a_killed_launch_lets_go_of_its_cores(tmp_path: Path) -> None:
    hold = (
        "import sys; from pathlib import Path; from runner.machine.slots import Claims\n"
        "claims = Claims(Path(sys.argv[1])); print(claims.take(0), flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", hold, str(tmp_path / "cores")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "True\n"
        assert not Claims(tmp_path / "cores").take(0)
        other.kill()
    assert Claims(tmp_path / "cores").take(0)


def test_the_machine_is_what_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {2, 5, 6, 7})
    monkeypatch.setattr(module, "physical_cores", lambda cpus: [cpu for cpu in cpus if cpu != 6])
    slots = Slots.here()
    assert list(slots.cores) == [2, 5, 7] and slots.pinned
    assert list(Slots.here(workers=4).cores) == [2, 5, 6, 7]
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "2")
    inside = Slots.here()
    assert len(inside.cores) == 2 and not inside.pinned


def test_hyper_threads_are_no_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for cpu, siblings in enumerate(["0,2", "1,3", "0,2", "1,3"]):
        (tmp_path / f"cpu{cpu}").write_text(siblings + "\n")
    monkeypatch.setattr(module, "SIBLINGS", str(tmp_path / "cpu{}"))
    assert physical_cores([0, 1, 2, 3]) == [0, 1]
    assert physical_cores([2, 3]) == [2, 3]
    assert physical_cores([0, 9]) == [0, 9]

"""Cells into tasks and arrays, and what sbatch is told; no cluster is needed."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from runner.base.errors import UserError
from runner.launch.slurm.options import SlurmOptions
from runner.launch.slurm.pack import CellSpec, arrays, pack, parameters, time_limit
from runner.launch.slurm.submit import explained


class Needs(NamedTuple):
    minutes: float = 1.0
    memory_gb: float = 2.0
    cores: int | None = 1
    gpus: int | None = 0


def cells(*needs: Needs) -> list[CellSpec]:
    return [CellSpec(f"c{i}", n) for i, n in enumerate(needs)]


def options(**changes: Any) -> SlurmOptions:
    return SlurmOptions.of(changes)


def names(tasks: list[list[CellSpec]]) -> list[list[str]]:
    return [[cell.name for cell in task] for task in tasks]


# -- packing -----------------------------------------------------------------------------------------


def test_cells_fill_tasks_by_number_or_by_minutes() -> None:
    ten = cells(*[Needs(minutes=8)] * 10)
    assert [len(t) for t in pack(ten, options(cells_per_task=4))] == [4, 4, 2]
    assert [len(t) for t in pack(ten, options(minutes_per_task=30))] == [3, 3, 3, 1]
    assert [len(t) for t in pack(ten, options(minutes_per_task=30), side=2)] == [7, 3]
    assert [len(t) for t in pack(ten, options(minutes_per_task=1))] == [1] * 10


def test_a_long_cell_has_a_task_of_its_own_and_starts_first() -> None:
    mixed = cells(Needs(minutes=5), Needs(minutes=500), Needs(minutes=6))
    assert names(pack(mixed, options(minutes_per_task=30))) == [["c1"], ["c2", "c0"]]


def test_no_cell_is_lost_and_none_doubled() -> None:
    many = cells(*[Needs(m / 7, memory_gb=1 + m % 2, cores=1 + m % 3, gpus=m % 2) for m in range(1, 400)])
    planned = arrays(many, options(), max_tasks=5)
    found = [name for array in planned for task in array.tasks for name in task]
    assert sorted(found) == sorted(cell.name for cell in many)
    assert all(1 <= len(array.tasks) <= 5 for array in planned)


def test_unlike_resources_go_into_arrays_of_their_own() -> None:
    planned = arrays(cells(Needs(), Needs(cores=2), Needs(gpus=1), Needs(memory_gb=9), Needs()), options())
    assert {(a.cores, a.gpus, a.memory_gb) for a in planned} == {(1, 0, 2), (2, 0, 2), (1, 1, 2), (1, 0, 9)}
    assert len(planned) == 4


def test_short_and_long_tasks_have_time_limits_of_their_own() -> None:
    planned = arrays(cells(Needs(minutes=1), Needs(minutes=600)), options(cells_per_task=1))
    assert sorted(array.minutes for array in planned) == [9, 1207]


def test_time_limit_leaves_room() -> None:
    four = cells(*[Needs(minutes=10)] * 4)
    assert time_limit(four, options()) == 2 * 40 + 5 + 2
    assert time_limit(four, options(), side=2) == 2 * 20 + 5 + 2
    assert time_limit(four, options(signal_delay_s=600)) == 95
    assert time_limit(cells(Needs(minutes=10), Needs(minutes=1)), options(), side=4) == 2 * 10 + 5 + 2
    assert time_limit(four, options(time=3)) == 3


def test_a_bigger_task_holds_cells_side_by_side() -> None:
    (array,) = arrays(cells(*[Needs(minutes=10, cores=2)] * 6), options(cpus_per_task=8, minutes_per_task=30))
    assert (array.cores, array.memory_gb, len(array.tasks), array.minutes) == (8, 8, 1, 2 * 15 + 7)
    (array,) = arrays(cells(*[Needs(minutes=10, cores=4, gpus=1)] * 2), options(cpus_per_task=8, gpus=2))
    assert (array.cores, array.gpus, array.minutes) == (8, 2, 27)


# -- sbatch ------------------------------------------------------------------------------------------


def told(needs: Needs, **changes: Any) -> dict[str, Any]:
    chosen = options(**changes)
    return parameters(arrays(cells(needs), chosen)[0], chosen, "exp")


def test_resources_become_sbatch_parameters() -> None:
    found = told(Needs(minutes=30, memory_gb=1.5, cores=4, gpus=1))
    assert found["time"] == 67 and found["mem"] == "1536M" and found["cpus_per_task"] == 4
    assert found["gpus_per_node"] == 1 and found["job_name"] == "exp" and "partition" not in found
    assert found["srun_args"] == ["--cpus-per-task=4", "--export=ALL"] and found["additional_parameters"] == {
        "requeue": True
    }


def test_options_win_over_resources() -> None:
    where = {"partition": "gpu", "account": "lab", "qos": "low", "constraint": "a100", "exclude": "n1"}
    found = told(
        Needs(gpus=1), time=10, mem_gb=8, cpus_per_task=2, gres="gpu:a100:1", setup=["ml cuda"], **where
    )
    assert (found["time"], found["mem"], found["cpus_per_task"], found["gres"]) == (
        10,
        "8192M",
        2,
        "gpu:a100:1",
    )
    assert "gpus_per_node" not in found
    assert {key: found[key] for key in where} == where
    assert "gpus_per_node" not in told(Needs(gpus=1), gpus=0)


def test_extra_lines_flags_and_what_is_refused() -> None:
    extra = {"mail_type": "END", "exclusive": True, "licenses": None, "hold": False}
    found = told(Needs(), sbatch=extra)["additional_parameters"]
    assert found == {"requeue": True, "mail-type": "END", "exclusive": True}
    with pytest.raises(UserError, match=r"hydra.launcher.sbatch.open_mode: the runner sets this itself"):
        options(sbatch={"open_mode": "truncate"})


def test_the_signal_comes_when_a_short_task_is_half_way() -> None:
    """SLURM sends it up to a minute early."""
    assert [told(Needs(), time=t)["signal_delay_s"] for t in (1, 2, 3, 4, 60)] == [10, 30, 60, 90, 90]
    assert told(Needs(), time=60, signal_delay_s=600)["signal_delay_s"] == 600


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"partitoin": "gpu"}, "unknown key hydra.launcher.partitoin: did you mean partition"),
        ({"time": 0}, "hydra.launcher.time: got 0, expected a number above 0"),
        ({"gpus": -1}, "hydra.launcher.gpus: got -1, expected a number 0 or more"),
        ({"cells_per_task": 0}, "cells_per_task: got 0"),
        ({"gpus": 1, "gres": "gpu:1"}, "set only one"),
        ({"time": "soon"}, "hydra.launcher.time: got 'soon', expected minutes, such as 90, or null"),
        ({"time": True}, "hydra.launcher.time: got True, expected minutes"),
        ({"setup": "ml cuda"}, "hydra.launcher.setup: got 'ml cuda', expected a list"),
        ({"minutes_per_task": "all"}, "minutes_per_task: got 'all', expected a number"),
        ({"then": "tidy"}, "then: got 'tidy', expected score, or null"),
    ],
)
def test_bad_options_are_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        options(**given)


def test_what_sbatch_says_is_one_line() -> None:
    from submitit.core.utils import FailedJobError

    with (
        pytest.raises(UserError, match="sbatch refused the job: error: no partition x nope"),
        explained(),
    ):
        raise FailedJobError("error: no partition x\n  nope")

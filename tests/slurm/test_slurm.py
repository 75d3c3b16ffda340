"""Cells on a real cluster: arrays, resources, signals, requeues, cancellation, lost nodes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from runner.cells import slurm_queue
from runner.cells.cell import folder_state
from runner.cells.lock import holder
from runner.launch.slurm.signals import Requeues
from tests.slurm.cluster import LONG, Experiment, Needs, result, slurm

PROBE = Path(__file__).parents[1] / "doubles" / "gpu_probe"  # torch's, on the nodes
LOST, OTHERS = "n4", "n4"  # the node that is taken down, and what keeps other tests off it


def requeues(experiment: Experiment, task: str) -> int:
    assert experiment.launch is not None
    return Requeues(experiment.launch.path / "slurm", task).read()


def job(task: str) -> dict[str, str]:
    """What SLURM knows of a task."""
    words = slurm("scontrol", "show", "job", "-o", task).split()
    return dict(word.split("=", 1) for word in words if "=" in word)


def test_cells_are_packed_and_unlike_ones_kept_apart(experiment: Experiment) -> None:
    cells = experiment.cells(count=4)
    needs = [Needs(), Needs(), Needs(cores=2), Needs()]
    ids = experiment.submit(cells, *needs, cells_per_task=2, exclude=OTHERS, sbatch={"comment": "mine"})
    assert len(ids) == 2 and experiment.launch is not None
    arrays = experiment.launch.record["arrays"]
    names = [cell.folder.path.name for cell in cells]
    assert [array["tasks"] for array in arrays] == [
        {"0": [names[0], names[1]], "1": [names[3]]},
        {"0": [names[2]]},
    ]
    facts = job(f"{ids[1]}_0")
    assert (facts["CPUs/Task"], facts["MinMemoryNode"], facts["Comment"]) == ("2", "512M", "mine")
    assert facts["JobName"] == "exp" and facts["ExcNodeList"] == OTHERS and facts["Requeue"] == "1"
    experiment.until_gone()
    assert [result(cell) for cell in cells] == [experiment.undisturbed(cell) for cell in cells]
    jobs = [cell.folder.manifest()["job"] for cell in cells]
    assert jobs == [f"{ids[0]}_0", f"{ids[0]}_0", f"{ids[1]}_0", f"{ids[0]}_1"]
    assert not list(experiment.path.glob("cells/*/lock.*"))


def test_a_bigger_task_trains_cells_side_by_side(experiment: Experiment) -> None:
    cells = experiment.cells(count=3)
    experiment.submit(cells, cells_per_task=3, cpus_per_task=2, exclude=OTHERS)
    experiment.until_gone()
    assert [cell.state() for cell in cells] == ["done"] * 3
    happened = [line.split()[-1] for line in experiment.logs().splitlines() if ".adamw." in line]
    assert happened == ["starts", "starts", "done", "starts", "done", "done"]


def test_before_the_limit_a_task_saves_its_cells_and_queues_again(experiment: Experiment) -> None:
    """What follows waits until the task has really ended."""
    (first, second) = cells = experiment.cells(count=2, samples=LONG)
    ids = experiment.submit(cells, cells_per_task=2, then="score", exclude=OTHERS)
    task = f"{ids[0]}_0"
    experiment.until_training(first)
    slurm("scancel", "--signal=USR2", task)
    experiment.until(lambda: first.folder.status()["status"] == "preempted")
    rows = len(first.folder.evals())
    experiment.until(lambda: experiment.states()[task] == "PENDING")
    assert first.folder.checkpoint_file.exists() and second.folder.status()["status"] == "pending"
    experiment.until(lambda: experiment.states().get(task) == "RUNNING")
    assert experiment.states()[f"{ids[1]}_0"] == "PENDING"
    assert not (experiment.path / "cells.csv").exists()
    experiment.until_gone()
    assert requeues(experiment, task) == 1 and first.folder.manifest()["resumes"] == 1
    assert len(first.folder.evals()) > rows
    assert [result(cell) for cell in cells] == [experiment.undisturbed(cell) for cell in cells]
    assert (experiment.path / "cells.csv").exists()


@pytest.mark.slow
def test_a_real_time_limit_is_survived(experiment: Experiment) -> None:
    """SLURM looks at limits every half minute: a cell of 80 s in tasks of a minute."""
    (cell,) = experiment.cells("max_seconds=80", samples=10**8)
    (array,) = experiment.submit([cell], time=1, exclude=OTHERS)
    experiment.until(lambda: cell.state() == "done", 400)
    experiment.until_gone()
    resumes = requeues(experiment, f"{array}_0")
    assert resumes >= 1 and cell.folder.manifest()["resumes"] == resumes
    drawn = [row["drawn"] for row in cell.folder.evals()]
    assert drawn == sorted(set(drawn)) and cell.folder.status()["summary"]["ended"] == "max_seconds"


def test_a_task_that_queues_again_too_often_times_out(experiment: Experiment) -> None:
    first, second = experiment.cells(count=2, samples=LONG)
    (array,) = experiment.submit([first, second], cells_per_task=2, max_requeues=0, exclude=OTHERS)
    experiment.until_training(first)
    slurm("scancel", "--signal=USR2", f"{array}_0")
    experiment.until_gone()
    status = first.folder.status()
    assert status["status"] == "timeout" and "max_requeues" in status["error"]
    assert second.folder.status()["status"] == "pending"


def test_requeued_from_outside_it_goes_on(experiment: Experiment) -> None:
    (cell,) = experiment.cells(samples=LONG)
    (array,) = experiment.submit([cell], exclude=OTHERS)
    experiment.until_training(cell)
    slurm("scontrol", "requeue", f"{array}_0")
    experiment.until(lambda: cell.folder.manifest().get("resumes") == 1)
    experiment.until_gone()
    assert requeues(experiment, f"{array}_0") == 0
    assert result(cell) == experiment.undisturbed(cell)


def kill_with_parent(pid: int) -> None:
    """SIGKILL for both, such that neither sees the other go."""
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    os.kill(parent, signal.SIGKILL)


@pytest.mark.parametrize("kill", [False, True])
def test_cancelled_cells_show_as_such(experiment: Experiment, kill: bool) -> None:
    """With accounting and without: what counts is the cells' own folders."""
    first, second = experiment.cells(count=2, samples=LONG)
    (array,) = experiment.submit([first, second], cells_per_task=2, exclude=OTHERS)
    assert experiment.launch is not None
    experiment.until_training(first)
    assert slurm_queue.alive([experiment.launch]) == {first.folder.path.name, second.folder.path.name}
    if kill:
        # Without control groups SLURM may not find the worker, which then saves its cell as it is orphaned.
        kill_with_parent(int((holder(first.folder.path) or {})["pid"]))
        slurm_queue.command(["scancel", "--signal=KILL", "--full", array])  # the job may be gone by then
    else:
        assert slurm_queue.cancel([array]) is None
    experiment.until_gone()
    experiment.until(lambda: folder_state(first.folder) != "running")
    assert folder_state(first.folder) == ("killed" if kill else "preempted")
    assert folder_state(second.folder) == "pending"
    assert slurm_queue.alive([experiment.launch]) == set()
    assert first.folder.checkpoint_file.exists() != kill  # no checkpoint was due yet
    experiment.cells(count=2, samples=LONG)  # as the same command again would
    experiment.submit([first, second], cells_per_task=2, cpus_per_task=2, exclude=OTHERS)
    experiment.until_gone()
    assert [result(cell) for cell in (first, second)] == [experiment.undisturbed(c) for c in (first, second)]


def node_is_back() -> bool:
    """Resume the node, unless it has come back by itself."""
    slurm_queue.command(["scontrol", "update", f"nodename={LOST}", "state=resume"])
    return slurm("sinfo", "-h", "-n", LOST, "-o", "%T").strip() in ("idle", "mixed", "allocated")


def test_a_lost_node_costs_nothing(experiment: Experiment) -> None:
    (cell,) = experiment.cells("checkpoint_every=1", samples=LONG)
    (array,) = experiment.submit([cell], nodelist=LOST)
    experiment.until_training(cell)
    try:
        slurm("scontrol", "update", f"nodename={LOST}", "state=down", "reason=test")
        experiment.until(lambda: experiment.states().get(f"{array}_0") == "PENDING")
    finally:
        experiment.until(node_is_back)
    experiment.until_gone(seconds=300)  # SLURM itself waits for two minutes before it starts the job again
    assert int(job(f"{array}_0")["Restarts"]) == 1
    assert result(cell) == experiment.undisturbed(cell)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_gpus_reach_the_workers(experiment: Experiment, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cells on two GPUs; nothing here can compute on them, so those on ``cuda`` fail in the end."""
    monkeypatch.setenv("PYTHONPATH", str(PROBE), prepend=os.pathsep)
    cells = experiment.cells("workload._target_=tests.slurm.cluster.Devices", f"device={device}", count=2)
    experiment.submit(
        cells, Needs(gpus=1), Needs(gpus=1), cells_per_task=2, cpus_per_task=2, gpus=2, exclude=OTHERS
    )
    experiment.until_gone()
    seen = {line for cell in cells for line in cell.folder.log_file.read_text().splitlines()}
    found = {line for line in seen if line.startswith("devices:")}
    assert found == ({"devices: 0", "devices: 1"} if device == "cuda" else {"devices: 0,1"})


def test_what_sbatch_refuses_is_one_line(experiment: Experiment) -> None:
    from runner.base.errors import UserError

    cells = experiment.cells()
    with pytest.raises(UserError, match=r"sbatch refused the job: .*partition"):
        experiment.submit(cells, partition="nowhere")

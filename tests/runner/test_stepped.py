"""Schedules from elsewhere: equal to the library's own loop, resumed, refused where they cannot work."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from runner.base.errors import UserError
from runner.cells.cell import Cell
from runner.parts.composed import Composed
from runner.parts.stepped import optimizer_argument
from runner.train.session import run_cell
from tests.small_cells import evaluations, interrupted
from tests.tasks import BATCH, ROWS, classification, train

STEPS = 200
TORCH = "torch.optim.lr_scheduler"
SGD = {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9}
HALF: dict[str, Any] = {"_target_": "math.pow", "_partial_": True, "_args_": [0.99]}
LINEAR = {"_target_": f"{TORCH}.LinearLR", "total_iters": 20}
COSINE = {"_target_": f"{TORCH}.CosineAnnealingLR", "T_max": "${setup:0.9 * steps}"}
# Class -> arguments in a YAML, arguments in the library's own loop.
SCHEDULES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "LambdaLR": ({"lr_lambda": HALF}, {"lr_lambda": lambda step: 0.99**step}),
    "MultiplicativeLR": ({"lr_lambda": HALF}, {"lr_lambda": lambda step: 0.99**step}),
    "StepLR": ({"step_size": "${setup:0.1 * steps}", "gamma": 0.5}, {"step_size": 20, "gamma": 0.5}),
    "MultiStepLR": ({"milestones": [30, 80]}, {"milestones": [30, 80]}),
    "ConstantLR": ({"total_iters": 30}, {"total_iters": 30}),
    "LinearLR": ({"total_iters": 30}, {"total_iters": 30}),
    "ExponentialLR": ({"gamma": 0.99}, {"gamma": 0.99}),
    "PolynomialLR": ({"total_iters": "${setup:steps}", "power": 2.0}, {"total_iters": STEPS, "power": 2.0}),
    "CosineAnnealingLR": ({"T_max": "${setup:steps}"}, {"T_max": STEPS}),
    "CosineAnnealingWarmRestarts": ({"T_0": 10, "T_mult": 2}, {"T_0": 10, "T_mult": 2}),
    "CyclicLR": (
        {"base_lr": 0.01, "max_lr": 0.2, "step_size_up": 15},
        {"base_lr": 0.01, "max_lr": 0.2, "step_size_up": 15},
    ),
    "OneCycleLR": (
        {"max_lr": 0.3, "epochs": "${setup:epochs}", "steps_per_epoch": "${setup:steps_per_epoch}"},
        {"max_lr": 0.3, "epochs": 67, "steps_per_epoch": 3},
    ),
}


def schedule(name: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": f"{TORCH}.{name}", **arguments}


def follow(spec: Any, steps: int = STEPS, **parts: Any) -> list[tuple[float, float]]:
    """Learning rate and momentum that each step of a composed algorithm uses."""
    task = classification()
    task.info = dataclasses.replace(task.info, budget_samples=STEPS * BATCH)
    algorithm = Composed(SGD, schedule=spec, **parts)
    algorithm.setup(task)
    used = []
    for _ in range(steps):
        group = algorithm.optimizer.param_groups[0]
        used.append((group["lr"], group["momentum"]))
        train(algorithm, task, 1)
    return used


def loop(make: Any, every: int = 1, steps: int = STEPS) -> list[tuple[float, float]]:
    """The same in a loop of the library's own."""
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    scheduler, used = make(optimizer), []
    for step in range(1, steps + 1):
        group = optimizer.param_groups[0]
        used.append((group["lr"], group["momentum"]))
        parameter.grad = torch.zeros(1)
        optimizer.step()
        if step % every == 0:
            scheduler.step()
    return used


@pytest.mark.parametrize("name", SCHEDULES)
def test_it_does_what_it_does_in_a_loop_of_its_own(name: str) -> None:
    written, plain = SCHEDULES[name]
    mine = follow(schedule(name, **written))
    assert mine == loop(lambda optimizer: getattr(torch.optim.lr_scheduler, name)(optimizer, **plain))
    assert len(set(mine)) > 1


def test_schedules_in_schedules() -> None:
    def inner(optimizer: Any) -> list[Any]:
        linear = torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=20)
        return [linear, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=180)]

    chained = follow(schedule("ChainedScheduler", schedulers=[LINEAR, COSINE]))
    assert chained == loop(lambda o: torch.optim.lr_scheduler.ChainedScheduler(inner(o)))
    one_by_one = follow(schedule("SequentialLR", schedulers=[LINEAR, COSINE], milestones=[20]))
    assert one_by_one == loop(lambda o: torch.optim.lr_scheduler.SequentialLR(o, inner(o), milestones=[20]))
    assert chained != one_by_one


def test_every_epoch_it_steps_as_often_as_the_rows_have_been_drawn() -> None:
    mine = follow(schedule("ExponentialLR", gamma=0.9, every="epoch"))
    assert mine == loop(lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9), every=ROWS // BATCH)


def test_a_plateau_follows_the_training_loss() -> None:
    task = classification()
    spec = schedule("ReduceLROnPlateau", every="epoch", patience=0, threshold=10.0, threshold_mode="abs")
    algorithm = Composed(SGD, schedule=spec)
    algorithm.setup(task)
    assert not algorithm.uses_metrics and algorithm.syncs_every == ROWS // BATCH
    losses = train(algorithm, task, 6)
    assert algorithm.single["schedule"].schedule.best == pytest.approx(losses[:3].mean().item())
    assert algorithm.optimizer.param_groups[0]["lr"] == pytest.approx(0.01)  # 10 better in an epoch: never


def test_functions_that_give_one_and_those_with_two_clocks() -> None:
    spec = {"_target_": "tests.doubles.foreign.warmed_up", "num_warmup_steps": "${setup:0.05 * steps}",
            "num_training_steps": "${setup:steps}"}  # fmt: skip
    rates = [lr for lr, _ in follow(spec)]
    assert rates[0] == 0 and rates[10] == pytest.approx(0.1) and rates[-1] == pytest.approx(0.1 / 190)
    clocks = {"_target_": "tests.doubles.foreign.TwoClocks"}
    epochs = [lr for lr, _ in follow(clocks, 7)]
    assert epochs == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.1 / 3])
    steps = [lr for lr, _ in follow({**clocks, "t_in_epochs": False}, 3)]
    assert steps == pytest.approx([0.1, 0.05, 0.1 / 3])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"_target_": "tests.doubles.foreign.NoState"}, "takes an optimizer, but gives a NoState"),
        ({"_target_": "tests.doubles.foreign.Curious"}, "step() needs temperature"),
        (
            {"_target_": "tests.doubles.foreign.TwoClocks", "every": "epoch"},
            "algorithm.schedule.every: this schedule knows both kinds of step",
        ),
        (schedule("StepLR", step_size=3, every="week"), "must be one of step, epoch, got week"),
        (schedule("StepLR"), "missing 1 required positional argument: 'step_size'"),
    ],
)
def test_what_cannot_work_is_refused_at_set_up(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        follow(spec, 1)
    assert message in str(refused.value)


def test_what_reads_the_factor_refuses_them() -> None:
    from algorithms.whole.refined_schedule import RefinedSchedule

    assert optimizer_argument({"_target_": "algorithms.schedules.cosine.Cosine"}) is None
    with pytest.raises(ValueError, match="reads a schedule's factor"):
        RefinedSchedule(SGD, schedule=COSINE)


ONE_CYCLE = f"""\
# OneCycle: momentum cycles, too
_target_: {TORCH}.OneCycleLR
max_lr: 0.3
total_steps: ${{setup:steps}}
"""
SEQUENCE = f"""\
# A warm-up, then restarts
_target_: {TORCH}.SequentialLR
schedulers:
  - _target_: {TORCH}.LinearLR
    total_iters: 10
  - _target_: {TORCH}.CosineAnnealingWarmRestarts
    T_0: 17
milestones: [10]
"""
PLATEAU = f"# Plateau\n_target_: {TORCH}.ReduceLROnPlateau\npatience: 1\nfactor: 0.5\n"


@pytest.mark.parametrize("text", [ONE_CYCLE, SEQUENCE, PLATEAU], ids=["one_cycle", "sequence", "plateau"])
def test_a_cell_resumes_bit_for_bit(tmp_path: Path, text: str) -> None:
    whole, cut = (cell(tmp_path, text, f"name={name}") for name in ("whole", "cut"))
    assert run_cell(whole.folder.path)["status"] == "done"
    assert interrupted(cut.folder.path)["status"] == "preempted"
    assert run_cell(cut.folder.path)["status"] == "done"
    assert cut.folder.manifest()["resumes"] == 1
    assert evaluations(cut.folder.path) == evaluations(whole.folder.path)
    assert len({row["report/lr"] for row in whole.folder.evals()}) > 2


def cell(tmp_path: Path, text: str, *overrides: str) -> Cell:
    """A small cell on breast_cancer under the schedule of that YAML."""
    folder = tmp_path / "conf/algorithm/schedule"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.yaml").write_text(text)
    plain = ["algorithm=nesterov", "algorithm/schedule=mine", "workload=breast_cancer", "log=none",
             "workload.budget_samples=3200", "workload.eval_every=640", "workload.target=null"]  # fmt: skip
    made = Cell.from_overrides([f"results_dir={tmp_path}", *plain, *overrides], [tmp_path / "conf"])
    assert made.submit()
    return made

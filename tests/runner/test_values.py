"""What may be typed, searched and bounded: held against types, ranges and each other when composed."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.base.errors import UserError
from runner.cells.cell import Cell
from runner.compose.config import compose
from runner.train.session import run_cell


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            "lr={min:-1,max:1,scale:linear}",
            r"lr: may draw -1; algorithm.optimizer.lr takes a number of at le",
        ),
        ("lr.max=null", r"lr: expected min and max, or choices; 'max' is missing"),
        ("lr.maxx=1", r"unknown key 'algorithm.optimizer.search_space.lr.maxx': did you mean .*lr.max"),
        ("betas.choices=[[0.9,1.0]]", r"betas: may draw \[0.9, 1.0\]; .*betas takes numbers in \[0, 1\)"),
        ("betas.choices=[0.9]", r"betas: may draw 0.9; .*betas takes a list"),
        ("betas.choices=[null]", r"betas: may draw null; .*betas takes a list"),
        ("eps.choices=[x]", r"eps: may draw 'x'; .*eps takes a number"),
        ("momentum.min=0.5", r"momentum: got choices beside min"),
        (
            "ns_steps={min:1,max:9}",
            r"ns_steps: may draw 3.5.*; algorithm.optimizer.ns_steps takes an integer",
        ),
        ("adamw_lr.max=2e9", r"adamw_lr: may draw 2000000000.0; .*adamw_lr takes a number from 0 to 1"),
        ("wieght_decay={min:0,max:1}", r"wieght_decay: no such hyperparameter: did you mean weight_decay"),
    ],
)
def test_a_search_space_draws_what_may_be_typed(space: str, message: str) -> None:
    new = "unknown" not in message
    override = f"{'++' if new else ''}algorithm.optimizer.search_space.{space}"
    with pytest.raises(UserError, match=message):
        compose(["algorithm=muon" if "betas" not in space else "algorithm=adamw", override])


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        (
            "{dampening: 0.5}",
            r"optimizer.bounds.dampening: got 0.5, expected the smallest and the largest value",
        ),
        ("{dampening: [1, 0]}", r"bounds.dampening: got \[1, 0\], expected the smallest"),
        ("{dampening: [0, null]}", r"bounds.dampening: got \[0, None\], expected the smallest"),
        ("{damping: [0, 1]}", r"bounds.damping: no such hyperparameter: did you mean dampening"),
    ],
)
def test_bounds_that_are_none_are_refused(bounds: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "algorithm" / "optimizer").mkdir(parents=True)
    yaml = f"# x\n_target_: torch.optim.SGD\nlr: 0.1\ndampening: 0.0\nbounds: {bounds}\n"
    (tmp_path / "algorithm" / "optimizer" / "damped.yaml").write_text(yaml)
    with pytest.raises(UserError, match=message):
        compose(["algorithm=damped"], [tmp_path])


def test_a_setting_that_the_yaml_leaves_to_the_class_may_be_searched(tmp_path: Path) -> None:
    (tmp_path / "algorithm" / "optimizer").mkdir(parents=True)
    yaml = "# x\n_target_: torch.optim.RAdam\nlr: 0.1\nsearch_space: {eps: {choices: [1e-7]}}\n"
    (tmp_path / "algorithm" / "optimizer" / "of_one.yaml").write_text(yaml)
    point = compose(["algorithm=of_one", "trial=1"], [tmp_path])["algorithm"]["optimizer"]
    assert point == {"_target_": "torch.optim.RAdam", "lr": 0.1, "eps": 1e-7}


@pytest.mark.parametrize(
    ("file", "override", "message"),
    [
        (
            "algorithm/optimizer/of_one.yaml",
            "algorithm=of_one",
            r"optimizer=of_one: names no class; write _tar",
        ),
        ("algorithm/whole_of_one.yaml", "algorithm=whole_of_one", r"algorithm=whole_of_one: names no class"),
        (
            "algorithm/transform/of_one.yaml",
            "algorithm=of_one",
            r"algorithm/transform=of_one: names no class",
        ),
        ("workload/of_one.yaml", "workload=of_one", r"workload=of_one: names no class"),
    ],
)
def test_a_file_without_a_class_is_told_apart(file: str, override: str, message: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text("# x\nname: x\nlr: 0.1\n")
    with pytest.raises(UserError, match=message):
        compose([override], [tmp_path])


CANNOT = """\
import torch


class NoRate(torch.optim.Optimizer):
    def __init__(self, params, alpha=100.0):
        super().__init__(params, {"alpha": alpha})

    def step(self, closure=None):
        pass


class Curious(torch.optim.SGD):
    def step(self, temperature):
        pass
"""


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            "cannot_of_one.NoRate",
            "algorithm.optimizer (NoRate): has no lr in its groups, which the schedule would "
            "scale: take that out with algorithm/schedule=null",
        ),
        (
            "cannot_of_one.Curious",
            "algorithm.optimizer (Curious): step() needs temperature, steps here are called",
        ),
    ],
)
def test_an_optimizer_that_cannot_work_here_fails_in_a_line(
    target: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "algorithm" / "optimizer").mkdir(parents=True)
    (tmp_path / "cannot_of_one.py").write_text(CANNOT)
    (tmp_path / "algorithm" / "optimizer" / "cannot.yaml").write_text(f"# x\n_target_: {target}\n")
    monkeypatch.syspath_prepend(tmp_path)
    plain = ["algorithm=cannot", "algorithm/groups=null", "workload=breast_cancer", "log=none"]
    cell = Cell.from_overrides([*plain, f"results_dir={tmp_path}"], [tmp_path])
    cell.submit()
    status = run_cell(cell.folder.path)
    assert status["status"] == "failed" and message in status["error"], status

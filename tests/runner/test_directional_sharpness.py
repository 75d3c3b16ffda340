"""Directional sharpness: its numbers, the step that it looks ahead to, and that it leaves no trace."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from algorithms.transforms.coord_clip import CoordClip
from runner.check.same import difference
from runner.compose.config import compose
from runner.contract.algorithm import Algorithm
from runner.contract.diagnostic import Diagnostic, Diagnostics, Probe, Step
from runner.contract.instantiate import build_part
from runner.contract.task import Task
from runner.diagnostics.directional_sharpness import DirectionalSharpness, clipped, quadratic_model, unit
from runner.diagnostics.norms import Norms
from runner.train import checkpoint
from runner.train.clock import Clock
from runner.train.loop import Loop, Plan
from tests.problems import Problem, mlp, quad, quadratic
from tests.runner.test_diagnostics import trained, without
from tests.tasks import BATCH, CLASSES, images

DIAGONAL = quadratic("diagonal", [[100.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]], [0.0, 0.0, 0.0], [0.1, 1.0, 1.0])


def probe_of(problem: Problem, update: list[float]) -> Probe:
    """A probe at the start of ``problem``, one parameter, whose next step is ``update``."""
    params = problem.params()
    problem.gradient(params)
    assert params[0].grad is not None
    step = Step([params[0].grad.clone()], [torch.tensor(update, dtype=torch.float64)])
    return cast(
        Probe,
        SimpleNamespace(
            params=params,
            loss=lambda _batch: problem.loss(list(params)),
            batches=lambda count: [None] * count,
            next_step=lambda: step,
            task=SimpleNamespace(model=nn.Identity()),
        ),
    )


def measured(problem: Problem, update: list[float], **options: Any) -> dict[str, float]:
    found = DirectionalSharpness(**options).measure(probe_of(problem, update))
    return {key: float(value) for key, value in found.items()}


@pytest.mark.parametrize(
    ("update", "expected"),
    [([3.0, 4.0], "3.32"), ([1.0, 1.0], "3.5"), ([4.0, -1.0], "2.4705882"), ([1.0, -1.0], "1.5")],
)
@pytest.mark.parametrize("scale", [1.0, -1e-6])
def test_spec_quad(update: list[float], expected: str, scale: float):
    """Whatever the sign and the length of the direction."""
    found = measured(quad(), [scale * u for u in update])["directional_sharpness"]
    assert f"{found:.{len(expected) - 2}f}" == expected


def test_spec_three_directions_of_one_gradient():
    """H = diag(100, 1, 1) and g = (10, 1, 1): the gradient, its sign, and clipped at 1."""
    found = measured(DIAGONAL, [1.0, 0.0, 0.0], fraction=1 / 3)
    assert f"{found['directional_sharpness_gradient']:.6f}" == "98.058824"
    assert found["directional_sharpness_sign"] == pytest.approx(34, abs=1e-12)
    assert found["directional_sharpness_clipped"] == pytest.approx(34, abs=1e-12)
    assert found["directional_sharpness"] == 100


def test_what_the_step_gains():
    """QUAD, u = −g/10, g = (3, 4): best at 25/83 of −g, by 25²/(2·83)."""
    found = measured(quad(), [-0.3, -0.4])
    assert found["update_cosine"] == pytest.approx(1)
    assert found["update_scale"] == pytest.approx(250 / 83)
    assert found["update_gain"] == pytest.approx(625 / 166)
    x = quad().start[0] + found["update_scale"] * torch.tensor([-0.3, -0.4], dtype=torch.float64)
    assert float(quad().loss([quad().start[0]]) - quad().loss([x])) == pytest.approx(found["update_gain"])
    assert measured(quad(), [4.0, -3.0])["update_cosine"] == pytest.approx(0, abs=1e-12)


def test_what_does_not_exist_is_nan():
    saddle = quadratic("saddle", [[1.0, 0.0], [0.0, -2.0]], [0.0, 0.0], [1.0, 1.0])
    down = measured(saddle, [0.0, 1.0])
    assert down["directional_sharpness"] == -2 and math.isnan(down["update_scale"] + down["update_gain"])
    assert down["update_cosine"] == pytest.approx(2 / math.sqrt(5))
    still = measured(quad(), [0.0, 0.0])
    assert math.isnan(still["directional_sharpness"]) and still["directional_sharpness_gradient"] > 0
    linear = Problem("linear", (torch.ones(2),), lambda p: p[0].sum())
    found = measured(linear, [1.0, 2.0])
    assert found["directional_sharpness"] == 0 and math.isnan(found["update_scale"])


def test_against_the_whole_hessian():
    problem = mlp()
    start = torch.cat([value.flatten() for value in problem.start])
    sizes = [value.numel() for value in problem.start]

    def loss(x: Tensor) -> Tensor:
        pieces = x.split(sizes)
        return problem.loss([piece.view_as(v) for piece, v in zip(pieces, problem.start, strict=True)])

    hessian = torch.autograd.functional.hessian(loss, start)
    assert isinstance(hessian, Tensor)
    u = torch.randn(len(start), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    direction = [piece.view_as(v) for piece, v in zip(u.split(sizes), problem.start, strict=True)]
    params = problem.params()
    probe = cast(Probe, SimpleNamespace(params=params, loss=lambda _batch: problem.loss(list(params))))
    _, forms = quadratic_model(probe, cast(Any, [None, None]), [unit(direction), direction])
    expected = u @ hessian @ u
    torch.testing.assert_close(forms, torch.stack([expected / (u @ u), expected]))


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.99])
def test_clipping_is_that_of_the_transform(fraction: float):
    generator = torch.Generator().manual_seed(1)
    grads = [torch.randn(shape, generator=generator) for shape in ((7, 3), (5,))]
    expected = copy.deepcopy(grads)
    CoordClip(fraction)([], expected)
    for ours, theirs in zip(clipped(grads, fraction), expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("options", [{"batches": 0}, {"batches": 1.5}, {"fraction": 1.0}, {"fraction": -0.1}])
def test_refuses(options: dict[str, Any]):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must"):
        DirectionalSharpness(**options)


# -- looking ahead -----------------------------------------------------------------------------------


def net() -> nn.Module:
    """Batch norm and dropout, in float64."""
    layers = (nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5))
    return nn.Sequential(*layers, nn.Linear(4 * 36, CLASSES)).double()


def flip(x: Tensor, generator: torch.Generator) -> Tensor:
    return x * torch.randint(2, (len(x), 1, 1, 1), generator=generator)


def built(*overrides: str) -> Callable[[], tuple[Task, Algorithm]]:
    """A cell on random images, augmented, afresh at each call."""
    config = compose(["workload=breast_cancer", *overrides])["algorithm"]

    def build() -> tuple[Task, Algorithm]:
        task = images(net, augment=flip, generator=torch.Generator().manual_seed(5))
        algorithm: Algorithm = build_part("algorithm", config, prefix="")
        task.model.train()
        algorithm.setup(task)
        return task, algorithm

    return build


def advance(task: Task, algorithm: Algorithm, steps: int) -> None:
    for _ in range(steps):
        algorithm.step(task)
        task.cost.steps += 1


NO_DECAY = "algorithm.optimizer.weight_decay=0"
METHODS = (
    ("algorithm=adamw", NO_DECAY), ("algorithm=sgd", NO_DECAY), ("algorithm=muon", NO_DECAY),
    ("algorithm=schedule_free_adamw", NO_DECAY),
    ("algorithm=adamw", NO_DECAY, "algorithm/estimator=sam", "algorithm/transform=[coord_clip,perpgrad]"),
    ("algorithm=mezo", NO_DECAY), ("algorithm=adamw", NO_DECAY, "algorithm/wrapper=mechanic"),
    ("algorithm=adamw", NO_DECAY, "algorithm/average=ema"),
    ("algorithm=adamw", NO_DECAY, "algorithm/objective=saf"),
    ("algorithm=refined_schedule", NO_DECAY), ("algorithm=useful_upsample", NO_DECAY),
)  # fmt: skip


@pytest.mark.parametrize("overrides", METHODS, ids=lambda o: "-".join(o[::2]))
def test_the_next_step_is_the_one_that_training_makes(overrides: tuple[str, ...]):
    """Bit for bit, generators of dropout and augmentation included."""
    build = built(*overrides)
    torch.manual_seed(3)
    task, algorithm = build()
    for steps in (0, 5):
        advance(task, algorithm, steps)
        probe = Probe(task, algorithm, build)
        rng, before = torch.get_rng_state(), [p.detach().clone() for p in task.params]
        kept = copy.deepcopy((task.state_dict(), algorithm.state_dict(), task.cost.state_dict()))
        step = probe.next_step()
        same = (task.state_dict(), algorithm.state_dict(), task.cost.state_dict())
        torch.testing.assert_close(same, kept, rtol=0, atol=0)
        torch.set_rng_state(rng)
        advance(task, algorithm, 1)
        for update, p, old in zip(step.update, task.params, before, strict=True):
            assert torch.equal(update, p.detach() - old)
    assert any(update.any() for update in step.update)


def test_the_gradient_is_that_of_the_next_batch():
    build = built("algorithm=sgd", NO_DECAY, "algorithm.optimizer.momentum=0", "algorithm/schedule=null")
    torch.manual_seed(3)
    task, algorithm = build()
    advance(task, algorithm, 3)
    step = Probe(task, algorithm, build).next_step()
    lr = algorithm.report()["lr"]
    for update, gradient in zip(step.update, step.gradient, strict=True):
        torch.testing.assert_close(update, -lr * gradient)


@pytest.mark.parametrize("name", ["adamw", "sgd", "lion"])
def test_decay_is_no_part_of_the_update(name: str):
    updates = []
    for decay in (0.0, 0.3):
        build = built(f"algorithm={name}", f"algorithm.optimizer.weight_decay={decay}")
        torch.manual_seed(3)
        updates.append(Probe(*build(), build).next_step().update)
    for first, second in zip(*updates, strict=True):
        assert torch.equal(first, second)
    assert any(update.any() for update in updates[0])


def test_at_the_end_of_the_budget_the_last_step_once_more():
    build = built("algorithm=adamw", "algorithm/schedule=cosine")
    torch.manual_seed(3)
    task, algorithm = build()
    task.cost.drawn = task.info.budget_samples
    assert all(update.any() for update in Probe(task, algorithm, build).next_step().update)


def test_a_probe_without_an_algorithm_says_so():
    with pytest.raises(TypeError, match="next step"):
        Probe(images(net)).next_step()


def test_batches_are_the_same_ones_however_many_are_asked_for():
    first, second = Probe(images(net)), Probe(images(net))
    assert len(first.batches(1)) == 1 and first.batches(3)[0] is first.batch
    for ours, theirs in zip(first.batches(3), second.batches(4), strict=False):
        assert torch.equal(ours.x, theirs.x)


# -- without a trace ---------------------------------------------------------------------------------


class Watch:
    """Keeps the evaluations."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def row(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def heartbeat(self, steps: int, drawn: int) -> None: ...

    def checkpoint(self) -> None: ...


def run(build: Callable[[], tuple[Task, Algorithm]], parts: dict[str, Diagnostic]) -> tuple[Any, ...]:
    """Train with ``parts``: state at the end (generators too), gradients, evaluations."""
    torch.manual_seed(3)
    task, algorithm = build()
    watch = Watch()
    plan = Plan(eval_every=25 * BATCH, stop_at_target=False)

    def evaluate(model: nn.Module, split: str, predict: Any) -> dict[str, float]:
        return {"loss": float(task.mean_loss(task.data.clone("test").next()))}

    diagnostics = Diagnostics(parts, algorithm, build)
    loop = Loop(task, algorithm, evaluate, plan, Clock(), watch, diagnostics=diagnostics)
    assert loop.run() == "budget"
    state = {k: v for k, v in checkpoint.snapshot(loop).items() if k not in ("clock", "diagnostics")}
    return state, [p.grad for p in task.params], watch.rows


@pytest.mark.parametrize("overrides", [METHODS[0], METHODS[4]], ids=lambda o: "-".join(o[::2]))
def test_weights_statistics_gradients_and_generators_are_as_without(overrides: tuple[str, ...]):
    """Batch norm, dropout and augmentation; bit for bit."""
    build = built(*overrides)
    *plain, _ = run(build, {})
    sharpness = DirectionalSharpness(batches=2)
    *found, rows = run(build, {"norms": Norms(), "sharpness": sharpness})
    assert difference(found, plain) is None
    names = {f"diag/directional_sharpness{kind}" for kind in ("", "_gradient", "_sign", "_clipped")}
    assert all(names <= row.keys() for row in rows)
    assert {"diag/update_cosine", "diag/update_scale", "diag/update_gain"} <= rows[0].keys()
    *_, alone = run(build, {"sharpness": sharpness})  # it does not hang on what else is measured
    assert [[row[name] for name in names] for row in alone] == [[row[name] for name in names] for row in rows]


def test_a_cell_is_the_same_with_it_and_without(tmp_path: Path):
    settings = ("breast_cancer", "workload.budget_samples=240")
    plain = trained(tmp_path / "a", *settings, "diagnostics=null")
    asked = trained(tmp_path / "b", *settings, "diagnostics=[norms,directional_sharpness]")
    assert without(asked) == plain
    assert all("diag/directional_sharpness" in row and "diag/weight_norm" in row for row in asked)

"""Small tasks to train on, and a guard against waiting for the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from runner.contract.batch import Info
from runner.contract.stream import Stream
from runner.contract.task import Task
from runner.parts.composed import Composed
from tests.problems import Problem, through_disk

ROWS, FEATURES, CLASSES, BATCH, BUDGET = 24, 5, 3, 8, 800


def make_task(
    build: Callable[[], nn.Module],
    x: Tensor,
    y: Tensor,
    kind: str = "multiclass",
    batch_size: int = BATCH,
    seed: int = 0,
    **stream: Any,
) -> Task:
    """A task on the rows ``x`` and ``y``; its model comes from ``build`` under a fixed global seed."""
    torch.manual_seed(seed)
    info = make_info(kind, num_train=len(x), input_shape=tuple(x.shape[1:]), batch_size=batch_size)
    return Task(build, Stream(x, y, batch_size, seed, **stream), info, seed=seed)


def make_info(task: str = "multiclass", **facts: Any) -> Info:
    """Facts of a small workload, with changes."""
    defaults: dict[str, Any] = {
        "task": task, "model": "mlp", "metric": "loss", "target": None, "minimize": True, "num_train": ROWS,
        "num_classes": CLASSES, "input_shape": (FEATURES,), "input_range": (0.0, 1.0), "batch_size": BATCH,
        "budget_samples": BUDGET,
    }  # fmt: skip
    return Info(**(defaults | facts))


def classification(
    build: Callable[[], nn.Module] | None = None, dtype: torch.dtype = torch.float64, **more: Any
) -> Task:
    """24 random rows of 5 features in 3 classes; a 5-4-3 tanh network."""
    x = normal(0, ROWS, FEATURES).to(dtype)
    return make_task(build or (lambda: mlp().to(dtype)), x, torch.arange(ROWS) % CLASSES, **more)


def binary(dtype: torch.dtype = torch.float64, **more: Any) -> Task:
    """24 random rows of 5 features, a third of them positive; logistic regression with one logit."""
    x, y = normal(1, ROWS, FEATURES).to(dtype), (torch.arange(ROWS) % 3 == 0).to(dtype)
    return make_task(lambda: OneLogit().to(dtype), x, y, "binary", **more)


def images(build: Callable[[], nn.Module], dtype: torch.dtype = torch.float64, **more: Any) -> Task:
    """24 random images of 2 × 6 × 6 in 3 classes."""
    return make_task(build, normal(2, ROWS, 2, 6, 6).to(dtype), torch.arange(ROWS) % CLASSES, **more)


def language(build: Callable[[], nn.Module], rows: int = 12, tokens: int = 4, **more: Any) -> Task:
    """Rows of 4 tokens out of 3; targets are the tokens, one on."""
    ids = torch.arange(rows * tokens).view(rows, tokens) * 7 % CLASSES
    return make_task(build, ids, (ids + 1) % CLASSES, "lm", **more)


def mlp() -> nn.Module:
    """5-4-3, tanh."""
    return nn.Sequential(nn.Linear(FEATURES, 4), nn.Tanh(), nn.Linear(4, CLASSES))


def conv_net() -> nn.Module:
    """A convolution, batch norm, an in-place ReLU and a linear layer, in float64."""
    layers = (nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(4 * 36, CLASSES)).double()


class OneLogit(nn.Module):
    """Logistic regression: one logit a row, (B,)."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).squeeze(1)


def normal(seed: int, *shape: int) -> Tensor:
    """Standard normal numbers in float64, from their own generator."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def train(algorithm: Composed, task: Task, steps: int) -> Tensor:
    """Train without a harness, after ``setup``; the losses, (steps,)."""
    losses = []
    for _ in range(steps):
        losses.append(algorithm.step(task))
        task.cost.steps += 1
    return torch.stack(losses)


def weights(task: Task) -> list[Tensor]:
    """Copies of the parameters."""
    return [p.detach().clone() for p in task.params]


def meters(task: Task) -> tuple[int, int, int, int]:
    """Rows forward, backward, through Hessian-vector products, and drawn, so far."""
    return task.cost.forward, task.cost.backward, task.cost.hvp, task.cost.drawn


class NoSync(TorchDispatchMode):
    """Fails at an operation that would wait for the device: ``.item()``, ``nonzero``, masks as indices.

    On the CPU it cannot see ``.tolist()``, ``.numpy()`` and ``.cpu()``.
    """

    WAITS = (
        "_local_scalar_dense",
        "nonzero",
        "masked_select",
        "equal",
        "is_nonzero",
        "_unique2",
        "unique_dim",
    )
    INDEXES = ("index", "index_put", "index_put_", "_index_put_impl_")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masks = name in self.INDEXES and any(i is not None and i.dtype == torch.bool for i in args[1])
        assert name not in self.WAITS and not masks, f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


@contextmanager
def generators_untouched() -> Iterator[None]:
    """Fails when torch's global generator moves inside."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before), "the global generator was used"


def from_problem(problem: Problem) -> tuple[Task, Callable[[], Any]]:
    """A task whose parameters are the problem's, and the objective (a factory) that is its loss."""
    task = make_task(lambda: Holder(problem), normal(3, ROWS, 1), torch.zeros(ROWS, dtype=torch.int64))

    def objective(task: Task, batch: Any) -> Tensor:
        return problem.loss(list(task.params))

    objective.batch_level = True
    return task, lambda: objective


class Holder(nn.Module):
    """Parameters and nothing else."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.values = nn.ParameterList(problem.params())


def follow(algorithm: Composed, task: Task, steps: int) -> Tensor:
    """Set up, train, and return the iterates, (steps, N): row t holds all parameters after step t + 1."""
    algorithm.setup(task)
    rows = []
    for _ in range(steps):
        train(algorithm, task, 1)
        rows.append(torch.cat([p.detach().flatten() for p in task.params]))
    return torch.stack(rows)


def assert_no_sync(algorithm: Composed, task: Task, steps: int = 3) -> None:
    """Steps wait for nothing and leave torch's global generator alone."""
    algorithm.setup(task)
    train(algorithm, task, 1)  # lazy state
    with generators_untouched(), NoSync():
        train(algorithm, task, steps)


def assert_resumes(
    make: Callable[[], Composed], build: Callable[[], Task], before: int = 5, after: int = 7
) -> None:
    """A checkpoint, read with ``weights_only=True`` into freshly built parts, goes on bit for bit."""
    task, algorithm = build(), make()
    algorithm.setup(task)
    train(algorithm, task, before)
    state = {"task": task.state_dict(), "algorithm": algorithm.state_dict(), "cost": task.cost.state_dict()}
    state = through_disk(state)
    train(algorithm, task, after)

    resumed, fresh = build(), make()
    fresh.setup(resumed)
    resumed.load_state_dict(state["task"])
    fresh.load_state_dict(state["algorithm"])
    resumed.cost.load_state_dict(state["cost"])
    train(fresh, resumed, after)
    for part, at in ((algorithm, task), (fresh, resumed)):
        part.enter_eval(at)
    for key, value in task.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[key], value), f"{key} differs after resuming"
    assert resumed.cost == task.cost


def evaluated(algorithm: Composed, task: Task) -> Tensor:
    """The weights that an evaluation sees, end to end; a copy."""
    algorithm.enter_eval(task)
    values = torch.cat([p.detach().flatten() for p in task.params]).clone()
    algorithm.exit_eval(task)
    return values

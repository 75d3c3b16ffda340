"""Training by plain loops: three problems, and the loop that follows an objective on them."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from runner.contract.batch import Batch
from runner.contract.task import Task
from runner.parts.composed import Composed
from tests.algorithms.losses.literal import entries_of as entries_of
from tests.tasks import CLASSES, FEATURES, binary, classification, follow, language

LR, STEPS = 0.1, 50
SGD = functools.partial(torch.optim.SGD, lr=LR)
Total = Callable[[nn.Module, Batch], Tensor]  # model, batch -> the loss, 0-d

# The check tensors.
Z = torch.tensor([[2, -1, 0.5, 0], [0.1, 0.2, -0.3, 1.5], [-2, 0, 1, 3]], dtype=torch.float64)
ZT = torch.tensor([[1, -0.5, 0.5, 0], [0, 0.5, -0.3, 1], [-1, 0.5, 1, 2]], dtype=torch.float64)
Y = torch.tensor([0, 3, 1])


def linear(**more: Any) -> Task:
    """A 5-3 linear network."""
    return classification(lambda: nn.Linear(FEATURES, CLASSES).double(), **more)


def tokens(**more: Any) -> Task:
    """A table of next tokens' logits."""
    return language(lambda: nn.Embedding(CLASSES, CLASSES).double(), batch_size=3, **more)


PROBLEMS: dict[str, Callable[[], Task]] = {
    "linear": linear, "mlp": classification, "one_logit": binary, "tokens": tokens
}  # fmt: skip


def assert_follows(objective: Callable[[], Any], total: Total, problem: str, steps: int = STEPS) -> None:
    """SGD on the objective goes where SGD on the literal loss of each batch goes."""
    task, twin = PROBLEMS[problem](), PROBLEMS[problem]()
    expected = slow_iterates(twin, total, steps)
    got = follow(Composed(SGD, objective=objective), task, steps)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    assert (expected[0] - expected[-1]).abs().max() > 1e-3  # it went somewhere


def slow_iterates(task: Task, total: Total, steps: int = STEPS) -> Tensor:
    """Parameters after each step of gradient descent on ``total``."""
    model = copy.deepcopy(task.model)
    params, iterates = list(model.parameters()), []
    for _ in range(steps):
        slopes = torch.autograd.grad(total(model, task.data.next()), params)
        with torch.no_grad():
            for p, slope in zip(params, slopes, strict=True):
                p -= LR * slope
        iterates.append(torch.cat([p.detach().flatten() for p in params]))
    return torch.stack(iterates)


def slow_log_softmax(scores: list[Tensor], temperature: float = 1.0) -> list[Tensor]:
    """The definition."""
    norm = torch.log(sum((torch.exp(z / temperature) for z in scores), torch.zeros(()).double()))
    return [z / temperature - norm for z in scores]


def slow_divergence(target: list[Tensor], scores: list[Tensor], temperature: float = 1.0) -> Tensor:
    """KL(softmax(target / T) ‖ softmax(scores / T))."""
    given, own = slow_log_softmax(target, temperature), slow_log_softmax(scores, temperature)
    return sum((torch.exp(a) * (a - b) for a, b in zip(given, own, strict=True)), torch.zeros(()).double())

"""Training by plain loops: the problems that losses are followed on, and the loop that follows them."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from runner.contract.task import Task
from runner.parts.composed import Composed
from tests.tasks import CLASSES, FEATURES, binary, classification, follow, language

Literal = Callable[[Sequence[Tensor], int], Tensor]  # scores of the classes, class id -> loss of one entry
LR, STEPS = 0.1, 50
SGD = functools.partial(torch.optim.SGD, lr=LR)

# The check tensors.
Z = torch.tensor([[2, -1, 0.5, 0], [0.1, 0.2, -0.3, 1.5], [-2, 0, 1, 3]], dtype=torch.float64)
Y = torch.tensor([0, 3, 1])


def linear() -> Task:
    """A 5-3 linear network."""
    return classification(lambda: nn.Linear(FEATURES, CLASSES).double())


def tokens() -> Task:
    """A table of next tokens' logits."""
    return language(lambda: nn.Embedding(CLASSES, CLASSES).double(), batch_size=3)


PROBLEMS: dict[str, Callable[[], Task]] = {
    "linear": linear, "mlp": classification, "tokens": tokens, "one_logit": binary
}  # fmt: skip


def assert_follows(loss: Callable[[], Any], literal: Literal, problem: str) -> None:
    """SGD on the loss goes where SGD on the literal loss of each entry goes."""
    task, twin = PROBLEMS[problem](), PROBLEMS[problem]()
    expected = slow_iterates(twin, literal)
    with patch.object(Tensor, "float", Tensor.double):  # tasks hand logits on in single precision
        got = follow(Composed(SGD, loss=loss), task, STEPS)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    assert (expected[0] - expected[-1]).abs().max() > 1e-3  # it went somewhere


def slow_iterates(task: Task, literal: Literal) -> Tensor:
    """Parameters after each step of gradient descent on the mean of ``literal`` over all entries."""
    model = copy.deepcopy(task.model)
    params, iterates = list(model.parameters()), []
    for _ in range(STEPS):
        batch = task.data.next()
        total = torch.zeros((), dtype=torch.float64)
        entries = list(entries_of(model(batch.x), batch.y))
        for scores, y in entries:
            total = total + literal(scores, y) / len(entries)
        slopes = torch.autograd.grad(total, params)
        with torch.no_grad():
            for p, slope in zip(params, slopes, strict=True):
                p -= LR * slope
        iterates.append(torch.cat([p.detach().flatten() for p in params]))
    return torch.stack(iterates)


def entries_of(outputs: Tensor, y: Tensor) -> list[tuple[list[Tensor], int]]:
    """Scores of the classes, one by one, and the class, of every entry."""
    if outputs.dim() == 1:
        return [([torch.zeros_like(s), s], int(t)) for s, t in zip(outputs, y, strict=True)]
    return [
        (list(scores), int(t))
        for scores, t in zip(outputs.reshape(-1, outputs.shape[-1]), y.flatten(), strict=True)
    ]

"""Gradients that an optimizer differentiates again, as AdaHessian does; every pass is counted."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from runner.contract.batch import Batch
from runner.contract.task import Task


def with_graph(task: Task, batch: Batch) -> Tensor:
    """Fill ``.grad`` with a gradient that can be differentiated; the loss, detached."""
    with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Using backward\\(\\) with create_graph"
        )  # the graph goes with the step
        return task.backward(batch, create_graph=True)


@contextmanager
def products(task: Task, params: Sequence[Tensor], rows: int) -> Iterator[None]:
    """Charge the passes that are made through the gradient inside, and free its graph afterwards.

    The first makes a Hessian-vector product of the step's forward and backward pass, and is charged as one;
    a further one costs about a gradient, and is charged as that.
    """
    grads = [p.grad for p in params if p.grad is not None and p.grad.requires_grad]
    passes = [0] * len(grads)

    def note(place: int) -> None:
        passes[place] += 1

    hooks = [g.register_hook(lambda _g, place=place: note(place)) for place, g in enumerate(grads)]
    with task.cost.paused():
        yield
    for hook in hooks:
        hook.remove()
    for p in params:
        p.grad = None if p.grad is None else p.grad.detach()
    made = max(passes, default=0)
    if made and task.cost.enabled:
        task.cost.hvp += rows
        task.cost.forward += rows * (made - 2)
        task.cost.backward += rows * (made - 2)

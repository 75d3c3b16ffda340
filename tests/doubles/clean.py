"""Well-behaved parts that use every hook there is: checks must let them pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from runner.contract.batch import Batch
from runner.contract.task import Task
from tests.doubles.card import card


@card()
class Momentum(torch.optim.Optimizer):
    """Heavy-ball momentum, with its state where torch keeps it."""

    def __init__(self, params: Any, lr: float = 0.05, momentum: float = 0.9) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    buffer = self.state[p].setdefault("buffer", torch.zeros_like(p))
                    buffer.mul_(group["momentum"]).add_(p.grad)
                    p.sub_(buffer * group["lr"])


@card()
class Average:
    """Exponential moving average of the weights, evaluated in their place."""

    def __init__(self, decay: float = 0.9) -> None:
        self.decay = decay
        self.shadow: list[Tensor] = []
        self.backup: list[Tensor] | None = None

    def setup(self, task: Task) -> None:
        self.shadow = [p.detach().clone() for p in task.params]

    @torch.no_grad()
    def update(self, task: Task) -> None:
        torch._foreach_lerp_(self.shadow, [p.detach() for p in task.params], 1 - self.decay)

    @torch.no_grad()
    def swap_in(self, task: Task) -> None:
        if self.backup is None:
            self.backup = [p.detach().clone() for p in task.params]
            torch._foreach_copy_(task.params, self.shadow)

    @torch.no_grad()
    def swap_out(self, task: Task) -> None:
        if self.backup is not None:
            torch._foreach_copy_(task.params, self.backup)
            self.backup = None

    def report(self) -> dict[str, float]:
        return {"decay": self.decay}

    def state_dict(self) -> dict[str, Any]:
        return {"shadow": self.shadow}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.shadow = [tensor.clone() for tensor in state["shadow"]]


@card()
class WithReplacement:
    """Rows drawn with replacement from a named generator."""

    def __call__(self, task: Task) -> Batch:
        size, device = task.info.batch_size, task.data.x.device
        return task.data.take(
            torch.randint(task.data.n, (size,), generator=task.rng("replacement"), device=device)
        )


@card()
class Soft:
    """Weights that fall with the loss, mean one."""

    def __call__(self, task: Task, batch: Batch, losses: Tensor) -> Tensor:
        weights = 1 / (1 + losses)
        return weights / weights.mean()


@card("2 forward, 1 backward")
class Peek:
    """Backpropagation behind one more forward pass, declared."""

    def __call__(self, task: Task, batch: Batch) -> Tensor:
        with torch.no_grad():
            task.outputs(batch)
        return task.backward(batch)


@card()
class Clip:
    """Gradients clipped to norm one without waiting for the device."""

    def __call__(self, params: list[Tensor], grads: list[Tensor]) -> None:
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
        torch._foreach_mul_(grads, (1 / norm).clamp(max=1.0))


@card()
class Declared:
    """Waits for the loss at every step, and says so."""

    syncs_every = 1

    def __call__(self, task: Task, batch: Batch) -> Tensor:
        loss = task.backward(batch)
        return loss if loss.item() > 0 else loss.abs()


@card()
class Plateau:
    """Lowers a factor on the gradients when the validation loss stalls."""

    uses_metrics = True

    def __init__(self) -> None:
        self.factor, self.best = 1.0, float("inf")

    def observe(self, metrics: Mapping[str, float]) -> None:
        loss = metrics["validation/loss"]
        self.factor *= 1.0 if loss < 0.99 * self.best else 0.5
        self.best = min(self.best, loss)

    def __call__(self, params: list[Tensor], grads: list[Tensor]) -> None:
        torch._foreach_mul_(grads, self.factor)

    def state_dict(self) -> dict[str, Any]:
        return {"factor": self.factor, "best": self.best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.factor, self.best = state["factor"], state["best"]


@card()
class Drops:
    """Dropout on the outputs: randomness that is the model's."""

    def __call__(self, model: nn.Module, task: Task) -> nn.Module:
        return nn.Sequential(model, nn.Dropout(0.1))

"""Optimizers and schedules as libraries write them, with the demands that some have."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR, LRScheduler


def warmed_up(
    optimizer: torch.optim.Optimizer, num_warmup_steps: int, num_training_steps: int
) -> LRScheduler:
    """A function that gives a schedule, as transformers has them."""
    rest = max(1, num_training_steps - num_warmup_steps)
    return LambdaLR(
        optimizer,
        lambda step: min(step / max(1, num_warmup_steps), max(0.0, (num_training_steps - step) / rest)),
    )


class TwoClocks:
    """A schedule with a step of either kind and values that are functions of the count, as timm has them."""

    def __init__(self, optimizer: torch.optim.Optimizer, t_in_epochs: bool = True) -> None:
        self.optimizer, self.t_in_epochs, self.calls = optimizer, t_in_epochs, [0, 0]
        self.base = [group["lr"] for group in optimizer.param_groups]

    def step(self, epoch: int, metric: float | None = None) -> None:
        self.calls[0] += 1
        if self.t_in_epochs:
            self._set(epoch)

    def step_update(self, num_updates: int, metric: float | None = None) -> None:
        self.calls[1] += 1
        if not self.t_in_epochs:
            self._set(num_updates)

    def _set(self, count: int) -> None:
        for group, lr in zip(self.optimizer.param_groups, self.base, strict=True):
            group["lr"] = lr / (1 + count)

    def state_dict(self) -> dict[str, Any]:
        return {"calls": self.calls, "base": self.base}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.calls, self.base = state["calls"], state["base"]


class NoState:
    """Takes an optimizer and is no schedule."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None: ...


class Curious(TwoClocks):
    def step(self, temperature: float) -> None: ...  # pyright: ignore[reportIncompatibleMethodOverride]


class ClosureOnly(torch.optim.SGD):
    """Steps by the mean of two gradients: at the weights as they are, and twice."""

    def step(self, closure: Callable[[], Any]) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        closure()
        loss = closure()
        super().step()
        return loss


class OneGroup(torch.optim.SGD):
    """Takes parameters, no groups; has no decay that could be lost."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        params = list(params)
        if len(params) > 1 and isinstance(params[0], dict):
            raise ValueError("OneGroup doesn't support parameter groups")
        super().__init__(params, lr=lr)
        for group in self.param_groups:
            del group["weight_decay"]

    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for p in self.param_groups[0]["params"]:
            p.data.add_(p.grad, alpha=-self.param_groups[0]["lr"])


class OneGroupWithDecay(torch.optim.SGD):
    """Takes one group alone, and decays it."""

    def __init__(self, params: Any, lr: float = 0.1, weight_decay: float = 0.1) -> None:
        params = list(params)
        if len(params) > 1:
            raise ValueError("wants one group")
        super().__init__(params, lr=lr, weight_decay=weight_decay)


class AfterGradient(torch.optim.SGD):
    """Moves against its gradient before it evaluates again, as kinds of SAM do."""

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        params = [p for group in self.param_groups for p in group["params"]]
        climbs = [0.01 * p.grad for p in params]
        with torch.no_grad():
            torch._foreach_add_(params, climbs)
        assert closure is not None
        loss = closure()
        with torch.no_grad():
            torch._foreach_sub_(params, climbs)
        super().step()
        return loss


class Hutchinson(torch.optim.SGD):
    """Divides by a Hessian diagonal, estimated by as many products as it is told."""

    def __init__(self, params: Any, lr: float = 0.1, products: int = 1) -> None:
        super().__init__(params, lr=lr)
        self.products = products

    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        params = [p for group in self.param_groups for p in group["params"]]
        for number in range(self.products):
            grads = [p.grad for p in params]
            ones = [torch.ones_like(p) for p in params]
            torch.autograd.grad(grads, params, ones, retain_graph=number < self.products - 1)
        with torch.no_grad():
            super().step()


class OfModel(torch.optim.SGD):
    """Is built on the model, and counts what it was told."""

    def __init__(self, model: torch.nn.Module, lr: float = 0.1, num_iterations: int = 0) -> None:
        super().__init__(model.parameters(), lr=lr)
        self.param_groups[0]["told"] = num_iterations


class FusedBackward(torch.optim.SGD):
    """Makes the backward pass itself, as LOMO does."""

    def fused_backward(self, loss: Tensor, lr: float) -> None:
        loss.backward()
        with torch.no_grad():
            for p in self.param_groups[0]["params"]:
                p.sub_(p.grad, alpha=lr)

    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        raise NotImplementedError


class NoRate(torch.optim.Optimizer):
    """Has no learning rate."""

    def __init__(self, params: Any, scale: float = 0.1) -> None:
        super().__init__(params, {"scale": scale})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(p.grad, alpha=group["scale"])


class OwnRate(torch.optim.SGD):
    """Finds its learning rate itself, where none is given, as Adafactor does."""

    def __init__(self, params: Any, lr: float | None = None) -> None:
        super().__init__(params, lr=0.1)
        for group in self.param_groups:
            group["lr"] = lr

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(p.grad, alpha=0.1 if group["lr"] is None else group["lr"])


class Seeded(torch.optim.SGD):
    """Draws from a generator of its own, which its state leaves out, as timm's AdaHessian does."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, lr=lr)
        self.noise = torch.Generator().manual_seed(1)

    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            for p in group["params"]:
                p.grad.add_(torch.randn(p.shape, generator=self.noise), alpha=0.1)
        super().step()


class MatricesAlone(torch.optim.SGD):
    """Refuses what is no matrix, as torch's Muon does."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, lr=lr)
        if any(p.ndim != 2 for group in self.param_groups for p in group["params"]):
            raise ValueError("MatricesAlone only supports 2D parameters")


class Random(torch.optim.SGD):
    """Draws from every global generator there is, as Kron and Gravity do."""

    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            for p in group["params"]:
                p.grad.add_(torch.randn_like(p), alpha=0.01 * (np.random.random() + random.random()))
        super().step()


class Queueing(torch.optim.SGD):
    """Steps by the gradient of three steps ago, which it keeps in a queue."""

    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            for p in group["params"]:
                queue = self.state[p].setdefault("queue", deque())
                queue.append(p.grad.clone())
                p.grad = queue.popleft() if len(queue) > 3 else queue[0]
        super().step()


class PlainList(torch.optim.SGD):
    """Takes tensors, no groups."""

    def __init__(self, params: list[Tensor], lr: float = 0.1) -> None:
        self.entries = sum(p.numel() for p in params)
        super().__init__(params, lr=lr)


class OfNames(torch.optim.SGD):
    """Takes parameters with their names, and a rate that has no value of its own."""

    def __init__(self, named_parameters: Any, lr: float | None = None) -> None:
        names, params = zip(*named_parameters, strict=True)
        assert all(isinstance(name, str) for name in names) and lr > 0  # pyright: ignore
        super().__init__(params, lr=lr)  # pyright: ignore


class DoubleState(torch.optim.SGD):
    """Keeps float64 state of float32 weights, in a list within a dictionary."""

    def step(self, closure: Any = None) -> None:  # pyright: ignore
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    state = self.state[p].setdefault("kept", {"sums": [torch.zeros((), dtype=torch.float64)]})
                    state["sums"][0] = state["sums"][0] + p.grad.double().sum() / 3
                    p.data.add_(p.grad, alpha=-0.01 * float(state["sums"][0]))

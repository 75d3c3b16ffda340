"""Parts with one bug each; a check exists to catch it."""

from __future__ import annotations

import gc
import sys
from typing import Any, ClassVar

import torch
from torch import Tensor

from algorithms.estimators.ef import EF
from runner.contract.batch import Batch, Info
from runner.contract.task import Task
from runner.train.loop import Loop
from tests.doubles.card import card
from tests.doubles.clean import Average, Momentum
from workloads.evaluation import Evaluation


class Cardless(Momentum):
    """Says nothing of itself."""


@card()
class Forgetful(Momentum):
    """Keeps its momentum out of its state_dict."""

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "state": {}}


@card()
class Pickles(Momentum):
    """Puts an object of a class of its own into its state_dict."""

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "card": Batch(torch.zeros(1), torch.zeros(1))}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({key: value for key, value in state_dict.items() if key != "card"})


@card()
class Backwards(Momentum):
    """Climbs."""

    def __init__(self, params: Any, lr: float = 0.05) -> None:
        super().__init__(params, -lr)


@card()
class ReadsDefaults(Momentum):
    """Takes its step size from where no schedule reaches it."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for p in (p for group in self.param_groups for p in group["params"]):
            p.sub_(p.grad * self.defaults["lr"])


@card()
class Divides:
    """Has no answer for a warm-up of 0, which its setting may be."""

    def __init__(self, warmup: float) -> None:
        self.warmup = warmup

    def __call__(self, progress: float) -> float:
        return min(1.0, progress / self.warmup)


@card()
class TakesAnyNumber(EF):
    """Does not refuse more workers than a batch has rows."""

    def compatible(self, info: Info) -> str | None:
        return None


@card()
class Fragile(Momentum):
    """Divides by what bf16 rounds away."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.ndim > 1):
                lost = (p.grad - p.grad.bfloat16().float()).norm()
                p.grad.mul_(lost / lost)
        super().step()


@card()
class StaysAveraged(Average):
    """Never puts the training weights back: only the harness's guard does."""

    def swap_out(self, task: Task) -> None:
        self.backup = None


@card()
class Leaks(Average):
    """Pulls the training weights to the average after each evaluation."""

    evaluated = False

    def swap_in(self, task: Task) -> None:
        super().swap_in(task)
        self.evaluated = True

    @torch.no_grad()
    def update(self, task: Task) -> None:
        super().update(task)
        if self.evaluated:
            torch._foreach_lerp_(task.params, self.shadow, 0.5)
            self.evaluated = False


@card()
class Refreshes(Average):
    """Estimates statistics anew for each evaluation, at the algorithm's cost."""

    def swap_in(self, task: Task) -> None:
        super().swap_in(task)
        with torch.no_grad():
            task.model(task.data.x[:32])


@card()
class Promises(Average):
    """Promises weights that it does not have."""

    def broken_promise(self, task: Task, trained: list[Tensor]) -> str | None:
        negative = any(bool((p < 0).any()) for p in task.params)
        return "weights below 0" if negative else None


@card()
class SwapsModel(Average):
    """Puts a copy of the model in place of the model."""

    def swap_in(self, task: Task) -> None:
        import copy

        if self.backup is None:
            self.backup, self.model = [], task.model
            task.model = copy.deepcopy(task.model)

    def swap_out(self, task: Task) -> None:
        task.model, self.backup = self.model, None


@card()
class MovesMemory(Average):
    """Points the parameters at other memory, where the harness's guard cannot put the weights back."""

    def swap_in(self, task: Task) -> None:
        if self.backup is None:
            self.backup = [p.data.clone() for p in task.params]

    def swap_out(self, task: Task) -> None:
        for p, saved in zip(task.params, self.backup or [], strict=True):
            p.data = saved
        self.backup = None


@card()
class GlobalSampler:
    """Draws rows from torch's global generator."""

    def __call__(self, task: Task) -> Batch:
        return task.data.take(torch.randint(task.data.n, (task.info.batch_size,)))


@card()
class Entropy:
    """Draws rows from a generator that is seeded by the machine."""

    def __init__(self) -> None:
        self.generator = torch.Generator()
        self.generator.seed()

    def __call__(self, task: Task) -> Batch:
        return task.data.take(torch.randint(task.data.n, (task.info.batch_size,), generator=self.generator))


@card()
class Hoards:
    """Three hundred batches a step: the step that reaches the budget goes far past it."""

    def __call__(self, task: Task) -> Batch:
        return task.data.next(300 * task.info.batch_size)


@card()
class Stretches:
    """One large batch just before the budget is spent."""

    def __call__(self, task: Task) -> Batch:
        size = task.info.batch_size
        last = task.cost.drawn + size >= task.info.budget_samples
        return task.data.next(5 * size if last else size)


@card()
class ReadsLoss:
    """Waits for the loss."""

    def __call__(self, task: Task, batch: Batch) -> Tensor:
        loss = task.backward(batch)
        if loss.item() > 1e9:
            raise OverflowError
        return loss


@card()
class Attached:
    """Returns a loss that hangs on its graph."""

    def __call__(self, task: Task, batch: Batch) -> Tensor:
        loss = task.losses(batch).mean()
        loss.backward()
        return loss


@card()
class Overwrites:
    """Returns one and the same tensor at each step."""

    def __init__(self) -> None:
        self.loss = torch.zeros(())

    def __call__(self, task: Task, batch: Batch) -> Tensor:
        return self.loss.copy_(task.backward(batch))


@card()
class Freezes:
    """Leaves the model in evaluation mode."""

    def __call__(self, task: Task, batch: Batch) -> Tensor:
        loss = task.backward(batch)
        task.model.eval()
        return loss


@card()
class Peeks:
    """One forward pass more than declared."""

    def __call__(self, task: Task, batch: Batch) -> Tensor:
        with torch.no_grad():
            task.outputs(batch)
        return task.backward(batch)


@card()
class Remembers:
    """Scales gradients by the first norm it ever saw, kept on the class."""

    scale: ClassVar[list[Tensor]] = []

    def __call__(self, params: list[Tensor], grads: list[Tensor]) -> None:
        if not self.scale:
            self.scale.append(1 / torch.linalg.vector_norm(grads[0]))
        torch._foreach_mul_(grads, self.scale[0])


@card()
class Counts:
    """Scales gradients by how often its class was called."""

    calls = 0

    def __call__(self, params: list[Tensor], grads: list[Tensor]) -> None:
        Counts.calls += 1
        torch._foreach_mul_(grads, 1 + 0.001 * Counts.calls)


@card()
class Digs:
    """Keeps hold of the validation split."""

    def setup(self, task: Task) -> None:
        self.found = [item for item in gc.get_referrers(Evaluation) if type(item) is Evaluation]

    def __call__(self, params: list[Tensor], grads: list[Tensor]) -> None:
        pass


@card()
class Spies:
    """Looks the validation split up on the stack, uses it and keeps nothing."""

    def __call__(self, params: list[Tensor], grads: list[Tensor]) -> None:
        frame = sys._getframe()
        while frame is not None and not isinstance(frame.f_locals.get("self"), Loop):
            frame = frame.f_back
        if frame is not None:
            rows = frame.f_locals["self"].evaluate.splits["validation"].x
            torch._foreach_mul_(grads, rows.mean())


@card()
class Refuses:
    """Fits nothing."""

    def compatible(self, info: Info) -> str | None:
        return f"not for {info.task} tasks"

    def __call__(self, params: list[Tensor], grads: list[Tensor]) -> None:
        pass


@card()
class Mumbles(Refuses):
    """Refuses language models without a reason."""

    def compatible(self, info: Info) -> str | None:
        return "" if info.task == "lm" else None
